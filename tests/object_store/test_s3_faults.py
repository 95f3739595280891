"""Faults of S3, answer by answer: how many requests they cost, and what comes out in the end."""

import base64
import contextlib
import logging
import socket
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from lakehouse_pipeline.errors import ConfigurationError, TransientError
from lakehouse_pipeline.events import Event, subscribed
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import NotSupportedError, PreconditionFailedError, RequestFailedError
from tests.object_store.scripted_s3 import (
    KEY_ID,
    LATE,
    MIB,
    RESET,
    SECRET,
    STORED,
    TOKEN,
    URL,
    Answer,
    Scripted,
    ScriptedS3,
    body,
    described,
    error,
    own,
)

SLOW_DOWN, REFUSED, MISSING = error(503, "SlowDown"), error(412, "PreconditionFailed"), error(404)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(SLOW_DOWN, id="slow-down"),
        pytest.param(error(503), id="bare-503"),
        pytest.param(error(429, "TooManyRequests"), id="429"),
        pytest.param(error(400, "RequestLimitExceeded"), id="throttled-as-400"),
        pytest.param(error(500, "InternalError"), id="internal-error"),
        pytest.param(error(502), id="bare-502"),
        pytest.param(Answer(504, b"<html>Gateway Timeout</html>"), id="proxy-page"),
        pytest.param(error(400, "RequestTimeout"), id="request-timeout"),
        pytest.param(error(400, "BadDigest"), id="bad-digest"),
        pytest.param(error(409, "ConditionalRequestConflict"), id="conflict"),
        pytest.param(RESET, id="reset"),
        pytest.param(Answer(200, b"<html>welcome</html>"), id="a-proxys-200"),
    ],
)
def test_a_curable_fault_costs_one_request(s3: ScriptedS3, fault: Answer) -> None:
    """Throttles, server errors, resets, timeouts, damage and conflicts: the put is sent again and lands."""
    s3.script = [fault, STORED]
    file_io = s3.file_io()
    assert file_io.put(URL, b"body").etag == "e1"
    assert [asked.body for asked in s3.asked] == [b"body", b"body"]
    assert (file_io.counts().requests, file_io.counts().retries, file_io.counts().bytes_sent) == (2, 1, 8)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        pytest.param(error(403, "AccessDenied"), ConfigurationError, "check the credentials", id="denied"),
        pytest.param(error(400, "ExpiredToken"), ConfigurationError, "check the credentials", id="expired"),
        pytest.param(error(403), ConfigurationError, "check the credentials", id="bare-403"),
        pytest.param(error(400, "InvalidRequest"), ConfigurationError, "s3.endpoint", id="not-understood"),
        pytest.param(error(404, "NoSuchBucket"), FileNotFoundError, "folder/x", id="no-bucket"),
        pytest.param(error(412, "PreconditionFailed"), PreconditionFailedError, "folder/x", id="refused"),
    ],
)
def test_what_no_retry_cures_costs_one_request(
    s3: ScriptedS3, fault: Answer, kind: type[Exception], message: str
) -> None:
    """Refusals leave at once, name the object, and say the way out."""
    s3.script = [fault, STORED]
    with pytest.raises(kind, match=message):
        s3.file_io().put(URL, b"body", if_absent=True)
    assert s3.methods == ["PUT"]


