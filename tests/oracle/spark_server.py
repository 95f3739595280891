"""Runs in the oracle's environment: one Spark session that answers SQL, a line of JSON for each.

Reads `{"conf": …}` first; then `{"sql": …}`, `{"view": …, "load": …}`, `{"delete_from": …}` with what to delete, or
`{"orphans_of": …}`.
Answers `{"rows": […]}` or `{"error": …}`.
"""

import json
import math
import os
import sys
from typing import IO, Any

from pyspark.sql import SparkSession

TIMES = {"date": "LocalDate", "timestamp": "LocalDateTime", "timestamptz": "OffsetDateTime"}


def main() -> None:
    """Answer until the input ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what Spark and the JVM print goes to the log
        builder = SparkSession.Builder()
        for key, value in json.loads(sys.stdin.readline())["conf"].items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        answer(answers, {"rows": [{"version": session.version}]})
        for line in sys.stdin:
            try:
                answer(answers, {"rows": run(session, json.loads(line))})
            except Exception as error:  # noqa: BLE001  # the test is told
                answer(answers, {"error": f"{type(error).__name__}: {error}"})


def run(session: SparkSession, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Do what a request says and give its rows."""
    if "delete_from" in request:
        return [{"path": delete(session, request)}]
    if "orphans_of" in request:
        return [{"paths": orphans(session, request)}]
    if "load" in request:
        session.read.format("iceberg").load(request["load"]).createOrReplaceTempView(request["view"])
        return []
    return [row.asDict(recursive=True) for row in session.sql(request["sql"]).collect()]


def delete(session: SparkSession, request: dict[str, Any]) -> str:
    """Write a delete file by Iceberg's Java API, as Flink does, commit it and name it."""
    gateway: Any = session.sparkContext._gateway
    iceberg = gateway.jvm.org.apache.iceberg
    table = iceberg.spark.Spark3Util.loadIcebergTable(session._jsparkSession, request["delete_from"])
    spec = spec_of(table, request["spec"], request["partition"])
    partition = struct_of(iceberg, spec.partitionType(), request["partition"]) if spec.isPartitioned() else None
    file = iceberg.io.OutputFileFactory.builderFor(table, 0, 0).build().newOutputFile(spec, partition)
    target = (file, iceberg.FileFormat.PARQUET, partition)
    if "columns" in request:
        deleted = equal(gateway, table, spec, request, target)
    else:
        deleted = at_positions(gateway, table, spec, request, target)
    table.newRowDelta().addDeletes(deleted).commit()
    return str(deleted.location())


def orphans(session: SparkSession, request: dict[str, Any]) -> str:
    """Name the files that `remove_orphan_files` would remove, a line for each, and remove none.

    By the action beneath the procedure, which takes any age, where the procedure has none below 24 hours, and a table
    that is known by its metadata file alone.
    """
    gateway: Any = session.sparkContext._gateway
    iceberg = gateway.jvm.org.apache.iceberg
    if "io" in request:
        table = static_table(gateway, request["orphans_of"], request["io"])
    else:
        table = iceberg.spark.Spark3Util.loadIcebergTable(session._jsparkSession, request["orphans_of"])
    collects = gateway.jvm.java.util.stream.Stream.builder()  # a Consumer that needs no class of our own
    action = iceberg.spark.actions.SparkActions.get(session._jsparkSession).deleteOrphanFiles(table)
    found = action.usePrefixListing(True).olderThan(request["older_than"]).deleteWith(collects).execute()
    # In one answer: each element of a Java list that is gone through from here is a call of its own.
    return str(gateway.jvm.java.lang.String.join("\n", found.orphanFileLocations()))


def static_table(gateway: Any, metadata_location: str, properties: dict[str, str]) -> Any:
    """Load a table from its metadata file, in no catalog."""
    iceberg, known = gateway.jvm.org.apache.iceberg, gateway.jvm.java.util.HashMap()
    for key, value in properties.items():
        known.put(key, value)
    io = iceberg.CatalogUtil.loadFileIO(properties["io-impl"], known, None)
    return iceberg.BaseTable(iceberg.StaticTableOperations(metadata_location, io), metadata_location)


def equal(gateway: Any, table: Any, spec: Any, request: dict[str, Any], target: tuple[Any, ...]) -> Any:
    """Write equality deletes, and give the `DeleteFile`."""
    columns: list[str] = request["columns"]
    keys = table.schema().select(columns)
    ids = gateway.new_array(gateway.jvm.int, len(columns))
    for place, name in enumerate(columns):
        ids[place] = keys.findField(name).fieldId()
    generic = gateway.jvm.org.apache.iceberg.data.GenericAppenderFactory
    writer = generic(table, table.schema(), spec, {}, ids, keys, None).newEqDeleteWriter(*target)
    order = [columns.index(field.name()) for field in keys.columns()]  # the schema's, whatever the caller's
    for row in request["rows"]:
        writer.write(record_of(gateway.jvm, keys.asStruct(), [row[place] for place in order]))
    writer.close()
    return writer.toDeleteFile()


def at_positions(gateway: Any, table: Any, spec: Any, request: dict[str, Any], target: tuple[Any, ...]) -> Any:
    """Write position deletes in the order that the format asks for, and give the `DeleteFile`."""
    iceberg = gateway.jvm.org.apache.iceberg
    generic = iceberg.data.GenericAppenderFactory
    writer = generic(table, table.schema(), spec, {}, None, None, None).newPosDeleteWriter(*target)
    for path, position in sorted(request["positions"]):
        writer.write(iceberg.deletes.PositionDelete.create().set(path, position))
    writer.close()
    return writer.toDeleteFile()


def spec_of(table: Any, spec_id: int | None, partition: list[Any] | None) -> Any:
    """Find the spec that a delete file is written with: the one named, or the current one, or the one without fields.

    Raises:
        ValueError: the table has none without fields, and no partition is given.
    """
    if spec_id is not None:
        return table.specs()[spec_id]
    if partition is not None:
        return table.spec()
    for spec in table.specs().values():
        if spec.isUnpartitioned():
            return spec
    raise ValueError("no spec of the table is unpartitioned: say which partition to delete from")


def struct_of(iceberg: Any, struct: Any, values: list[Any]) -> Any:
    """Make a struct as manifests hold it, from values as the spec's JSON of single values writes them.

    It is made in one call: Python gets a `Long` or a `Float` of Java's as its own number, and would give another back.
    """
    said = {str(field.fieldId()): value for field, value in zip(struct.fields(), values, strict=True)}
    return iceberg.SingleValueParser.fromJson(struct, json.dumps(said))


def record_of(jvm: Any, struct: Any, values: list[Any]) -> Any:
    """Make a row as generic writers take it: times as Java's classes; NaN, which JSON lacks, in doubles alone."""
    types = [str(field.type()) for field in struct.fields()]
    nan = [isinstance(value, float) and math.isnan(value) for value in values]
    said = [None if lacks else value for value, lacks in zip(values, nan, strict=True)]
    record = struct_of(jvm.org.apache.iceberg, struct, said)
    for place, value in enumerate(values):
        if nan[place]:
            record.set(place, value)
        elif value is not None and types[place] in TIMES:
            record.set(place, getattr(jvm.java.time, TIMES[types[place]]).parse(value))
    return record


def answer(answers: IO[str], said: dict[str, Any]) -> None:
    """Say it; what JSON has no word for as text."""
    answers.write(json.dumps(said, default=lambda value: value.hex() if isinstance(value, bytearray) else str(value)))
    answers.write("\n")
    answers.flush()


if __name__ == "__main__":
    main()
