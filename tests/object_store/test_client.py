"""The client goes where the properties say: through a proxy, to a server with certificates of one's own."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.client import s3_access
from lakehouse_pipeline.object_store.settings import read_settings
from tests.object_store.scripted_s3 import STORED, URL, Answer, ScriptedS3
from tests.object_store.scripted_s3 import body as content


def certificate(folder: Path) -> Path:
    """Write a certificate for loopback that nobody else trusts, and its key into the same file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3")])
    now, loopback = datetime.now(UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([loopback]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "server.pem"
    file.write_bytes(key.private_bytes(*form) + signed.public_bytes(serialization.Encoding.PEM))
    return file


def test_requests_go_through_the_proxy(s3: ScriptedS3) -> None:
    """A proxy is asked for the whole URL of a host that only it has to know."""
    s3.script = [STORED]
    proxy = s3.file_io().properties["s3.endpoint"]
    s3.file_io(**{"s3.endpoint": "http://s3.invalid", "s3.proxy-uri": proxy}).put(URL, b"body")
    assert [asked.path for asked in s3.asked] == ["http://s3.invalid/bucket/folder/x"]


def test_a_ca_bundle_is_trusted(tmp_path: Path) -> None:
    """With its certificate a server of one's own is talked to, without it nothing is sent, and the message says why."""
    file = certificate(tmp_path)
    server = ScriptedS3(tls=file)
    endpoint = {"s3.endpoint": server.file_io().properties["s3.endpoint"].replace("http:", "https:")}
    try:
        server.script = [content(b"body")]
        server.file_io(**endpoint, **{"s3.ca-bundle": str(file)}).get(URL)
        with pytest.raises(ConfigurationError, match="AWS_CA_BUNDLE"):
            server.file_io(**endpoint).get(URL)
        assert server.methods == ["GET"]
    finally:
        server.stop()


def test_a_missing_ca_bundle_is_said(s3: ScriptedS3) -> None:
    """The file is named with its property; a machine that runs tasks may lack what the driver has."""
    with pytest.raises(ConfigurationError, match=r"s3\.ca-bundle: there is no file /nowhere\.pem"):
        s3.file_io(**{"s3.ca-bundle": "/nowhere.pem"}).get(URL)
    assert s3.asked == []


def test_a_client_has_the_pool_that_was_asked_for() -> None:
    """As many connections are kept as the property says."""
    connection = read_settings({"s3.endpoint": "http://s3", "s3.region": "r", "s3.max-connections": "200"}).connection
    assert s3_access(connection).client().meta.config.max_pool_connections == 200


@pytest.mark.parametrize(
    "said",
    ["2013-01-01T10:00:00.000Z", "2013-01-01T12:00:00+02:00", "Tue, 01 Jan 2013 10:00:00 GMT", "1357034400"],
    ids=["S3", "offset", "words", "seconds"],
)
def test_times_are_read_however_a_store_writes_them(s3: ScriptedS3, said: str) -> None:
    """One that is not as S3 has it is botocore's to read."""
    found = f"<Contents><Key>x</Key><Size>1</Size><ETag>e</ETag><LastModified>{said}</LastModified></Contents>"
    s3.script = [Answer(200, f"<ListBucketResult>{found}</ListBucketResult>".encode())]
    (item,) = s3.file_io().list_objects("s3://bucket/")
    assert item.modified == datetime(2013, 1, 1, 10, tzinfo=UTC)