VERBS: dict[str, Callable[[LakehouseFileIO], object]] = {
    "head": lambda files: files.head(URL),
    "get": lambda files: files.get(URL),
    "list": lambda files: list(files.list_objects(URL)),
    "delete": lambda files: files.delete(URL),
    "delete-many": lambda files: files.delete_objects([URL]),
    "uploads": lambda files: list(files.list_uploads(URL)),
    "abort": lambda files: files.abort_upload(URL, "u1"),
    "copy": lambda files: files.copy(URL, URL + "2"),
    "copy-known": lambda files: files.copy(URL, URL + "2", etag="e1", size=4),
    "md5": lambda files: files.is_md5(URL),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
@pytest.mark.parametrize("fault", [error(503), error(500), RESET], ids=["bare-503", "bare-500", "reset"])
def test_every_verb_is_tried_again(s3: ScriptedS3, verb: Callable[[LakehouseFileIO], object], fault: Answer) -> None:
    """A throttle without a body (all that a HEAD has), a server error and a reset cost every verb one request."""
    s3.script = [fault, error(403, "AccessDenied")]
    with pytest.raises(ConfigurationError, match="check the credentials"):
        verb(s3.file_io())
    assert len(s3.asked) == 2


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_a_verb_that_the_store_lacks_is_not_tried_again(
    s3: ScriptedS3, verb: Callable[[LakehouseFileIO], object]
) -> None:
    """501 is no failure of the moment, though a 5xx: it says so at once; open uploads are none then."""
    s3.script = [error(501, "NotImplemented")]
    with contextlib.suppress(NotSupportedError):
        assert verb(s3.file_io()) == []
    assert len(s3.asked) == 1


@pytest.mark.parametrize(
    ("minutes", "said"), [(20, r"1[12]\d\d s behind"), (-20, r"1[12]\d\d s ahead of")], ids=["behind", "ahead"]
)
def test_a_skewed_clock_is_named(s3: ScriptedS3, minutes: int, said: str) -> None:
    """Botocore never corrects its clock, so no retry helps: the message has the difference, by the answer's Date."""
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
    s3.script = [error(403, "RequestTimeTooSkewed", Date=date)]
    with pytest.raises(ConfigurationError, match=f"this machine's clock is {said} the store's"):
        s3.file_io().put(URL, b"body")
    assert s3.methods == ["PUT"]


def test_throttles_are_counted_and_said(s3: ScriptedS3) -> None:
    """Three times 503 cost four requests; three events name the put and its error."""
    s3.script = [SLOW_DOWN, SLOW_DOWN, SLOW_DOWN, STORED]
    file_io, heard = s3.file_io(), list[Event]()
    with subscribed(heard.append):
        file_io.put(URL, b"body")
    counts = file_io.counts()
    assert (counts.requests, counts.retries, counts.throttles) == (4, 3, 3)
    assert [(event.name, event.fields.get("request")) for event in heard] == [
        *[("request.retried", f"put {URL}")] * 3,
        ("object.put", None),
    ]


def test_tries_run_out(s3: ScriptedS3) -> None:
    """Two retries allowed: the third error comes out, knows that it is a throttle, and has a note."""
    s3.script = [SLOW_DOWN] * 9
    with pytest.raises(RequestFailedError, match="SlowDown") as caught:
        s3.file_io(**{"s3.retry.num-retries": "2"}).get(URL)
    assert (s3.methods, caught.value.throttled, caught.value.code) == (["GET"] * 3, True, "SlowDown")
    assert caught.value.__notes__[0].startswith(f"get {URL}: gave up after 3 tries in ")


@pytest.mark.parametrize(
    "header", [{"Retry-After": "0.08"}, {"x-amz-retry-after": "80"}], ids=["seconds", "milliseconds"]
)
def test_the_stores_wait_is_honoured(s3: ScriptedS3, header: dict[str, str]) -> None:
    """What `Retry-After` or `x-amz-retry-after` asks is waited for."""
    s3.script = [error(503, "SlowDown", **header), STORED]
    heard = list[Event]()
    with subscribed(heard.append):
        s3.file_io(**{"s3.retry.max-wait-ms": "100"}).put(URL, b"body")
    wait = heard[0].fields["wait_s"]
    assert isinstance(wait, float)
    assert 0.08 <= wait <= 0.1


def test_an_unreachable_store_is_transient() -> None:
    """A refused connection is tried as often as told, then named."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        properties = {"s3.endpoint": endpoint, "s3.access-key-id": KEY_ID, "s3.secret-access-key": SECRET}
        file_io = LakehouseFileIO(properties | {"s3.retry.num-retries": "1", "s3.retry.min-wait-ms": "1"})
        with pytest.raises(TransientError, match=endpoint):
            file_io.head(URL)
    assert file_io.counts().requests == 2


def test_a_silent_store_is_transient() -> None:
    """A store that takes the connection and says nothing ends at the request timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        properties = {"s3.endpoint": endpoint, "s3.access-key-id": KEY_ID, "s3.secret-access-key": SECRET}
        file_io = LakehouseFileIO(properties | {"s3.retry.num-retries": "0", "s3.request-timeout": "0.1"})
        with pytest.raises(RequestFailedError, match="timeout"):
            file_io.head(URL)


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(Answer(200, b"ha", {"Content-Length": "4", "ETag": '"e1"', **LATE}), id="cut-off"),
        pytest.param(
            Answer(200, b"hurt", {"ETag": '"e1"', "x-amz-checksum-crc32": "AAAAAA==", **LATE}), id="wrong-checksum"
        ),
    ],
)
def test_a_damaged_body_is_read_again(s3: ScriptedS3, damaged: Answer) -> None:
    """A body that ends early, or whose CRC32 is not the one the store sent, is never given out."""
    checksum = base64.b64encode(zlib.crc32(b"body").to_bytes(4, "big")).decode()
    s3.script = [damaged, Answer(200, b"body", {"ETag": '"e1"', "x-amz-checksum-crc32": checksum, **LATE})]
    assert s3.file_io().get(URL).body == b"body"


