"""Sealing: the manifests of an attempt, written before its commit, so that the commit itself is a few small objects.

From the seal on, a failure costs a commit and never the ETL.
"""

from collections.abc import Iterator, Mapping, Sequence

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.table.locations import LocationProvider

from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.manifest_files import codec_of, decode_entry, partition_bounds, write_manifest
from lakehouse_pipeline.iceberg.manifests import DATA, LiveFile, digest
from lakehouse_pipeline.ledger.records import Seal, SealedManifest

MANIFEST_BYTES = 8 * 1024**2  # Iceberg's default of commit.manifest.target-size-bytes


def seal_files(
    table: Table,
    attempt: str,
    written: Sequence[WrittenFile],
    *,
    rows_read: int | None,
    rejected: int,
    left: int | None = 0,
    as_of: int | None = None,
    kept: Sequence[LiveFile] = (),
) -> Seal:
    """Write the manifests of an attempt's files and sum the attempt up.

    Args:
        table: of the attempt.
        attempt: its id.
        written: its files.
        rows_read: rows that came from the source.
        rejected: rows that were kept aside.
        left: rows that were left to other hours.
        as_of: sequence number of the files' data; None for the commit's.
        kept: live files of the hour that stay beside them.

    Raises:
        FileExistsError: the attempt was sealed before.
    """
    spec, schema = table.spec(), table.schema()
    target = manifest_bytes(table.properties)
    manifests = []
    for place, part in enumerate(_parts(written, target)):
        path = manifest_url(table.location_provider(), attempt, place)
        manifest = write_manifest(
            table.io,
            path,
            [{**decode_entry(file.entry, spec, schema), "sequence_number": as_of} for file in part],
            spec=spec,
            schema=schema,
            content=ManifestContent.DATA,
            codec=codec_of(table.properties),
        )
        rows = sum(file.rows for file in part)
        bounds = partition_bounds(manifest)
        manifests.append(
            SealedManifest(path=path, length=manifest.manifest_length, files=len(part), rows=rows, partitions=bounds)
        )
    data = [file for file in kept if file.content == DATA]
    return Seal(
        manifests=tuple(manifests),
        files=len(written),
        rows=sum(file.rows for file in written),
        bytes=sum(file.size for file in written),
        rows_read=rows_read,
        rejected=rejected,
        left=left,
        digest=digest([file.path for file in written] + [file.path for file in kept]),
        table_uuid=str(table.metadata.table_uuid),
        schema_id=schema.schema_id,
        spec_id=spec.spec_id,
        sort_order_id=table.sort_order().order_id,
        kept=len(data),
        kept_rows=sum(file.rows for file in data),
        kept_bytes=sum(file.bytes for file in data),
    )


def manifest_bytes(properties: Mapping[str, str]) -> int:
    """Give the bytes that a manifest of a table is to have, about."""
    return int(properties.get("commit.manifest.target-size-bytes", MANIFEST_BYTES))


def manifest_url(provider: LocationProvider, attempt: str, place: int) -> str:
    """Give the place of one of an attempt's manifests, counted from 0."""
    return provider.new_metadata_location(f"{attempt}-m{place}.avro")


def _parts(written: Sequence[WrittenFile], target: int) -> Iterator[list[WrittenFile]]:
    part: list[WrittenFile] = []
    size = 0
    for file in written:
        if part and size + len(file.entry) > target:
            yield part
            part, size = [], 0
        part.append(file)
        size += len(file.entry)
    if part:
        yield part
