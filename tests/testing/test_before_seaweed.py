"""The fault server before a real S3 server: signatures pass, and each fault is what clients take it for."""

import itertools
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pyarrow.fs
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField

from lakehouse_pipeline.demo.seaweed import REGION, SeaweedServer
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import PreconditionFailedError, RequestFailedError
from lakehouse_pipeline.planning.s3_scaling import Scaling
from lakehouse_pipeline.testing.asked import Dialect
from lakehouse_pipeline.testing.exchanges import Exchange
from lakehouse_pipeline.testing.faults import FaultServer
from lakehouse_pipeline.testing.schedule import Effect, Fault

MIB = 1024 * 1024
BODY = b"body" * 10_000
PATIENT = {"s3.retry.max-wait-ms": "200"}


@pytest.fixture(scope="module")
def running(seaweed: SeaweedServer) -> Iterator[FaultServer]:
    """Run one fault server for all tests here."""
    with FaultServer(seaweed.endpoint) as server:
        yield server


@pytest.fixture
def server(running: FaultServer) -> FaultServer:
    """Give it without faults and with an empty log."""
    running.clear()
    return running


@pytest.fixture
def url() -> str:
    """Give a URL where nothing is."""
    return f"s3://raw/{uuid.uuid4().hex}/x"


def file_io(server: FaultServer, seaweed: SeaweedServer, **properties: str) -> LakehouseFileIO:
    """Give a FileIO through the fault server, with tiny waits."""
    quick = {"s3.retry.min-wait-ms": "1", "s3.retry.max-wait-ms": "20", "s3.request-timeout": "5"}
    parts = {"s3.multipart.part-size-bytes": str(5 * MIB), "s3.multipart.threshold": "1"}
    return LakehouseFileIO(seaweed.s3_properties() | {"s3.endpoint": server.endpoint} | quick | parts | properties)


@pytest.fixture
def files(server: FaultServer, seaweed: SeaweedServer) -> LakehouseFileIO:
    """Give a FileIO through it."""
    return file_io(server, seaweed)


@pytest.fixture
def client(server: FaultServer, seaweed: SeaweedServer) -> Iterator[Any]:
    """Give boto3's client through it, which retries nothing."""
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=REGION,
        aws_access_key_id=seaweed.access_key_id,
        aws_secret_access_key=seaweed.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def happened(server: FaultServer) -> list[tuple[str, str]]:
    """Give verbs and faults of the exchanges that had one."""
    return [(said.verb, said.fault) for said in server.exchanges if said.fault]


# ---------------------------------------------------------------------------------------------------------------------
# Without faults
# ---------------------------------------------------------------------------------------------------------------------


def test_boto3s_signed_requests_pass(client: Any, server: FaultServer) -> None:
    """Put, head, list, copy and delete of a key that has to be encoded."""
    key = f"{uuid.uuid4().hex}/time=10 00/a+b&c=ä.parquet"
    client.put_object(Bucket="raw", Key=key, Body=BODY, Metadata={"nonce": "n"})
    assert client.head_object(Bucket="raw", Key=key)["Metadata"] == {"nonce": "n"}
    client.copy_object(Bucket="raw", Key=f"{key}2", CopySource={"Bucket": "raw", "Key": key})
    listed = client.list_objects_v2(Bucket="raw", Prefix=key)["Contents"]
    assert [found["Key"] for found in listed] == [key, f"{key}2"]
    deleted = client.delete_objects(Bucket="raw", Delete={"Objects": [{"Key": found["Key"]} for found in listed]})
    assert len(deleted["Deleted"]) == 2
    verbs = ["PutObject", "HeadObject", "CopyObject", "ListObjectsV2", "DeleteObjects"]
    assert [said.verb for said in server.exchanges] == verbs


def test_a_presigned_url_passes(client: Any, server: FaultServer) -> None:
    """The signature in the query; the log does not have it."""
    key = uuid.uuid4().hex
    client.put_object(Bucket="raw", Key=key, Body=BODY)
    signed = client.generate_presigned_url("get_object", Params={"Bucket": "raw", "Key": key})
    with urllib.request.urlopen(signed, timeout=10) as answer:  # noqa: S310  # our own URL
        assert answer.read() == BODY
    assert "Signature=…" in server.exchanges[-1].path


