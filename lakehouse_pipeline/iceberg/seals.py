"""Sealing: the manifests of an attempt, written before its commit, so that the commit itself is a few small objects.

From the seal on, a failure costs a commit and never the ETL.
"""

from collections.abc import Iterator, Sequence

from pyiceberg.table import Table
from pyiceberg.table.locations import LocationProvider

from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.manifest_files import (
    BLOCK_BYTES,
    ManifestKind,
    OpenManifest,
    codec_of,
    manifest_bytes,
    partition_bounds,
)
from lakehouse_pipeline.iceberg.manifests import ADDED, DATA, LiveFile, digest
from lakehouse_pipeline.ledger.records import Seal, SealedManifest


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
    manifests = []
    for place, opened in enumerate(_filled(table, ManifestKind(spec, schema), written, as_of)):
        manifest = opened.put(table.io, manifest_url(table.location_provider(), attempt, place), None)
        manifests.append(
            SealedManifest(
                path=manifest.manifest_path,
                length=manifest.manifest_length,
                files=manifest.added_files_count or 0,
                rows=manifest.added_rows_count or 0,
                partitions=partition_bounds(manifest),
            )
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


def manifest_url(provider: LocationProvider, attempt: str, place: int) -> str:
    """Give the place of one of an attempt's manifests, counted from 0."""
    return provider.new_metadata_location(f"{attempt}-m{place}.avro")


def _filled(
    table: Table, kind: ManifestKind, written: Sequence[WrittenFile], as_of: int | None
) -> Iterator[OpenManifest]:
    """Fill manifests, each to the bytes that it is to have; entries go into them as tasks have encoded them."""
    codec, target = codec_of(table.properties), manifest_bytes(table.properties)
    marks = {"status": ADDED, "sequence_number": as_of}
    opened = None
    for file in written:
        opened = opened or OpenManifest(kind, codec, min(BLOCK_BYTES, target // 8))
        opened.add(file.entry if as_of is None else kind.marked(file.entry, marks))
        if opened.length >= target:
            yield opened
            opened = None
    if opened:
        yield opened
