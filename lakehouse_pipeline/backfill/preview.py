"""Some rows of an hour as its table would get them: read, judged and transformed, and written nowhere.

The whole hour is gone through once, so that its counts are those of a run. Rejected rows lie in a temporary folder of
this machine as long as that takes. Tasks that run elsewhere do not see that folder: what they read, left and rejected
is then not known, and they write nothing.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructField, StructType

from lakehouse_pipeline.backfill.arrange import arranged, new_columns
from lakehouse_pipeline.backfill.inputs import Aside, Counts
from lakehouse_pipeline.backfill.placement import bucket_count
from lakehouse_pipeline.backfill.plan import HourPlan, observe_inputs
from lakehouse_pipeline.backfill.views import SMALL_INPUT
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.engines.capabilities import capabilities
from lakehouse_pipeline.engines.failures import translated
from lakehouse_pipeline.engines.preflight import check_tasks
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.engines.spark_types import spark_schema
from lakehouse_pipeline.engines.tasks import ended_with, map_in_arrow
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.data_files import BUCKET
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo

SHOWN_ROWS = 10
SHOWN_REJECTS = 3

# Of the rows of a task; the last are counts by required column.
_COUNTS = {"_rows": pa.int64(), "_elsewhere": pa.int64(), "_missing": pa.list_(pa.int64())}
_MICROSECONDS = 1_000_000  # of a second


@dataclass(frozen=True)
class HourPreview:
    """What an hour would become.

    Attributes:
        hour: the hour.
        objects: that it reads.
        columns: of the table.
        rows: some of its rows, by column.
        rows_out: all of them.
        rows_read: good rows of the hour that the readers gave; None where the engine need not have read them.
        left: rows that were left to other hours; None as above.
        rejected: rows that would be kept as rejects; None where it is not known.
        elsewhere: rows of other hours behind the transform: a run would fail at the first.
        missing: by required column, rows behind the transform that have no value there: a run would fail, too.
        key: columns that tell rows apart: a run looks at that before its commit, a preview does not.
        rejects: some of the rejected rows: where they stand, and why.
        counted: what was read, left and rejected is known; it is not where tasks that run elsewhere have read.
    """

    hour: HourWindow
    objects: int
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, object], ...] = ()
    rows_out: int = 0
    rows_read: int | None = 0
    left: int | None = 0
    rejected: int | None = 0
    elsewhere: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()
    counted: bool = True


def preview_hour(
    spec: TableSpec, warehouse: Warehouse, hour: HourWindow, session: Callable[[], SparkSession]
) -> HourPreview:
    """Read and transform an hour, and give ten of its rows.

    Args:
        spec: the table's spec.
        warehouse: where its objects are, and its table if there is one.
        hour: the hour.
        session: gives Spark's session; not asked for where there is nothing to read.

    Raises:
        ConfigurationError: the spec, the transform and the table do not fit; or the engine's tasks cannot do the work.
        DataError: the objects are not what the spec says.
        TransientError: the store or the catalog did not answer.
    """
    inputs = observe_inputs(spec, warehouse.files, hour)
    table = warehouse.table(spec)
    columns = table.columns if table else new_columns(spec, warehouse.files, inputs.source)
    if not inputs.source:
        return HourPreview(hour, 0, columns)
    plan = HourPlan(hour, inputs, source="", recipe="", step="run", why="only looked at")
    unsorted = spec.model_copy(update={"sort": ()})  # any ten rows will do
    spark = session()
    _check_tasks(spark, spec, warehouse, table, plan)
    counted = _is_counted(spark, spec, plan)
    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder:
        aside = Aside(LakehouseFileIO({}) if counted else Nowhere({}), f"file://{folder}")
        found, counts = _run(spark, unsorted, plan, warehouse.files, columns=columns, aside=aside)
        rejecting = "reject" in (spec.source.bad_rows, spec.other_hours)
        return HourPreview(
            hour=hour,
            objects=len(inputs.source),
            columns=columns,
            rows=tuple(found.select([column.name for column in columns]).slice(0, SHOWN_ROWS).to_pylist()),
            rows_out=pc.sum(found["_rows"]).as_py() or 0,
            rows_read=counts.rows if counts else None,
            left=counts.left if counts else None,
            rejected=_rejected(aside, rejecting=rejecting) if counted else None,
            elsewhere=pc.sum(found["_elsewhere"]).as_py() or 0,
            missing=_missing(found, _required(columns)),
            key=spec.key,
            rejects=tuple(islice(_reasons(aside), SHOWN_REJECTS)) if rejecting else (),
            counted=counted,
        )


def _check_tasks(
    session: SparkSession, spec: TableSpec, warehouse: Warehouse, table: HourlyTable | None, plan: HourPlan
) -> None:
    """Ask the tasks what an hour's run asks them; without a table the sources have to do."""
    objects = [(table.files, table.metadata_url)] if table else []
    if spec.source.reader == "arrow":
        objects.append((warehouse.files, plan.inputs.source[0].url))
    check_tasks(session, table.location if table else spec.source.path, objects)