def test_pyarrows_requests_pass(server: FaultServer, seaweed: SeaweedServer) -> None:
    """The C++ SDK frames its bodies otherwise, and opens a multipart upload for each file."""
    store = pyarrow.fs.S3FileSystem(
        endpoint_override=server.endpoint,
        region=REGION,
        access_key=seaweed.access_key_id,
        secret_key=seaweed.secret_access_key,
    )
    path = f"raw/{uuid.uuid4().hex}/x"
    with store.open_output_stream(path) as stream:
        stream.write(BODY)
    with store.open_input_file(path) as file:
        assert file.read() == BODY
    assert "UploadPart" in {said.verb for said in server.exchanges}


def test_a_large_object_goes_up_in_parts(files: LakehouseFileIO, server: FaultServer, url: str) -> None:
    """Twelve megabytes, there and back."""
    body = uuid.uuid4().bytes * (12 * MIB // 16)
    files.put(url, body)
    assert files.get(url).body == body
    verbs = [said.verb for said in server.exchanges]
    assert (verbs.count("UploadPart"), verbs.count("CompleteMultipartUpload")) == (3, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Our FileIO under each fault
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(effect=Effect.SLOW_DOWN, times=3), id="slow-down"),
        pytest.param(Fault(effect=Effect.INTERNAL_ERROR), id="internal-error"),
        pytest.param(Fault(effect=Effect.INTERNAL_ERROR, landed=True), id="internal-error-landed"),
        pytest.param(Fault(effect=Effect.RESET), id="reset"),
        pytest.param(Fault(effect=Effect.RESET, landed=True), id="reset-landed"),
        pytest.param(Fault(effect=Effect.CONFLICT), id="conflict"),
        pytest.param(Fault(effect=Effect.CONFLICT, landed=True), id="conflict-landed"),
        pytest.param(Fault(effect=Effect.FLIP_REQUEST), id="flip-request"),
        pytest.param(Fault(effect=Effect.CUT), id="cut"),
        pytest.param(Fault(effect=Effect.SLOW, delay_s=0.1), id="slow"),
    ],
)
def test_a_conditional_put_survives(files: LakehouseFileIO, server: FaultServer, url: str, fault: Fault) -> None:
    """The object is there, whole, and the put says so, whether a try had landed or not."""
    put = server.add(fault)
    files.put(url, BODY, if_absent=True)
    assert files.get(url).body == BODY
    assert put.fired == (fault.times or 0)
    assert {name for _, name in happened(server)} == {fault.effect.value}


def test_a_put_whose_answer_never_comes_is_found(seaweed: SeaweedServer, server: FaultServer, url: str) -> None:
    """The client gives up waiting, tries again, is refused by its own object and knows it."""
    server.add(Fault(effect=Effect.SILENCE, verb="PutObject", landed=True))
    file_io(server, seaweed, **{"s3.request-timeout": "0.3"}).put(url, BODY, if_absent=True)
    assert [said.status for said in server.exchanges] == [None, 412, 200]


@pytest.mark.parametrize("effect", [Effect.FLIP_ANSWER, Effect.CUT, Effect.RESET, Effect.SLOW_DOWN])
def test_a_get_survives(files: LakehouseFileIO, server: FaultServer, url: str, effect: Effect) -> None:
    """A damaged, broken or refused read is made again."""
    files.put(url, BODY)
    server.add(Fault(effect=effect, verb="GetObject"))
    assert files.get(url).body == BODY
    assert happened(server) == [("GetObject", effect.value)]


