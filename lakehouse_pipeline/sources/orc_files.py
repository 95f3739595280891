"""ORC objects before any row is judged: opening them, reading stripes as they are.

pyarrow tells neither the rows of a stripe nor its statistics. The first are taken from the file's tail, which it hands
out as it is; in place of the second the one column is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import orc

from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.sources.stored_files import in_our_words
from lakehouse_pipeline.sources.stores import Reads

_NAME = "ORC"
# Numbers of fields in ORC's orc_proto.proto: FileTail.footer, Footer.stripes, and StripeInformation's own.
_FOOTER, _STRIPES = 2, 3
_LENGTHS, _ROWS = (2, 3, 4), 5
_VARINT, _BYTES = 0, 2  # protobuf's wire types, the only two here
_MORE = 0x80


@contextmanager
def opened(io: Reads, url: str, etag: str, size: int) -> Iterator["OrcObject"]:
    """Open an ORC object and read its footer.

    Raises:
        DataError: it is no ORC, truncated or damaged.
    """
    with _in_our_words(url):
        raw = io.open_read(url, etag=etag, size=size)
    with raw:
        with _in_our_words(url):
            file = orc.ORCFile(pa.PythonFile(raw, "r"))
            found = OrcObject(file, url)
        yield found


class OrcObject:
    """An open file; a part is a stripe. See `stored_files.StoredFile`."""

    def __init__(self, file: orc.ORCFile, url: str) -> None:
        """Look at an open file's footer."""
        self._file, self._url = file, url
        self.schema: pa.Schema = file.schema
        stripes = _stripes(file.reader.serialized_file_tail())
        self.rows = tuple(rows for rows, _ in stripes)
        self.sizes = tuple(size for _, size in stripes)

    def batches(self, part: int, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read columns of a stripe as they are stored: one batch, as pyarrow reads no less than a stripe.

        Raises:
            DataError: the file is truncated or damaged.
        """
        with _in_our_words(self._url):
            yield self._file.read_stripe(part, columns=None if self._is_ambiguous(names) else list(names))

    def _is_ambiguous(self, names: Sequence[str]) -> bool:
        """Say whether a name could be a path, too: of `a.b` and a struct `a` with `b`, pyarrow reads the struct's."""
        return any(name.startswith(f"{other}.") for name in names for other in self.schema.names)

    def bounds(self, part: int, name: str) -> tuple[int, int] | None:
        """Give a stripe's least and greatest instant in microseconds, if it is a timestamp without nulls."""
        if not pa.types.is_timestamp(self.schema.field(name).type):
            return None
        (batch,) = self.batches(part, [name])
        column = batch.column(name)
        if not len(column) or column.null_count:
            return None
        low, high = pc.min_max(column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())).values()
        return low.as_py(), high.as_py()


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    with in_our_words(url, _NAME):
        try:
            yield
        except pa.ArrowInvalid as error:
            if "out of range for nanosecond" not in str(error):
                raise
            said = f"{url} has a timestamp that pyarrow's ORC reader cannot give ({error})"
            raise DataError(f"{said}: land it as Parquet, or within the years 1678 to 2261") from error


def _stripes(tail: bytes) -> list[tuple[int, int]]:
    """Give the rows and the bytes of each stripe from the file's tail."""
    footer = next(value for number, value in _fields(tail) if number == _FOOTER and isinstance(value, bytes))
    found = [
        dict(_fields(value)) for number, value in _fields(footer) if number == _STRIPES and isinstance(value, bytes)
    ]
    return [(_number(stripe, _ROWS), sum(_number(stripe, n) for n in _LENGTHS)) for stripe in found]


def _number(fields: dict[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)
    return value if isinstance(value, int) else 0


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Go through the fields of a protobuf message: number, and value as it stands."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 not in (_VARINT, _BYTES):
            raise pa.ArrowInvalid(f"the tail has a field of protobuf's type {key & 7}")
        value, at = _varint(message, at)
        if key & 7 == _VARINT:
            yield key >> 3, value
        else:
            yield key >> 3, message[at : at + value]
            at += value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & ~_MORE) << shift
        at, shift = at + 1, shift + 7
        if not byte & _MORE:
            return value, at