def test_a_put_carries_a_checksum_and_its_condition(s3: ScriptedS3) -> None:
    """CRC32 goes with every body; conditions are HTTP's own, with the ETag quoted."""
    s3.script = [STORED, STORED]
    s3.file_io().put(URL, b"body", if_absent=True)
    s3.file_io().put(URL, b"body", if_match="e0")
    checksum = base64.b64encode(zlib.crc32(b"body").to_bytes(4, "big")).decode()
    assert [asked.headers["x-amz-checksum-crc32"] for asked in s3.asked] == [checksum] * 2
    assert s3.asked[0].headers["if-none-match"] == "*"
    assert s3.asked[1].headers["if-match"] == '"e0"'
    assert s3.asked[0].nonce != s3.asked[1].nonce


CONDITIONS = pytest.mark.parametrize("condition", [{"if_absent": True}, {"if_match": "e0"}], ids=["absent", "match"])


@CONDITIONS
@pytest.mark.parametrize("lost", [RESET, error(500, "InternalError"), SLOW_DOWN], ids=["reset", "500", "503"])
def test_a_put_that_landed_unheard_succeeds(s3: ScriptedS3, condition: dict[str, Any], lost: Answer) -> None:
    """The answer is lost, the next try meets its own object and is refused: the nonce says that it is ours."""
    s3.script = [lost, REFUSED, own]
    assert s3.file_io().put(URL, b"body", **condition).etag == "e1"
    assert s3.methods == ["PUT", "PUT", "HEAD"]


@CONDITIONS
@pytest.mark.parametrize("there", [described("another"), MISSING], ids=["another", "none"])
def test_a_put_that_lost_unheard_is_refused(s3: ScriptedS3, condition: dict[str, Any], there: Answer) -> None:
    """If what stands there is another's, or nothing, the refusal is true, and says that a try may have landed."""
    s3.script = [RESET, REFUSED, there]
    with pytest.raises(PreconditionFailedError) as caught:
        s3.file_io().put(URL, b"body", **condition)
    assert caught.value.maybe_landed
    assert s3.methods == ["PUT", "PUT", "HEAD"]


