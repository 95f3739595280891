"""Whether a table's key tells the rows of an hour apart: read back from the files, not from the engine's word."""

from collections.abc import Sequence

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name that every Spark user knows it by

from lakehouse_pipeline.backfill.checks import KEYS, Check, CheckFailedError
from lakehouse_pipeline.backfill.inputs import View
from lakehouse_pipeline.backfill.views import read_view
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.sources.listing import SourceObject

SHOWN = 3  # duplicate keys that an error names


def check_keys(session: SparkSession, spec: TableSpec, written: Sequence[WrittenFile], table: HourlyTable) -> Check:
    """Look for keys that occur twice in the files as they lie on storage.

    Raises:
        CheckFailedError: names some of them.
    """
    columns = {field.name: field for field in table.arrow_schema}
    view = View(
        "parquet",
        tuple(SourceObject(file.path, file.size, file.etag) for file in written),
        pa.schema([pa.field(name, columns[name].type) for name in spec.key]),
    )
    frame, _ = read_view(session, table.files, view, cores_of(session))
    twice = (
        frame.groupBy(*spec.key)
        .agg(F.count(F.lit(1)).alias("_rows"))
        .filter("_rows > 1")
        .limit(SHOWN)
        .toArrow()
        .to_pylist()
    )
    if twice:
        shown = "; ".join(
            f"{', '.join(f'{name} = {row[name]}' for name in spec.key)} ({row['_rows']} rows)" for row in twice
        )
        raise CheckFailedError(
            KEYS,
            f"{spec.name}: the key is not unique: {shown}; correct `key` in {spec.file}, or drop such rows in the "
            "transform",
        )
    return Check(KEYS, {"rows": sum(file.rows for file in written)})
