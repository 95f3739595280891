"""Data files whose row groups are those of others, byte for byte: nothing but footers is decoded, and written anew.

Sums of row groups that their writer recorded are held against the bytes, whoever moves these: see
`LakehouseFileIO.compose`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import pyarrow_to_schema
from pyiceberg.schema import Schema, index_by_id
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER_ID

from lakehouse_pipeline.errors import DataError, LakehouseError, SafetyError
from lakehouse_pipeline.iceberg.claims import Claims
from lakehouse_pipeline.iceberg.data_files import WrittenFile, entry_of, put_new
from lakehouse_pipeline.iceberg.footer import MAGIC, Footer, read_footer
from lakehouse_pipeline.iceberg.manifests import LiveFile
from lakehouse_pipeline.iceberg.row_groups import Merged, merged
from lakehouse_pipeline.iceberg.statistics import column_statistics
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.object_store.checksums import check as check_sum
from lakehouse_pipeline.object_store.checksums import crc64nvme
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo, ObjectRange
from lakehouse_pipeline.object_store.side_by_side import side_by_side

FILES_AT_ONCE = 16
WHOLE_BYTES = 64 * 1024**2  # all files of up to so much together are read at once, in one request each ...
WHOLE_ROW_GROUPS = 5 * 1024**2  # ... where row groups have less than what S3 copies as a part of an upload


class NotCopiedError(LakehouseError):
    """Row groups cannot be copied as they are, which only footers tell; nothing was written."""


@dataclass(frozen=True)
class _Source:
    """A file whose row groups are copied."""

    file: LiveFile
    info: ObjectInfo
    footer: Footer
    body: bytes | None


def packed(files: Sequence[LiveFile], least: int, most: int) -> list[list[LiveFile]]:
    """Cut files, in their order, into new ones of at least `least` bytes and at most `most`, as far as they fit."""
    packs, size = list[list[LiveFile]]([[]]), 0
    for file in files:
        if packs[-1] and (size >= least or size + file.bytes > most):
            packs.append([])
            size = 0
        packs[-1].append(file)
        size += file.bytes
    return packs


def copy_files(
    target: WriteTarget, packs: Sequence[Sequence[LiveFile]], bucket: int, check: Callable[[], None]
) -> list[WrittenFile]:
    """Put the row groups of data files of one partition into new files.

    Args:
        target: the attempt.
        packs: of each new file those that it is made of: without deletes, of the table's partition spec, in the order
            in which their rows are to come.
        bucket: stands in the new files' names.
        check: raises where the work is no longer wanted; asked before each file.

    Raises:
        NotCopiedError: the files differ from each other or from the table's schema.
        SafetyError: a file is gone, or has other rows than its manifest tells.
        ChecksumMismatchError: bytes are not those that were written.
    """
    files = [file for pack in packs for file in pack]
    total, row_groups = sum(file.bytes for file in files), sum(file.row_groups for file in files)
    whole = total <= WHOLE_BYTES and total < row_groups * WHOLE_ROW_GROUPS
    sources = side_by_side(lambda file: _opened(target.files, file, whole=whole), files, FILES_AT_ONCE)
    opened = {source.file.path: source for source in sources}
    new = [_NewFile.of([opened[file.path] for file in pack]) for pack in packs]
    for source in sources:
        if source.footer.rows != source.file.rows:
            raise SafetyError(
                f"{source.file.path} has {source.footer.rows} rows, and {source.file.rows} by its manifest; "
                "nothing was copied"
            )
    for each in new:
        _check_schema(each.metadata, target.schema)
    written, claims = [], target.new_claims()
    for number, each in enumerate(new):
        check()
        written.append(_copied(target, bucket, number, each, claims))
    return written


@dataclass(frozen=True)
class _NewFile:
    """A file that is to be made of others' row groups."""

    sources: Sequence[_Source]
    plan: Merged
    metadata: pq.FileMetaData

    @classmethod
    def of(cls, sources: Sequence[_Source]) -> "_NewFile":
        try:
            plan = merged([source.footer for source in sources])
        except DataError as error:
            raise NotCopiedError(str(error)) from None
        return cls(sources, plan, pq.read_metadata(pa.BufferReader(MAGIC + plan.tail)))


def _opened(files: LakehouseFileIO, file: LiveFile, *, whole: bool) -> _Source:
    try:
        if whole:
            content = files.get(file.path)
            body = content.body
            return _Source(file, content.info, read_footer(file.path, len(body), lambda count: body[-count:]), body)
        info = files.head(file.path)
        if info is None:
            raise _gone(file)
        with files.open_read(file.path, etag=info.etag, size=info.size) as stream:

            def last(count: int) -> bytes:
                stream.seek(info.size - count)
                return stream.read(count)

            return _Source(file, info, read_footer(file.path, info.size, last), None)
    except DataError as error:
        raise NotCopiedError(str(error)) from None
    except FileNotFoundError:
        raise _gone(file) from None


def _gone(file: LiveFile) -> SafetyError:
    return SafetyError(f"{file.path} is gone, and the table still has it")


def _check_schema(footer: pq.FileMetaData, schema: Schema) -> None:
    """Hold a file's columns against the table's: what Iceberg is told of them goes by the table's names and types."""
    try:
        have = pyarrow_to_schema(footer.schema.to_arrow_schema(), format_version=2)
    except ValueError as error:
        raise NotCopiedError(f"columns of the files have no ids: {error}") from None
    if _columns(have) != _columns(schema):
        raise NotCopiedError("the files' columns are of an earlier schema")


def _columns(schema: Schema) -> dict[int, tuple[str, str]]:
    fields = index_by_id(schema).items()
    return {
        key: (field.name, str(field.field_type) if field.field_type.is_primitive else type(field.field_type).__name__)
        for key, field in fields
    }


def _copied(target: WriteTarget, bucket: int, number: int, new: _NewFile, claims: Claims) -> WrittenFile:
    values, plan = new.sources[0].file.values, new.plan
    path = target.partitions.path(target.partitions.values(values))
    statistics = column_statistics(new.metadata, target.schema, target.properties, _nans(new.sources))
    statistics |= {"sort_order_id": UNSORTED_SORT_ORDER_ID}
    content = list(_content(new))
    url, etag = put_new(
        target,
        (bucket, number, path),
        lambda url: target.files.compose(url, content, if_absent=True),
        claims,
    )
    entry = entry_of(values, url, plan.size, plan.rows, statistics)
    return WrittenFile(url, plan.rows, plan.size, etag, target.kind.encode(entry))


def _content(new: _NewFile) -> Iterator[bytes | ObjectRange]:
    """Give what the file is composed of; bytes that are at hand are held against their sums here."""
    parts = new.plan.content([source.info for source in new.sources])
    bodies = {source.info.url: source.body for source in new.sources}
    for part in parts:
        body = bodies[part.url] if isinstance(part, ObjectRange) else None
        if body is None or isinstance(part, bytes):
            yield part
            continue
        found = body[part.span.start : part.span.stop]
        if part.crc64nvme is not None:
            check_sum(part.url, part.span, found=crc64nvme(found), recorded=part.crc64nvme)
        yield found


def _nans(sources: Sequence[_Source]) -> Mapping[int, int]:
    """Add up NaN values of the columns of which all files tell."""
    first, *others = (source.file.nans for source in sources)
    return {
        key: sum((each[key] for each in others), count) for key, count in first.items() if all(key in o for o in others)
    }
