"""Everything that was written, in whatever form: files, databases, objects, and what is packed into them."""

import gzip
import io
import sqlite3
import traceback
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import fastavro
import pyarrow.parquet as pq

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

GZIP, SQLITE, PARQUET, AVRO, ZLIB = b"\x1f\x8b", b"SQLite format 3\x00", b"PAR1", b"Obj\x01", b"\x78"


def holding(secrets: Mapping[str, str], places: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Tell which secret is in which place, packed or not."""
    sought = {name: secret.encode() for name, secret in secrets.items()}
    return {
        (name, place)
        for place, content in places.items()
        for body in unpacked(content)
        for name, secret in sought.items()
        if secret in body
    }


def unpacked(body: bytes) -> Iterator[bytes]:
    """Give bytes as they are, and as what they hold reads."""
    yield body
    if body.startswith(GZIP):
        yield from unpacked(gzip.decompress(body))
    elif body.startswith(SQLITE):
        yield from _cells(body)
    elif body.startswith(PARQUET):
        yield repr(pq.read_table(io.BytesIO(body)).to_pylist()).encode()
        yield repr(pq.read_schema(io.BytesIO(body)).metadata).encode()
    elif body.startswith(AVRO):
        read = fastavro.reader(io.BytesIO(body))
        yield repr((read.metadata, list(read))).encode()
    elif body.startswith(ZLIB):  # Dagster's snapshots of jobs and of run configuration
        try:
            yield from unpacked(zlib.decompress(body))
        except zlib.error:
            return


def files_below(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder; the log of a database that is open is put into it first."""
    for file in filter(Path.is_file, folder.rglob("*.db")):
        with closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def objects_in(files: LakehouseFileIO, buckets: Iterable[str]) -> dict[str, bytes]:
    """Read all objects of some buckets."""
    urls = [item.url for bucket in buckets for item in files.list_objects(f"s3://{bucket}/")]
    return {url: files.get(url).body for url in urls}


def told_by(error: BaseException) -> str:
    """Give all that an error says to whoever prints it: text, repr, causes, notes and traceback."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    said = [
        part for each in chain for part in (str(each), repr(each), repr(each.args), *getattr(each, "__notes__", ()))
    ]
    return "\n".join([*said, *traceback.format_exception(error)])


def _cells(body: bytes) -> Iterator[bytes]:
    with closing(sqlite3.connect(":memory:")) as database:
        # A copy in memory has no log beside it, which the header may ask for (sqlite.org/fileformat: bytes 18 and 19).
        database.deserialize(body[:18] + b"\x01\x01" + body[20:])
        database.text_factory = bytes
        tables = [name.decode() for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for cell in row:
                    if isinstance(cell, bytes):
                        yield from unpacked(cell)
