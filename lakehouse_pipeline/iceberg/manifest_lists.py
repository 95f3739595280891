"""Manifest lists: the newest ones are read once, and the lines that stay are written as they were.

A list has a line for each manifest of its snapshot, and every commit writes all of them: those of earlier manifests are
not encoded anew, nor decoded again where a list that was read before has them. No list ever has other lines than when
it was written. Nothing here talks to a catalog.

Source: https://iceberg.apache.org/spec/#manifest-lists
"""

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, MutableMapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal
from weakref import WeakValueDictionary

import fastavro
from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.avro.decoder import new_decoder
from pyiceberg.avro.encoder import BinaryEncoder
from pyiceberg.avro.reader import Reader
from pyiceberg.avro.resolver import resolve_reader
from pyiceberg.avro.writer import Writer
from pyiceberg.io import FileIO, OutputFile
from pyiceberg.manifest import (
    DEFAULT_READ_VERSION,
    MANIFEST_LIST_FILE_SCHEMAS,
    ManifestContent,
    ManifestFile,
    PartitionFieldSummary,
    write_manifest_list,
)
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

FORMAT_VERSION: Literal[2] = 2
LINES_KEPT = 20_000  # in memory, of the lists that were read last: a kilobyte each
SCHEMAS_KEPT = 16
MORE = 0x80  # bit of a byte of Avro's integers: another follows


class ListedManifest(ManifestFile):
    """A manifest as a list has it; not to be changed.

    Attributes:
        line: how a list of our own has it; empty where the list that it is from is of another schema.
        told: what was found out from it alone, by whoever did, for whoever asks again.
    """

    line: bytes = b""
    told: dict[Any, Any]


class _Newest:
    """The lists that were read last, by their URLs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists = OrderedDict[str, tuple[ListedManifest, ...]]()
        self._kept = 0  # lines of them
        self._by_path = WeakValueDictionary[bytes, ListedManifest]()  # as long as a list has them

    def read(self, files: FileIO, url: str) -> tuple[ListedManifest, ...]:
        with self._lock:
            if url in self._lists:
                self._lists.move_to_end(url)
                return self._lists[url]
        found = tuple(_lines(body_of(files, url), self._by_path))
        with self._lock:
            self._kept += len(found) - len(self._lists.pop(url, ()))
            self._lists[url] = found
            while len(self._lists) > 1 and self._kept > LINES_KEPT:
                _, lines = self._lists.popitem(last=False)
                self._kept -= len(lines)
        return found


_newest = _Newest()


def read_list(files: FileIO, url: str) -> Sequence[ManifestFile]:
    """Read a manifest list, or remember it."""
    return _newest.read(files, url)


def write_list(
    output: OutputFile,
    manifests: Iterable[ManifestFile],
    *,
    snapshot_id: int,
    parent: int | None,
    sequence_number: int,
    codec: AvroCompressionCodec,
) -> None:
    """Write the manifest list of a snapshot.

    Args:
        output: where.
        manifests: of the snapshot; those of its own commit have no sequence number yet.
        snapshot_id: of the snapshot.
        parent: the snapshot's; None where it is the first.
        sequence_number: of the commit.
        codec: of the list.
    """
    with write_manifest_list(FORMAT_VERSION, output, snapshot_id, parent, sequence_number, codec) as writer:
        inner = writer._writer  # noqa: SLF001  # the header and the block are PyIceberg's own
        inner.writer = _KeptLines(inner.writer)  # type: ignore[assignment]
        inner.write_block([each if _line(each) else writer.prepare_manifest(each) for each in manifests])


def body_of(files: FileIO, path: str) -> bytes:
    """Read a whole file: one request, where opening it would ask for its size first."""
    if isinstance(files, LakehouseFileIO):
        return files.get(path).body
    with files.new_input(path).open() as stream:
        return stream.read()


class _KeptLines:
    """Writes lines that were read as they were, and others as PyIceberg does."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, encoder: BinaryEncoder, manifest: ManifestFile) -> None:
        if line := _line(manifest):
            encoder.write(line)
        else:
            self._writer.write(encoder, manifest)


def _line(manifest: ManifestFile) -> bytes:
    return manifest.line if isinstance(manifest, ListedManifest) else b""


def _lines(body: bytes, known: MutableMapping[bytes, ListedManifest]) -> Iterable[ListedManifest]:
    """Go through the lines of a list; those that are `known`, by path and byte for byte, are not decoded.

    Those that are decoded are known from then on.
    """
    blocks = fastavro.block_reader(io.BytesIO(body))
    schema = blocks.metadata["avro.schema"]
    reader, ours = _reader(schema), json.loads(schema) == _our_schema()
    for block in blocks:
        encoded: bytes = block.bytes_.read()  # type: ignore[attr-defined]  # fastavro's types leave it out
        decoder = new_decoder(encoded)
        for _ in range(block.num_records):
            began = decoder.tell()
            path = _first_string(encoded, began) if ours else b""
            manifest = known.get(path)
            if manifest and encoded.startswith(manifest.line, began):
                decoder.skip(len(manifest.line))
            else:
                manifest = reader.read(decoder)
                manifest.told = {}
                if ours:
                    manifest.line = encoded[began : decoder.tell()]
                    known[path] = manifest
            yield manifest


def _first_string(encoded: bytes, at: int) -> bytes:
    """Read a string where a line begins, which is its manifest's path: Avro's zigzag length, and so many bytes."""
    length = shift = 0
    while encoded[at] & MORE:
        length |= (encoded[at] & ~MORE) << shift
        at, shift = at + 1, shift + 7
    length |= encoded[at] << shift
    return encoded[at + 1 : at + 1 + (length >> 1)]


@lru_cache(maxsize=SCHEMAS_KEPT)
def _reader(schema: str) -> Reader:
    """Give what decodes the lines of a list, whoever wrote it."""
    return resolve_reader(
        AvroSchemaConversion().avro_to_iceberg(json.loads(schema)),
        MANIFEST_LIST_FILE_SCHEMAS[DEFAULT_READ_VERSION],
        {-1: ListedManifest, 508: PartitionFieldSummary},
        {517: ManifestContent},
    )


@cache
def _our_schema() -> Any:
    """Give the schema of the lists that PyIceberg writes here."""
    schema = MANIFEST_LIST_FILE_SCHEMAS[FORMAT_VERSION]
    return json.loads(json.dumps(AvroSchemaConversion().iceberg_to_avro(schema, schema_name="manifest_file")))