def test_an_object_of_another_size_is_not_ours(s3: ScriptedS3) -> None:
    """A nonce alone settles nothing: size has to fit, too."""
    s3.script = [RESET, REFUSED, lambda asked: described(asked[0].nonce, 3)]
    with pytest.raises(PreconditionFailedError):
        s3.file_io().put(URL, b"body", if_absent=True)


COPIED = Answer(200, b'<CopyObjectResult><ETag>"e2"</ETag></CopyObjectResult>')
SOURCE = described("another")


@pytest.mark.parametrize(
    ("script", "methods"),
    [
        pytest.param([SOURCE, COPIED], "HEAD PUT", id="no-fault"),
        pytest.param([SOURCE, SLOW_DOWN, COPIED], "HEAD PUT PUT", id="throttled"),
        pytest.param(
            [SOURCE, Answer(200, error(200, "SlowDown").body), COPIED], "HEAD PUT PUT", id="200-with-an-error"
        ),
        pytest.param(
            [SOURCE, RESET, REFUSED, lambda asked: described(asked[1].nonce)], "HEAD PUT PUT HEAD", id="landed-unheard"
        ),
    ],
)
def test_a_copy_survives(s3: ScriptedS3, script: list[Scripted], methods: str) -> None:
    """The store copies the version that the HEAD met, once, under the condition."""
    s3.script = script
    assert s3.file_io().copy(URL, URL + "2", if_absent=True).size == 4
    assert " ".join(s3.methods) == methods
    sent = s3.asked[1].headers
    assert (sent["x-amz-copy-source"], sent["x-amz-copy-source-if-match"]) == ("bucket/folder/x", '"e1"')
    assert (sent["if-none-match"], sent["x-amz-metadata-directive"]) == ("*", "REPLACE")


def test_a_known_version_is_copied_at_once(s3: ScriptedS3) -> None:
    """Who has listed an object knows its version: no HEAD, and the store sees to it that it is that one."""
    s3.script = [COPIED]
    assert s3.file_io().copy(URL, URL + "2", etag="e1", size=4).size == 4
    assert s3.methods == ["PUT"]
    assert s3.asked[0].headers["x-amz-copy-source-if-match"] == '"e1"'
    s3.script = [REFUSED]
    with pytest.raises(TransientError, match="is not the version"):
        s3.file_io().copy(URL, URL + "2", etag="e1", size=4)


def test_a_copy_tells_a_missing_bucket_from_a_missing_source(s3: ScriptedS3) -> None:
    """S3 answers 404 to either."""
    s3.script = [error(404, "NoSuchBucket"), SOURCE]
    with pytest.raises(ConfigurationError, match=f"^{URL}2: there is no such bucket .*is its name right"):
        s3.file_io().copy(URL, URL + "2", etag="e1", size=4)
    s3.script = [error(404, "NoSuchKey"), error(404)]
    with pytest.raises(FileNotFoundError) as caught:
        s3.file_io().copy(URL, URL + "2", etag="e1", size=4)
    assert caught.value.filename == URL


def test_a_copy_has_the_tags_that_are_asked_for(s3: ScriptedS3) -> None:
    """Not those of its source, which S3 copies unless it is told otherwise."""
    s3.script = [COPIED]
    s3.file_io(**{"s3.write.tags.team": "data"}).copy(URL, URL + "2", etag="e1", size=4)
    sent = s3.asked[0].headers
    assert (sent["x-amz-tagging"], sent["x-amz-tagging-directive"]) == ("team=data", "REPLACE")


@pytest.mark.parametrize(
    ("answer", "region"),
    [
        pytest.param(Answer(200, headers={"x-amz-bucket-region": "eu-west-1"}), "eu-west-1", id="told"),
        pytest.param(Answer(200), None, id="not told"),
        pytest.param(error(403, "AccessDenied"), None, id="forbidden"),
        pytest.param(error(404, "NoSuchBucket"), None, id="no bucket"),
    ],
)
def test_the_region_of_a_bucket(s3: ScriptedS3, answer: Answer, region: str | None) -> None:
    """As far as the store tells it."""
    s3.script = [answer]
    assert s3.file_io().region_of(URL) == region


