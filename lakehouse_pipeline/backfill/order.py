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
from lakehouse_pipeline.iceberg.checksum import Checksum
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind
from lakehouse_pipeline.iceberg.schemas import schema_of
from lakehouse_pipeline.iceberg.sorted_check import Stretch, out_of_order, read_stretch

_PLACE = re.compile(r"(\d+)-\w+-(\d+)-\d+\.parquet")
_READ = pa.schema(
    [
        ("place", pa.int64()),
        ("rows", pa.int64()),
        ("edges", pa.binary()),
        ("wrong", pa.string()),
        ("content", pa.int64()),
    ]
)


def check_order(
    session: SparkSession, spec: TableSpec, written: Sequence[WrittenFile], table: HourlyTable, content: int
) -> Check:
    """Read an hour's files as they lie on storage, in tasks: as valsort does, their order, their rows and their sum.

    Files of a partition follow each other: they may touch where a key goes on, and never overlap.

    Args:
        session: where.
        spec: the table's spec.
        written: all files of the hour.
        table: that they are for.
        content: what the rows added up to before they were sorted.

    Raises:
        CheckFailedError: names a file that is not in order, that overlaps with another, or that lacks rows; or the
            files' rows are not those that were sorted.
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
    found = sum((stretch.content for stretch in stretches), Checksum())
    if found.total != content:
        raise CheckFailedError(
            ORDER,
            f"{spec.name}: the files' {found.rows} rows are not those that were sorted: "
            f"they add up to {found.total:016x}, and these to {content:016x}",
        )
    return Check(ORDER, {"rows": found.rows, "files": len(written)})


def _place(path: str) -> tuple[int, ...]:
    """Give bucket and number of a file, by which they follow each other."""
    found = _PLACE.fullmatch(path.rpartition("/")[2])
    assert found is not None, path  # noqa: S101  # it is our own name
    return int(found[1]), int(found[2])


def _read(session: SparkSession, written: Sequence[WrittenFile], table: HourlyTable) -> list[Stretch]:
    tasks = min(len(written), task_count(sum(file.size for file in written), cores_of(session)))
    if not tasks:
        return []
    files, order, checked = table.files, table.order, schema_of(table.columns).fields
    told = [(file.path, file.size, file.etag) for file in written]

    def read(task: int) -> Iterator[pa.RecordBatch]:
        for place in range(task, len(told), tasks):
            url, size, etag = told[place]
            found = read_stretch(files, url, order, size=size, etag=etag, checked=checked)
            edges = None if found.edges is None else found.edges.serialize().to_pybytes()
            yield pa.record_batch([[place], [found.rows], [edges], [found.wrong], [found.content.signed]], _READ)

    schema = pa.schema([table.arrow_schema.field(name) for name, _ in order])
    return [
        Stretch(
            told[row["place"]][0],
            row["rows"],
            _opened(row["edges"], schema),
            row["wrong"],
            Checksum(row["rows"], row["content"] % 2**64),
        )
        for row in run_tasks(session, tasks, read, _READ).toArrow().sort_by("place").to_pylist()
    ]


def _opened(edges: bytes | None, schema: pa.Schema) -> pa.RecordBatch | None:
    return None if edges is None else pa.ipc.read_record_batch(pa.py_buffer(edges), schema)
