"""Manifest entries as writers give them, taken apart: nothing of the product has to."""

import io

import fastavro
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema

from lakehouse_pipeline.iceberg.event_time import Entry
from lakehouse_pipeline.iceberg.manifest_files import ManifestKind


def decode_entry(body: bytes, spec: PartitionSpec, schema: Schema) -> Entry:
    """Undo `ManifestKind.encode`."""
    return dict(fastavro.schemaless_reader(io.BytesIO(body), ManifestKind(spec, schema).avro, None))  # type: ignore[arg-type]