@pytest.mark.parametrize(
    ("etag", "headers", "is_md5"),
    [
        pytest.param("0" * 32, {}, True, id="plain"),
        pytest.param("0" * 32, {"x-amz-server-side-encryption": "AES256"}, True, id="SSE-S3"),
        pytest.param("0" * 32, {"x-amz-server-side-encryption": "aws:kms"}, False, id="KMS"),
        pytest.param(
            "0" * 32, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}, False, id="a key of ours"
        ),
        pytest.param("0" * 32 + "-2", {}, False, id="parts"),
    ],
)
def test_whether_an_etag_is_an_md5(s3: ScriptedS3, etag: str, headers: dict[str, str], is_md5: bool) -> None:  # noqa: FBT001
    """AWS says when."""
    s3.script = [Answer(200, headers={"ETag": f'"{etag}"', "Content-Length": "4", **headers})]
    assert s3.file_io().is_md5(URL) is is_md5


def test_a_source_that_changed_is_transient(s3: ScriptedS3) -> None:
    """Between HEAD and copy the source was replaced: no mix of both, and no refusal of the target."""
    s3.script = [SOURCE, REFUSED]
    with pytest.raises(TransientError, match="is not the version"):
        s3.file_io().copy(URL, URL + "2")


def test_settling_survives_a_throttle(s3: ScriptedS3) -> None:
    """If the HEAD that settles fails, put and HEAD are tried again."""
    s3.script = [RESET, REFUSED, SLOW_DOWN, REFUSED, own]
    assert s3.file_io().put(URL, b"body", if_absent=True).etag == "e1"


def test_a_first_refusal_is_believed(s3: ScriptedS3) -> None:
    """Without an earlier try of unknown outcome nobody asks whose object it is."""
    s3.script = [REFUSED, own]
    with pytest.raises(PreconditionFailedError) as caught:
        s3.file_io().put(URL, b"body", if_absent=True)
    assert (s3.methods, caught.value.maybe_landed) == (["PUT"], False)


def test_a_missing_object_meets_no_if_match(s3: ScriptedS3) -> None:
    """AWS answers 404 where others answer 412: both are a refusal."""
    s3.script = [error(404, "NoSuchKey")]
    with pytest.raises(PreconditionFailedError):
        s3.file_io().put(URL, b"body", if_match="e0")


def test_reads_ask_for_the_version_they_began_with(s3: ScriptedS3) -> None:
    """Ranges carry If-Match; a 412 is a transient error that names the object."""
    size = 2 * MIB
    first = Answer(206, bytes(256 * 1024), {"ETag": '"e1"', "Content-Range": f"bytes 0-262143/{size}", **LATE})
    s3.script = [first, REFUSED]
    with s3.file_io().open_read(URL, size=size) as stream:
        stream.read(256 * 1024)
        with pytest.raises(TransientError, match=URL):
            stream.read(1)
    assert [asked.headers.get("if-match") for asked in s3.asked] == [None, '"e1"']
    assert s3.asked[0].headers["range"] == "bytes=0-262143"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(error(416, "InvalidRange"), id="416"),
        pytest.param(Answer(206, b"abc", {"ETag": '"e1"', "Content-Range": "bytes 0-2/3", **LATE}), id="smaller"),
        pytest.param(Answer(206, bytes(10), {"ETag": '"e1"', "Content-Range": "bytes 0-9/20", **LATE}), id="larger"),
    ],
)
def test_an_object_of_another_size_is_another_version(s3: ScriptedS3, other: Answer) -> None:
    """Where the size was told without an ETag, an object that has another one is not read."""
    s3.script = [other]
    with s3.file_io().open_read(URL, size=10) as stream, pytest.raises(TransientError, match=URL):
        stream.read()


