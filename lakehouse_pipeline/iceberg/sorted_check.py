"""A check like valsort of files that should be sorted: what lies on storage is read again, whoever wrote it.

Each file is read alone, wherever that is done, and gives a stretch: its first and last row, how many there are, and
whether they are in order. Stretches side by side tell whether files overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse_pipeline.errors import SafetyError
from lakehouse_pipeline.iceberg.checksum import Checksum, checksum
from lakehouse_pipeline.iceberg.checksum import Columns as Checked
from lakehouse_pipeline.iceberg.row_order import Columns
from lakehouse_pipeline.iceberg.sorted_rows import OrderCheck, first_out_of_order, said
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Stretch:
    """What was read of a file.

    Attributes:
        url: the file.
        rows: in it.
        edges: the first and the last of them, by their sort columns; none of an empty file.
        wrong: a row of it that sorts before the one ahead of it, and that; empty where there is none.
        content: of the columns that were asked for.
    """

    url: str
    rows: int
    edges: pa.RecordBatch | None
    wrong: str = ""
    content: Checksum = field(default_factory=Checksum)


def read_stretch(
    files: LakehouseFileIO, url: str, order: Columns, *, size: int, etag: str | None = None, checked: Checked = ()
) -> Stretch:
    """Read a Parquet file.

    Args:
        files: the store.
        url: the file.
        order: the sort order.
        size: bytes on storage.
        etag: the version.
        checked: columns whose content is added up.

    Raises:
        TransientError: the store did not answer within its retries.
    """
    names = [name for name, _ in order]
    wanted = list(dict.fromkeys([*names, *(column.name for column in checked)]))
    follows, wrong, content, rows = OrderCheck(1, order), "", Checksum(), 0
    first: pa.RecordBatch | None = None
    with files.open_read(url, etag=etag, size=size) as body, pq.ParquetFile(body) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            try:
                follows.feed(batch)
            except SafetyError as error:
                wrong = str(error)
                break
            first = batch.select(names).slice(0, 1) if first is None else first
            rows += batch.num_rows
            content += checksum(batch, checked) if checked else Checksum()
    edges = pa.concat_batches([first, follows.last]) if first is not None and follows.last is not None else None
    return Stretch(url, rows, edges, wrong, content)


def out_of_order(stretches: Sequence[Stretch], order: Columns) -> str:
    """Say which file is not in order, or begins before the end of the one ahead of it; empty where all is well.

    Args:
        stretches: in the order that their rows should be in.
        order: the sort order.
    """
    for each in stretches:
        if each.wrong:
            return f"{each.url}: {each.wrong}"
    full = [each for each in stretches if each.edges is not None]
    if not full:
        return ""
    edges = pa.concat_batches([each.edges for each in full])
    place = first_out_of_order(edges, order)
    if place is None:
        return ""
    return (
        f"{full[(place + 1) // 2].url} begins with {said(edges, place + 1)}, before the end of {full[place // 2].url}, "
        f"{said(edges, place)}"
    )