@pytest.mark.parametrize("landed", [False, True], ids=["not-landed", "landed"])
@pytest.mark.parametrize("effect", [Effect.ERROR_IN_200, Effect.INTERNAL_ERROR, Effect.SLOW_DOWN])
def test_a_multipart_upload_survives(
    files: LakehouseFileIO, server: FaultServer, url: str, *, effect: Effect, landed: bool
) -> None:
    """Its end is said to have failed: with 200 and an error in the body, with 500, or with 503."""
    server.add(Fault(effect=effect, verb="CompleteMultipartUpload", landed=landed))
    server.add(Fault(effect=Effect.RESET, query="partNumber"))
    body = uuid.uuid4().bytes * (6 * MIB // 16)
    files.put(url, body, if_absent=True)
    assert files.get(url).body == body
    assert ("CompleteMultipartUpload", effect.value) in happened(server)


@pytest.mark.parametrize("landed", [False, True], ids=["not-landed", "landed"])
@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_a_delete_with_errors_by_key_is_repeated(
    files: LakehouseFileIO, server: FaultServer, url: str, *, code: str, landed: bool
) -> None:
    """All keys, or half of those that are gone, are said to have failed: they are asked for again, and all are gone."""
    urls = [f"{url}/{number}&" for number in range(4)]
    for each in urls:
        files.put(each, BODY)
    refusal = server.add(Fault(effect=Effect.KEYS_REFUSED, code=code, landed=landed))
    files.delete_objects(urls)
    assert list(files.list_objects(url)) == []
    assert refusal.fired == 1
    assert [said.verb for said in server.exchanges].count("DeleteObjects") == 2


def test_a_false_refusal_that_landed_is_a_lie_that_is_believed(
    files: LakehouseFileIO, server: FaultServer, url: str
) -> None:
    """A 412 to a first try says that another was there; only a reader who looks finds the object."""
    server.add(Fault(effect=Effect.REFUSED, header="If-None-Match", landed=True))
    with pytest.raises(PreconditionFailedError):
        files.put(url, BODY, if_absent=True)
    assert files.get(url).body == BODY


def test_a_late_put_is_refused(files: LakehouseFileIO, server: FaultServer, url: str) -> None:
    """A put is held, another takes its place, and the late one, released, finds that it was overtaken."""
    held = server.add(Fault(effect=Effect.HOLD, verb="PutObject"))
    first = LakehouseFileIO({**files.properties, "s3.request-timeout": "0.2", "s3.retry.num-retries": "0"})
    with pytest.raises(RequestFailedError):
        first.put(url, b"late", if_absent=True)
    held.wait_held()
    files.put(url, BODY, if_absent=True)
    held.release()
    late = ended(server, "hold")
    assert late.upstream_status == 412
    assert files.get(url).body == BODY


def ended(server: FaultServer, fault: str) -> Exchange:
    """Wait for the end of an exchange whose client has gone."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for said in server.exchanges:
            if said.fault == fault:
                return said
        time.sleep(0.01)
    raise TimeoutError(fault)


# ---------------------------------------------------------------------------------------------------------------------
# boto3, throttles and the catalog
# ---------------------------------------------------------------------------------------------------------------------


def test_boto3_reads_slow_down(client: Any, server: FaultServer) -> None:
    """Status and code are S3's own; the connection serves the next request."""
    server.add(Fault(effect=Effect.SLOW_DOWN))
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket="raw", Key="x", Body=BODY)
    assert caught.value.response["Error"]["Code"] == "SlowDown"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    client.put_object(Bucket="raw", Key="x", Body=BODY)


def ticks(per_s: float) -> Callable[[], float]:
    """Give a clock by which the requests that look at it come at this rate."""
    looks = itertools.count()
    return lambda: next(looks) / per_s


def test_our_puts_survive_a_throttled_bucket(seaweed: SeaweedServer, url: str) -> None:
    """Thirty, asked for at 20/s and taken at 10/s: the burst, then every other one with patience; none is lost."""
    with FaultServer(seaweed.endpoint, scaling=Scaling(write_rate=10, detect_s=None), clock=ticks(20)) as server:
        files = file_io(server, seaweed, **PATIENT)
        for number in range(30):
            files.put(f"{url}/{number}", BODY)
        assert [said.status for said in server.exchanges] == [200] * 19 + [503, 200] * 11
        assert files.counts().throttles == 11


def test_a_delete_of_many_keys_is_throttled_by_its_keys(seaweed: SeaweedServer, url: str) -> None:
    """Fifteen keys at 10/s: one request, after which nothing is taken for half a second."""
    with FaultServer(seaweed.endpoint, scaling=Scaling(write_rate=10, detect_s=None), clock=ticks(10)) as server:
        files = file_io(server, seaweed, **PATIENT)
        files.delete_objects([f"{url}/{number}" for number in range(15)])
        files.put(url, BODY)
        said = [(each.verb, each.status) for each in server.exchanges]
        assert said == [("DeleteObjects", 200), *[("PutObject", 503)] * 5, ("PutObject", 200)]


def test_a_catalogs_commit_lands_behind_a_false_conflict(seaweed: SeaweedServer) -> None:
    """The client is told 409; who looks finds the commit."""
    with FaultServer(seaweed.catalog_uri, dialect=Dialect.ICEBERG) as server:
        catalog = load_catalog("faulty", **(seaweed.catalog_properties() | {"uri": server.endpoint}))
        name = f"n{uuid.uuid4().hex[:8]}"
        catalog.create_namespace(name)
        table = catalog.create_table(f"{name}.t", Schema(NestedField(1, "a", LongType())))
        server.add(Fault(effect=Effect.CONFLICT, verb="updateTable", landed=True))
        with pytest.raises(CommitFailedException), table.transaction() as transaction:
            transaction.set_properties(colour="red")
        assert catalog.load_table(f"{name}.t").properties["colour"] == "red"
        assert ("updateTable", "conflict") in happened(server)