CREATED = Answer(200, b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
CREATED_AGAIN = Answer(200, CREATED.body.replace(b"u1", b"u2"))
COMPLETED = Answer(200, b'<CompleteMultipartUploadResult><ETag>"e1-2"</ETag></CompleteMultipartUploadResult>')
GONE, ABORTED = error(404, "NoSuchUpload"), Answer(204)
CONFLICT = error(409, "ConditionalRequestConflict")
BODY = bytes(range(256)) * (6 * MIB // 256)
ONE_BY_ONE = {"s3.multipart.num-threads": "1"}  # a script has an order


def steps(s3: ScriptedS3) -> list[str]:
    """Give what was asked of a multipart upload, in words."""
    words = []
    for asked in s3.asked:
        query = asked.path.partition("?")[2]
        kind = "part" if "partNumber" in query else "create" if "uploads" in query else "complete"
        words.append({"PUT": kind, "POST": kind, "DELETE": "abort", "HEAD": "head"}[asked.method])
    return words


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param([CREATED, STORED, STORED, COMPLETED], "create part part complete", id="no-fault"),
        pytest.param(
            [SLOW_DOWN, CREATED, STORED, RESET, SLOW_DOWN, STORED, COMPLETED],
            "create create part part part part complete",
            id="only-the-failed-part-again",
        ),
        pytest.param(
            [CREATED, STORED, STORED, Answer(200, error(200, "InternalError").body), COMPLETED],
            "create part part complete complete",
            id="200-with-an-error-inside",
        ),
        pytest.param(
            [CREATED, STORED, STORED, RESET, GONE, own],
            "create part part complete complete head",
            id="completed-unheard-then-404",
        ),
        pytest.param(
            [CREATED, STORED, STORED, RESET, REFUSED, own],
            "create part part complete complete head",
            id="completed-unheard-then-412",
        ),
        pytest.param(
            [CREATED, STORED, STORED, CONFLICT, ABORTED, CREATED_AGAIN, STORED, STORED, COMPLETED],
            "create part part complete abort create part part complete",
            id="conflict-begins-again",
        ),
        pytest.param(
            [CREATED, STORED, GONE, GONE, CREATED_AGAIN, STORED, STORED, COMPLETED],
            "create part part abort create part part complete",
            id="dropped-upload-begins-again",
        ),
    ],
)
def test_an_upload_in_parts_survives(s3: ScriptedS3, script: list[Scripted], expected: str) -> None:
    """Each fault costs what it must: one part, one complete, or the upload."""
    s3.script = script
    s3.file_io(**ONE_BY_ONE).put(URL, BODY, if_absent=True)
    assert " ".join(steps(s3)) == expected


def test_parts_are_the_body_and_the_last_request_has_the_condition(s3: ScriptedS3) -> None:
    """Parts of 5 MiB in order; the nonce goes with the creation, the condition with the completion."""
    s3.script = [CREATED, STORED, STORED, COMPLETED]
    assert s3.file_io(**ONE_BY_ONE).put(URL, BODY, if_match="e0").etag == "e1-2"
    create, first, second, complete = s3.asked
    assert (first.body + second.body, len(first.body)) == (BODY, 5 * MIB)
    assert len(create.nonce) == 32
    assert (complete.headers["if-match"], "uploadId=u1" in complete.path) == ('"e0"', True)


