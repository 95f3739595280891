"""Whether a sorted hour is sorted: read back from its files, not from the writer's word."""

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyspark.sql import SparkSession

from lakehouse_pipeline.backfill.checks import ORDER, Check, CheckFailedError
from lakehouse_pipeline.backfill.views import task_count
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.engines.sessions import cores_of
from lakehouse_pipeline.engines.tasks import run_tasks
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind
from lakehouse_pipeline.iceberg.sorted_check import Stretch, out_of_order, read_stretch

_PLACE = re.compile(r"(\d+)-\w+-(\d+)-\d+\.parquet")
_READ = pa.schema([("place", pa.int64()), ("rows", pa.int64()), ("edges", pa.binary()), ("wrong", pa.string())])


def check_order(session: SparkSession, spec: TableSpec, written: Sequence[WrittenFile], table: HourlyTable) -> Check:
    """Read the sort columns of an hour's files as they lie on storage, in tasks.

    Files of a partition follow each other: they may touch where a key goes on, and never overlap.

    Raises:
        CheckFailedError: names a file that is not in order, that overlaps with another, or that lacks rows.
    """
    stretches = _read(session, written, table)
    for file, stretch in zip(written, stretches, strict=True):
        if not stretch.wrong and stretch.rows != file.rows:
            raise CheckFailedError(ORDER, f"{spec.name}: {file.path} has {stretch.rows} rows, and not {file.rows}")
    partitions: dict[str, list[tuple[tuple[int, ...], Stretch]]] = {}
    kind = ManifestKind(table.table.spec(), table.table.schema())
    for file, stretch in zip(written, stretches, strict=True):
        # As text: NaN is not equal to itself.
        partition = repr(kind.decode_summed(file.entry)["data_file"]["partition"])
        partitions.setdefault(partition, []).append((_place(file.path), stretch))
    for files in partitions.values():
        files.sort(key=lambda each: each[0])
        if wrong := out_of_order([stretch for _, stretch in files], table.order):
            raise CheckFailedError(ORDER, f"{spec.name}: {wrong}")
    return Check(ORDER, {"rows": sum(stretch.rows for stretch in stretches), "files": len(written)})


def _place(path: str) -> tuple[int, ...]:
    """Give bucket and number of a file, by which they follow each other."""
    found = _PLACE.fullmatch(path.rpartition("/")[2])
    assert found is not None, path  # noqa: S101  # it is our own name
    return int(found[1]), int(found[2])


def _read(session: SparkSession, written: Sequence[WrittenFile], table: HourlyTable) -> list[Stretch]:
    tasks = min(len(written), task_count(sum(file.size for file in written), cores_of(session)))
    if not tasks:
        return []
    files, order = table.files, table.order
    told = [(file.path, file.size, file.etag) for file in written]

    def read(task: int) -> Iterator[pa.RecordBatch]:
        for place in range(task, len(told), tasks):
            url, size, etag = told[place]
            found = read_stretch(files, url, order, size=size, etag=etag)
            edges = None if found.edges is None else found.edges.serialize().to_pybytes()
            yield pa.record_batch([[place], [found.rows], [edges], [found.wrong]], _READ)

    schema = pa.schema([table.arrow_schema.field(name) for name, _ in order])
    return [
        Stretch(told[row["place"]][0], row["rows"], _opened(row["edges"], schema), row["wrong"])
        for row in run_tasks(session, tasks, read, _READ).toArrow().sort_by("place").to_pylist()
    ]


def _opened(edges: bytes | None, schema: pa.Schema) -> pa.RecordBatch | None:
    return None if edges is None else pa.ipc.read_record_batch(pa.py_buffer(edges), schema)
