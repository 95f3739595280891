"""Which rows of a data file delete files take: positions, and rows that equal others.

First by metadata alone (which delete files can apply to which data files), then by what the delete files hold.

Source: https://iceberg.apache.org/spec/#scan-planning and #delete-formats. Values are compared as the JVM's Iceberg
does: null equals null and NaN equals NaN, 0.0 does not equal -0.0.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PartitionSpec

from lakehouse_pipeline.iceberg.manifests import EQUALITY_DELETES, POSITION_DELETES, LiveFile

Numbers = npt.NDArray[np.int64]
Place = tuple[int, str]  # of files: their spec and partition


def unpartitioned(specs: Iterable[PartitionSpec]) -> frozenset[int]:
    """Name the specs without fields, whose equality deletes are of all partitions."""
    return frozenset(spec.spec_id for spec in specs if not spec.fields)


@dataclass(frozen=True)
class DeleteIndex:
    """The delete files that a snapshot reaches, by what they can apply to.

    Attributes:
        everywhere: equality deletes of specs without fields: they are of all partitions.
        of_place: by spec and partition.
        of_file: position deletes that are of one data file.
    """

    everywhere: Sequence[LiveFile]
    of_place: Mapping[Place, Sequence[LiveFile]]
    of_file: Mapping[str, Sequence[LiveFile]]

    @classmethod
    def of(cls, files: Iterable[LiveFile], unpartitioned: Collection[int]) -> "DeleteIndex":
        """Sort live files; data files among them do not count.

        Args:
            files: live at one moment.
            unpartitioned: ids of specs without fields.
        """
        everywhere = list[LiveFile]()
        of_place, of_file = defaultdict[Place, list[LiveFile]](list), defaultdict[str, list[LiveFile]](list)
        for file in files:
            if file.content == POSITION_DELETES and file.refers_to:
                of_file[file.refers_to].append(file)
            elif file.content == EQUALITY_DELETES and file.spec_id in unpartitioned:
                everywhere.append(file)
            elif file.content in {POSITION_DELETES, EQUALITY_DELETES}:
                of_place[file.spec_id, file.partition].append(file)
        return cls(everywhere, dict(of_place), dict(of_file))

    def applying_to(self, data: LiveFile) -> Iterator[LiveFile]:
        """Give the delete files that may take rows of a data file."""
        place = data.spec_id, data.partition
        for file in (*self.of_file.get(data.path, ()), *self.of_place.get(place, ()), *self.everywhere):
            older = data.sequence_number < file.sequence_number
            if older or (file.content == POSITION_DELETES and data.sequence_number == file.sequence_number):
                yield file


@dataclass
class DeletedKeys:
    """Rows that equality deletes name, to be looked up batch after batch.

    Attributes:
        keys: a column for each field that is compared.
        ages: sequence number of the delete file that each row is of.
        youngest: for each different row, the greatest of its ages.
        values: the different values of each column.
        rows: for each column, the different rows of it and of those before, as numbers; see `_numbered`.
    """

    keys: pa.Table
    ages: Numbers
    youngest: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    values: list[pa.Array] = field(default_factory=list)
    rows: list[Numbers] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Number the values of each column, and the rows."""
        columns = [_comparable(column.combine_chunks()) for column in self.keys.columns]
        self.values = [pc.unique(column) for column in columns]
        numbers = np.zeros(self.keys.num_rows, np.int64)
        for column, values in zip(columns, self.values, strict=True):
            numbers = _numbered(numbers, column, values)
            known, numbers = np.unique(numbers, return_inverse=True)
            self.rows.append(known)
        self.youngest = np.full(len(self.rows[-1]), -1, np.int64)
        np.maximum.at(self.youngest, numbers, self.ages)

    def takes(self, columns: Sequence[pa.Array], sequence_number: int) -> npt.NDArray[np.bool_]:
        """Tell of each row of a data file of this age whether it equals one of the keys of younger files."""
        if not self.keys.num_rows:
            return np.zeros(len(columns[0]), np.bool_)
        taken, numbers = np.ones(len(columns[0]), np.bool_), np.zeros(len(columns[0]), np.int64)
        for column, values, known in zip(columns, self.values, self.rows, strict=True):
            wanted = _numbered(numbers, _comparable(column), values)
            numbers = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            taken &= known[numbers] == wanted
        return taken & (self.youngest[numbers] > sequence_number)


def _numbered(before: Numbers, column: pa.Array, values: pa.Array) -> Numbers:
    """Number rows by their number so far and one more value; below zero where it is none of the values.

    Numbers stay small, whatever the count of columns: those so far are places in a list of different rows.
    """
    places = pc.index_in(column, value_set=values, skip_nulls=False)
    numbers: Numbers = before * len(values) + places.fill_null(0).to_numpy(zero_copy_only=False)
    numbers[places.is_null().to_numpy(zero_copy_only=False)] = -1
    return numbers


def _comparable(values: pa.Array) -> pa.Array:
    """Give values of which equal ones are those that Iceberg compares as equal."""
    if isinstance(values, pa.ExtensionArray):
        return values.storage
    if not pa.types.is_floating(values.type):
        return values
    numbers = values.cast(pa.float64())
    bits = numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
    canonical = np.where(np.isnan(bits), np.nan, bits).view(np.int64)
    return pa.array(canonical, mask=values.is_null().to_numpy(zero_copy_only=False))


def kept(positions: Numbers | None, first: int, rows: int) -> pa.Array | None:
    """Tell which rows of a batch position deletes leave; None where they leave all.

    Args:
        positions: that are deleted of the file, in order.
        first: the batch's first row, counted from the file's.
        rows: of the batch.
    """
    if positions is None:
        return None
    low, high = np.searchsorted(positions, [first, first + rows])
    if low == high:
        return None
    mask = np.ones(rows, np.bool_)
    mask[positions[low:high] - first] = False
    return pa.array(mask)


def positions_by_file(
    tables: Iterable[tuple[int, pa.Table]], sequence_numbers: Mapping[str, int]
) -> dict[str, Numbers]:
    """Gather the positions that files of position deletes name.

    Args:
        tables: sequence number and content of each file: columns `file_path` and `pos`.
        sequence_numbers: of the data files of interest; younger ones than a delete file are not its concern.

    Returns:
        By data file, the positions in order.
    """
    found = defaultdict[str, list[Numbers]](list)
    for sequence_number, table in tables:
        if not table.num_rows:
            continue
        paths = table.column("file_path").combine_chunks().cast(pa.string()).dictionary_encode()
        places, positions = paths.indices.to_numpy(), table.column("pos").to_numpy()
        order = np.argsort(places, kind="stable")
        parts = np.split(positions[order], np.cumsum(np.bincount(places, minlength=len(paths.dictionary)))[:-1])
        for path, part in zip(paths.dictionary.to_pylist(), parts, strict=True):
            if path in sequence_numbers and sequence_numbers[path] <= sequence_number:
                found[path].append(part)
    return {path: np.unique(np.concatenate(parts)) for path, parts in found.items()}