@pytest.mark.parametrize(
    ("script", "kind", "expected"),
    [
        pytest.param(
            [CREATED, STORED, SLOW_DOWN, SLOW_DOWN, ABORTED], TransientError, "create part part part abort", id="part"
        ),
        pytest.param(
            [CREATED, STORED, STORED, REFUSED, ABORTED],
            PreconditionFailedError,
            "create part part complete abort",
            id="condition",
        ),
        pytest.param(
            [CREATED, error(403, "AccessDenied"), GONE], ConfigurationError, "create part abort", id="abort-of-nothing"
        ),
        pytest.param(
            [CREATED, STORED, STORED, RESET, GONE, MISSING, ABORTED, *[CREATED_AGAIN, STORED, STORED, REFUSED] * 1,
             described("another"), ABORTED],
            PreconditionFailedError,
            "create part part complete complete head abort create part part complete head abort",
            id="dropped-then-lost-to-another",
        ),
    ],
)  # fmt: skip
def test_an_upload_that_fails_is_aborted(
    s3: ScriptedS3, script: list[Scripted], kind: type[Exception], expected: str
) -> None:
    """Whatever ends an upload, its parts do not stay open."""
    s3.script = script
    with pytest.raises(kind):
        s3.file_io(**ONE_BY_ONE, **{"s3.retry.num-retries": "1"}).put(URL, BODY, if_absent=True)
    assert " ".join(steps(s3)) == expected


def test_an_abort_that_fails_hides_nothing(s3: ScriptedS3, caplog: pytest.LogCaptureFixture) -> None:
    """The first failure comes out; the log names the upload that is left open."""
    s3.script = [CREATED, error(403, "AccessDenied"), SLOW_DOWN]
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigurationError, match="upload_part"):
        s3.file_io(**ONE_BY_ONE, **{"s3.retry.num-retries": "0"}).put(URL, BODY)
    assert f"upload u1 of {URL} is left open" in caplog.text


def refusals(**codes: str) -> Answer:
    """Answer a batch delete with some keys refused."""
    told = "".join(f"<Error><Key>{key}</Key><Code>{code}</Code></Error>" for key, code in codes.items())
    return Answer(200, f"<DeleteResult>{told}</DeleteResult>".encode())


def test_of_a_batch_only_the_failed_keys_are_sent_again(s3: ScriptedS3) -> None:
    """Errors per key inside of a 200: the throttled key goes again alone, a missing one is fine."""
    s3.script = [refusals(b="SlowDown", c="NoSuchKey"), refusals()]
    s3.file_io().delete_objects([f"s3://bucket/{key}" for key in "abc"])
    assert [asked.body.count(b"<Key>") for asked in s3.asked] == [3, 1]
    assert b"<Key>b</Key>" in s3.asked[1].body


def test_a_key_that_must_not_be_deleted_ends_the_batch(s3: ScriptedS3) -> None:
    """A refusal that no try cures comes out at once, with its URL, even beside one that a try might cure."""
    s3.script = [refusals(a="SlowDown", b="AccessDenied")]
    with pytest.raises(ConfigurationError, match="s3://bucket/b"):
        s3.file_io().delete_objects([f"s3://bucket/{key}" for key in "ab"])


def test_a_batch_that_fails_as_a_whole_is_sent_again(s3: ScriptedS3) -> None:
    """A 200 whose body is an error deletes nothing."""
    s3.script = [Answer(200, error(200, "InternalError").body), refusals()]
    s3.file_io().delete_objects([f"s3://bucket/{key}" for key in "abc"])
    assert [asked.body.count(b"<Key>") for asked in s3.asked] == [3, 3]


def test_a_batch_has_250_keys(s3: ScriptedS3) -> None:
    """Each key counts as a write, so pages are small."""
    s3.script = [refusals()] * 3
    s3.file_io().delete_objects([f"s3://bucket/{number}" for number in range(600)])
    assert [asked.body.count(b"<Key>") for asked in s3.asked] == [250, 250, 100]


