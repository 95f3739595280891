"""What must not be seen is nowhere to be seen: not in Dagster's history, not in a log, not in Spark's settings."""

import logging

import dagster as dg
import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from tests.orchestration.runs import hours_materialized, materialize
from tests.projects import HOUR, NEXT, THIRD, Project, json_lines, row, strays


@pytest.fixture
def remote(project: Project, seaweed: SeaweedServer) -> Project:
    """Give the project on a real S3 server with a REST catalog, three hours landed, the last of them broken."""
    properties = {
        **seaweed.catalog_properties(),
        "oauth2-server-uri": f"{seaweed.catalog_uri}/v1/oauth/tokens",
    }
    lines = "".join(f"  {key}: {value}\n" for key, value in properties.items())
    project.write("lakehouse.yaml", f"catalog:\n{lines}engine: local[2]\n")
    source = project.keys["source"].replace("raw/", f"s3://raw/{project.folder.name}/")
    project.describe({"table": f"{project.folder.name}.events", "source": source, "key": "[id]", "sort": "[id]"})
    files = LakehouseFileIO(seaweed.s3_properties())
    for hour, body in ((HOUR, json_lines([row(HOUR, 1)])), (NEXT, json_lines([row(NEXT, 2)])), (THIRD, b"{")):
        files.put(f"s3://raw/{project.folder.name}/2013/01/01/{hour[11:13]}.jsonl", body)
    return project


def test_credentials_are_not_in_any_record(
    remote: Project,
    instance: dg.DagsterInstance,
    seaweed: SeaweedServer,
    spark: SparkSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the catalog's credential nor S3's key is in an event, a log, a file of the table or a conf."""
    with caplog.at_level(logging.DEBUG, "lakehouse_pipeline"):
        result = materialize(remote, instance, HOUR, THIRD)
    assert not result.success
    assert hours_materialized(instance) == [HOUR, NEXT]
    assert remote.ids() == [1, 2]
    table = remote.table
    assert strays(table) == set()
    places = {
        "events": "".join(map(str, instance.all_logs(result.run_id))),
        "run": str(instance.get_run_by_id(result.run_id)),
        "log": "".join(f"{record.getMessage()} {record.args}" for record in caplog.records),
        "conf": str(spark.sparkContext.getConf().getAll()),
        "session": str(spark.conf.getAll),
        "table": table.table.metadata.model_dump_json(),
        "ledger": str([table.files.get(item.url).body for item in table.files.list_objects(f"{table.ledger.folder}/")]),
        "lakehouse": repr(remote.lakehouse),
        "store": repr(remote.warehouse.files),
    }
    assert {name for name, text in places.items() if seaweed.secret_access_key in text} == set()
    assert len(places["events"]) > 1000
    assert "hour" in places["ledger"]


def test_missing_bucket_is_no_empty_hour(remote: Project) -> None:
    """A bucket that does not exist is said, whatever `missing` says of objects."""
    source = remote.keys["source"].replace("s3://raw/", "s3://no-such-bucket/").replace("{", "{missing: empty, ", 1)
    remote.describe({"source": source})
    with pytest.raises(ConfigurationError, match=r"s3://no-such-bucket/.*there is no such bucket"):
        remote.run()
