"""The catalogs that a lakehouse can have, each a real server but Glue, which is moto's; data on SeaweedFS's S3."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.core.exceptions import JsonRESTError
from moto.glue.responses import GlueResponse
from moto.server import ThreadedMotoServer

from lakehouse_pipeline.demo.seaweed import HOST, REGION, SeaweedServer


@pytest.fixture(scope="session")
def glue() -> Iterator[str]:
    """Run moto's Glue; gives its address. It ignores the version that an update is for, which AWS does not."""
    server = ThreadedMotoServer(HOST, 0, verbose=False)
    update, one_by_one = GlueResponse.update_table, threading.Lock()

    def update_of_version(asked: GlueResponse) -> object:
        with one_by_one:
            told, table = asked.parameters, asked.parameters["TableInput"]["Name"]
            present = asked.glue_backend.get_table(told["DatabaseName"], table).as_dict()["VersionId"]
            if told.get("VersionId", present) != present:
                raise JsonRESTError("ConcurrentModificationException", "the table has another version")
            return update(asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GlueResponse, "update_table", update_of_version)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture(params=["sqlite", "postgres", "rest", "glue"])
def properties(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Give what stands under `catalog` in lakehouse.yaml."""
    if request.param == "sqlite":
        return {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/warehouse"}
    seaweed: SeaweedServer = request.getfixturevalue("seaweed")
    if request.param == "rest":
        return seaweed.catalog_properties()
    stored = {"warehouse": f"s3://plain/{uuid.uuid4().hex}", **seaweed.s3_properties()}
    if request.param == "postgres":
        return {"type": "sql", "uri": request.getfixturevalue("postgres").uri, **stored}
    keys = {"glue.access-key-id": "moto", "glue.secret-access-key": "moto", "glue.region": REGION}
    return {"type": "glue", "glue.endpoint": request.getfixturevalue("glue"), **keys, **stored}