def test_open_uploads_are_listed_page_by_page(s3: ScriptedS3) -> None:
    """The next page begins after key and id of the last one; keys outside of the prefix are left out."""

    def page(*keys: str, more: bool) -> Answer:
        found = "".join(
            f"<Upload><Key>{key}</Key><UploadId>id-{key}</UploadId><Initiated>2013-01-01T10:00:00.000Z</Initiated></Upload>"
            for key in keys
        )
        following = f"<NextKeyMarker>{keys[-1]}</NextKeyMarker><NextUploadIdMarker>id-{keys[-1]}</NextUploadIdMarker>"
        told = f"<IsTruncated>{str(more).lower()}</IsTruncated>{following if more else ''}"
        return Answer(200, f"<ListMultipartUploadsResult>{told}{found}</ListMultipartUploadsResult>".encode())

    s3.script = [page("f/a", "f/b", more=True), SLOW_DOWN, page("f/c", "other", more=False)]
    found = list(s3.file_io().list_uploads("s3://bucket/f/"))
    assert [(each.url, each.upload) for each in found] == [(f"s3://bucket/f/{key}", f"id-f/{key}") for key in "abc"]
    assert found[0].begun == datetime(2013, 1, 1, 10, tzinfo=UTC)
    assert ["key-marker=f%2Fb" in asked.path for asked in s3.asked] == [False, True, True]


def test_an_upload_that_is_gone_is_aborted(s3: ScriptedS3) -> None:
    """A second abort is fine."""
    s3.script = [GONE]
    s3.file_io().abort_upload(URL, "u1")
    assert s3.methods == ["DELETE"]


def test_a_listing_goes_on_where_it_was(s3: ScriptedS3) -> None:
    """A throttle between two pages costs one request, and no key is lost or met twice."""

    def page(key: str, following: str) -> Answer:
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{following}</NextContinuationToken>"
        found = (
            f"<EncodingType>url</EncodingType><Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag>"
            "<LastModified>2013-01-01T10:00:00.000Z</LastModified></Contents>"
        )
        return Answer(200, f"<ListBucketResult>{found}{more if following else ''}</ListBucketResult>".encode())

    s3.script = [page("a%20b", "t1"), SLOW_DOWN, page("c", "")]
    assert [info.url for info in s3.file_io().list_objects("s3://bucket/")] == ["s3://bucket/a b", "s3://bucket/c"]
    assert ["continuation-token=t1" in asked.path for asked in s3.asked] == [False, True, True]


@pytest.mark.parametrize("fault", [RESET, error(403, "InvalidAccessKeyId"), error(500), MISSING, error(400, "Odd")])
def test_secrets_never_show(s3: ScriptedS3, caplog: pytest.LogCaptureFixture, fault: Answer) -> None:
    """Neither key, secret nor token are in an error, its notes, our log or a repr."""
    s3.script = [fault] * 2
    file_io = s3.file_io(**{"s3.retry.num-retries": "1"})
    with (
        caplog.at_level(logging.DEBUG, "lakehouse_pipeline"),
        pytest.raises((TransientError, ConfigurationError, FileNotFoundError)) as caught,
    ):
        file_io.get(URL)
    notes = getattr(caught.value, "__notes__", [])
    shown = "\n".join([str(caught.value), repr(caught.value), repr(file_io), caplog.text, *notes])
    assert [secret for secret in (KEY_ID, SECRET, TOKEN) if secret in shown] == []


def test_missing_credentials_name_the_way_out(
    s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory
) -> None:
    """Without keys in the properties boto3's chain is asked; an empty one is a configuration error."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, f"{tmp_path}/none")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file_io = s3.file_io(**{"s3.access-key-id": "", "s3.secret-access-key": "", "s3.session-token": ""})
    with pytest.raises(ConfigurationError, match="no credentials found"):
        file_io.get(URL)


def test_boto3s_chain_gives_the_credentials(s3: ScriptedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys in the properties the environment's are used."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    s3.script = [body(b"body")]
    # A region of its own: clients are shared between FileIOs of the same settings.
    empty = {"s3.access-key-id": "", "s3.secret-access-key": "", "s3.session-token": "", "s3.region": "eu-north-1"}
    assert s3.file_io(**empty).get(URL).body == b"body"
    assert "FROMENVIRONMENT" in s3.asked[0].headers["authorization"]