def _is_counted(session: SparkSession, spec: TableSpec, plan: HourPlan) -> bool:
    """Tell whether this machine learns what the readers met: its own tasks write it here, and so does the driver."""
    by_driver = spec.source.reader == "spark" or plan.inputs.bytes <= SMALL_INPUT  # or asked of Spark by the driver
    return capabilities(session).local_tasks or by_driver


def _rejected(aside: Aside, *, rejecting: bool) -> int:
    return aside.count_rejects() if rejecting else 0


class Nowhere(LakehouseFileIO):
    """Takes what tasks elsewhere put aside, and keeps none of it: they share no folder with this machine.

    A view without an aside would not do: it fails at a bad row that the hour's run keeps aside.
    """

    def put(
        self,
        url: str,
        body: bytes | BinaryIO,  # noqa: ARG002  # the FileIO's signature
        *,
        if_absent: bool = False,  # noqa: ARG002  # the same
        if_match: str | None = None,  # noqa: ARG002  # the same
    ) -> ObjectInfo:
        """Write nothing."""
        return ObjectInfo(url, size=0, etag="", modified=datetime.now(UTC))


def _run(
    session: SparkSession,
    spec: TableSpec,
    plan: HourPlan,
    files: LakehouseFileIO,
    *,
    columns: tuple[Column, ...],
    aside: Aside,
) -> tuple[pa.Table, Counts | None]:
    buckets = bucket_count(spec, plan.hour, plan.inputs.bytes, cores_of(session))
    with (
        translated(f"{spec.name} {plan.hour}"),
        ended_with(session, f"preview-{plan.hour}"),
        arranged(session, spec, plan, files, columns=columns, aside=aside, buckets=buckets) as ready,
    ):
        return _heads(ready.frame, spec.hour, _required(columns), plan.hour), ready.counts()


def _required(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns if column.required]


def _heads(frame: DataFrame, column: str, required: Sequence[str], hour: HourWindow) -> pa.Table:
    """Give the first rows of every task; the last of them says how many there were, and how many a run would refuse."""
    start, end = (int(moment.timestamp()) * _MICROSECONDS for moment in (hour.start, hour.end))

    def head(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        kept: list[pa.RecordBatch] = []
        rows = elsewhere = 0
        missing = [0] * len(required)
        for batch in batches:
            kept.append(batch.slice(0, max(SHOWN_ROWS - rows, 0)))
            rows += len(batch)
            instants = batch.column(column).cast(pa.int64())
            outside = pc.or_(pc.less(instants, start), pc.greater_equal(instants, end))
            elsewhere += pc.sum(outside).as_py() or 0
            missing = [count + batch.column(name).null_count for count, name in zip(missing, required, strict=True)]
        if rows:
            yield _with_counts(kept, rows, elsewhere, missing)

    rows = frame.drop(BUCKET)
    fields = [StructField(each.name, each.dataType) for each in rows.schema.fields]
    counts = spark_schema(pa.schema(list(_COUNTS.items()))).fields
    return map_in_arrow(rows, head, StructType([*fields, *counts])).toArrow()


def _with_counts(
    batches: Sequence[pa.RecordBatch], rows: int, elsewhere: int, missing: Sequence[int]
) -> pa.RecordBatch:
    shown = pa.concat_batches(batches)
    for (name, kind), count in zip(_COUNTS.items(), (rows, elsewhere, missing), strict=True):
        behind = pa.nulls(len(shown) - 1, kind)
        shown = shown.append_column(name, pa.concat_arrays([behind, pa.array([count], kind)]))
    return shown


def _missing(found: pa.Table, required: Sequence[str]) -> dict[str, int]:
    """Sum up, by required column, the rows of all tasks that have no value there."""
    told = [counts for counts in found["_missing"].to_pylist() if counts is not None]
    return {name: count for name, *each in zip(required, *told, strict=True) if (count := sum(each))}


def _reasons(aside: Aside) -> Iterator[str]:
    for item in islice(aside.files.list_objects(f"{aside.folder}/"), SHOWN_REJECTS):
        if item.url.endswith(".parquet"):
            with aside.files.open_read(item.url, etag=item.etag, size=item.size) as body:
                for row in pq.read_table(body).slice(0, SHOWN_REJECTS).to_pylist():
                    column = "" if row["column"] is None else f' "{row["column"]}"'
                    yield f"{row['file']}:{row['position']}{column}: {row['reason']}"
