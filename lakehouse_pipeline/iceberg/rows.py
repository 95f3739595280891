"""Live rows of data files as Arrow: columns as the table has them now, and every kind of delete applied.

Read row group by row group, however large a file is. A file is found again by what a manifest says of it alone, so that
tasks need neither a catalog nor PyIceberg's planning, which refuses equality deletes (apache/iceberg-python#6568).

Source: https://iceberg.apache.org/spec/#column-projection
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import pyarrow_to_schema
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.name_mapping import parse_mapping_from_json
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import IcebergType, ListType, MapType, NestedField, StructType

from lakehouse_pipeline.errors import LakehouseError, SafetyError
from lakehouse_pipeline.iceberg.conformed import compact, conform, null_mask
from lakehouse_pipeline.iceberg.deletes import (
    DeletedKeys,
    DeleteIndex,
    Numbers,
    Place,
    kept,
    positions_by_file,
    unpartitioned,
)
from lakehouse_pipeline.iceberg.event_time import avro_name
from lakehouse_pipeline.iceberg.manifests import EQUALITY_DELETES, POSITION_DELETES, LiveFile
from lakehouse_pipeline.iceberg.schemas import arrow_schema
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

ROWS_AT_ONCE = 65_536
WHOLE_BYTES = 8 * 1024**2  # a file of up to so many bytes is read in one request
AHEAD = 2  # such files that are on their way while rows are decoded
NAME_MAPPING = "schema.name-mapping.default"


@dataclass(frozen=True)
class StoredTable:
    """What has to be known of a table to read its files; small and picklable.

    Attributes:
        files: the store.
        schema_json: the schema that rows are read as.
        others_json: the table's other schemas, the newest first: deletes may compare columns that are gone.
        specs_json: its partition specs.
        name_mapping: for files without field ids; empty where it has none.
    """

    files: LakehouseFileIO
    schema_json: str
    others_json: tuple[str, ...]
    specs_json: tuple[str, ...]
    name_mapping: str

    @classmethod
    def of(cls, table: Table, files: LakehouseFileIO) -> "StoredTable":
        """Take it from a table as it was loaded."""
        metadata, current = table.metadata, table.schema()
        others = sorted(metadata.schemas, key=lambda schema: schema.schema_id, reverse=True)
        return cls(
            files=files,
            schema_json=current.model_dump_json(),
            others_json=tuple(each.model_dump_json() for each in others if each.schema_id != current.schema_id),
            specs_json=tuple(spec.model_dump_json() for spec in metadata.partition_specs),
            name_mapping=table.properties.get(NAME_MAPPING, ""),
        )

    @cached_property
    def schema(self) -> Schema:
        """The schema that rows are read as."""
        return Schema.model_validate_json(self.schema_json)

    @property
    def columns(self) -> tuple[NestedField, ...]:
        """The schema's."""
        return self.schema.fields

    @cached_property
    def specs(self) -> Mapping[int, PartitionSpec]:
        """All partition specs."""
        specs = map(PartitionSpec.model_validate_json, self.specs_json)
        return {spec.spec_id: spec for spec in specs}

    @cached_property
    def unpartitioned(self) -> frozenset[int]:
        """The specs without fields, whose equality deletes are of all partitions."""
        return unpartitioned(self.specs.values())

    def field(self, field_id: int) -> NestedField:
        """Find a column of the table as it was last, gone ones too.

        Raises:
            SafetyError: it is a part of one, or no schema is left that has it.
        """
        for schema in (self.schema, *map(Schema.model_validate_json, self.others_json)):
            for column in schema.fields:
                if column.field_id == field_id:
                    return column
        raise SafetyError(
            f"rows are deleted by field {field_id}, which is no column of any schema that the table still knows"
        )

    def live_batches(self, data: Sequence[LiveFile], deletes: Sequence[LiveFile]) -> Iterator[pa.RecordBatch]:
        """Read data files one after the other, each in its own order, without the rows that deletes take.

        Args:
            data: Parquet files.
            deletes: all that may apply to one of them; others do not matter.

        Raises:
            SafetyError: a file is gone, is no Parquet file, or cannot be read as the table's schema is now.
        """
        reading = _Reading.of(self, data, deletes)
        for file, body in self._opened(data):
            with body, _read(file):
                yield from reading.batches(file, body)

    def positions_of(self, deletes: Sequence[LiveFile]) -> set[str]:
        """Name the data files that files of position deletes are of.

        Raises:
            SafetyError: one is gone, or is no Parquet file.
        """
        found = set[str]()
        for file, body in self._opened(deletes):
            with body, _read(file), pq.ParquetFile(body, read_dictionary=["file_path"]) as parquet:
                paths = pc.unique(parquet.read(["file_path"]).column(0))
                found |= {file.refers_to} if file.refers_to else set(paths.to_pylist())
        return found

    def _opened(self, files: Sequence[LiveFile]) -> Iterator[tuple[LiveFile, Any]]:
        """Open files one after the other, small ones ahead of time."""

        def whole(file: LiveFile) -> Any:
            return pa.BufferReader(self.files.get(file.path).body)

        def in_ranges(file: LiveFile) -> BinaryIO:
            return self.files.open_read(file.path, size=file.bytes)

        small = [file for file in files if file.bytes <= WHOLE_BYTES]
        with _Ahead(whole, small) as bodies:
            for file in files:
                with _read(file):
                    body = next(bodies) if file.bytes <= WHOLE_BYTES else in_ranges(file)
                yield file, body


@contextmanager
def _read(file: LiveFile) -> Iterator[None]:
    """Say of which file it is that it cannot be read.

    Raises:
        SafetyError: it is gone, or not what it should be.
    """
    try:
        yield
    except LakehouseError:
        raise
    except FileNotFoundError:
        raise SafetyError(f"{file.path} is gone, and the table still has it") from None
    except (pa.ArrowException, OSError) as error:
        raise SafetyError(f"{file.path} cannot be read: {error}") from error


class _Ahead:
    """Calls whose results are asked for one after the other, some of them made ahead of time; in a `with` block."""

    def __init__(self, call: Callable[[LiveFile], Any], files: Sequence[LiveFile]) -> None:
        self._call, self._files = call, iter(files)
        self._pool = ThreadPoolExecutor(AHEAD)
        self._begun = deque[Future[Any]]()

    def __enter__(self) -> Iterator[Any]:
        return self._results()

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _results(self) -> Iterator[Any]:
        for _ in range(AHEAD):
            self._begin()
        while self._begun:
            result = self._begun.popleft().result()
            self._begin()
            yield result

    def _begin(self) -> None:
        for file in self._files:
            self._begun.append(self._pool.submit(copy_context().run, self._call, file))
            return


@dataclass
class _Reading:
    """Data files with the deletes that apply to them."""

    stored: StoredTable
    applying: Mapping[str, Sequence[LiveFile]]
    positions: Mapping[str, Numbers]
    equality: Sequence[tuple[LiveFile, pa.Table]]
    keys: dict[tuple[tuple[int, ...], Place], DeletedKeys] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: StoredTable, data: Sequence[LiveFile], deletes: Sequence[LiveFile]) -> "_Reading":
        index = DeleteIndex.of(deletes, stored.unpartitioned)
        applying = {file.path: list(index.applying_to(file)) for file in data}
        wanted = {file.path: file for files in applying.values() for file in files}
        ages = {file.path: file.sequence_number for file in data}
        equality, positions = list[tuple[LiveFile, pa.Table]](), list[tuple[int, pa.Table]]()
        for file, body in stored._opened(list(wanted.values())):  # noqa: SLF001  # of this module
            coded = ["file_path"] if file.content == POSITION_DELETES else None  # few paths, again and again
            with body, _read(file), pq.ParquetFile(body, read_dictionary=coded) as parquet:
                if coded:
                    positions.append((file.sequence_number, _positions_of(parquet, ages)))
                else:
                    equality.append((file, _keys_of(stored, file, parquet)))
        return cls(stored, applying, positions_by_file(positions, ages), equality)

    def batches(self, file: LiveFile, body: Any) -> Iterator[pa.RecordBatch]:
        ids = {each.equality_ids for each in self.applying[file.path] if each.content == EQUALITY_DELETES}
        compared = [self.stored.field(field_id) for field_id in sorted({each for every in ids for each in every})]
        own = {column.field_id for column in self.stored.schema.fields}
        extra = [_renamed(column) for column in compared if column.field_id not in own]
        schema = Schema(*self.stored.schema.fields, *extra)
        arrow, first = arrow_schema(schema), 0
        with pq.ParquetFile(body, pre_buffer=True) as parquet:
            project = _projection(self.stored, file, parquet.schema_arrow, schema)
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=project.columns):
                    left = kept(self.positions.get(file.path), first, batch.num_rows)
                    first += batch.num_rows
                    rows = conform(project(batch if left is None else batch.filter(left)), arrow)
                    rows = self._without(rows, file, schema, ids)
                    if rows.num_rows:
                        yield rows.select([column.name for column in self.stored.schema.fields])
        if first != file.rows:
            raise SafetyError(f"{file.path} has {first} rows, and {file.rows} by its manifest")

    def _without(
        self, rows: pa.RecordBatch, file: LiveFile, schema: Schema, every: set[tuple[int, ...]]
    ) -> pa.RecordBatch:
        """Take the rows away that equality deletes name."""
        for ids in every:
            columns = [rows.column(schema.find_field(field_id).name) for field_id in sorted(ids)]
            taken = self._keys(ids, (file.spec_id, file.partition)).takes(columns, file.sequence_number)
            rows = rows.filter(pa.array(~taken))
        return rows

    def _keys(self, ids: tuple[int, ...], place: Place) -> DeletedKeys:
        """Give the keys that delete files of all ages have for a partition: one set, however many files there are."""
        keys = self.keys.get((ids, place))
        if keys is None:
            found = [
                (each.sequence_number, table)
                for each, table in self.equality
                if each.equality_ids == ids
                and (each.spec_id in self.stored.unpartitioned or (each.spec_id, each.partition) == place)
            ]
            ages = np.concatenate([np.full(table.num_rows, age, np.int64) for age, table in found])
            keys = self.keys[ids, place] = DeletedKeys(pa.concat_tables([table for _, table in found]), ages)
        return keys


def _positions_of(parquet: pq.ParquetFile, wanted: Collection[str]) -> pa.Table:
    """Read a file of position deletes, as far as it is of some data files."""
    paths, found = pa.array(list(wanted), pa.string()), list[pa.RecordBatch]()
    for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=["file_path", "pos"]):
        found.append(batch.filter(pc.is_in(batch.column("file_path").cast(pa.string()), paths)))
    schema = pa.schema([("file_path", pa.dictionary(pa.int32(), pa.string())), ("pos", pa.int64())])
    return pa.Table.from_batches(found) if found else schema.empty_table()


def _renamed(column: NestedField) -> NestedField:
    """Give a column that is gone a name that no other has."""
    name = f"_deleted_by_{column.field_id}"
    return NestedField(column.field_id, name, column.field_type, required=False)


def _keys_of(stored: StoredTable, file: LiveFile, parquet: pq.ParquetFile) -> pa.Table:
    """Read the rows of an equality delete file, its columns in the order of their ids."""
    fields = [_renamed(stored.field(field_id)) for field_id in sorted(file.equality_ids)]
    schema = Schema(*fields)
    project = _projection(stored, file, parquet.schema_arrow, schema)
    batches = [conform(project(batch), arrow_schema(schema)) for batch in parquet.iter_batches(columns=project.columns)]
    return pa.Table.from_batches(batches, arrow_schema(schema))


@dataclass(frozen=True)
class _Projection:
    """From a file's columns to a schema's, matched by their ids.

    Attributes:
        columns: of the file that are read.
        have: the file's schema.
        wanted: the schema.
        constants: what partition values tell of columns that the file does not have, by field id.
    """

    columns: list[str]
    have: Schema
    wanted: Schema
    constants: Mapping[int, Any]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Give the schema's columns; types are as stored."""
        have, found = {column.field_id: column for column in self.have.fields}, []
        for column in self.wanted.fields:
            stored = have.get(column.field_id)
            if stored is not None:
                found.append(_projected(batch.column(stored.name), stored.field_type, column.field_type))
            else:
                found.append(_missing(column, batch.num_rows, self.constants.get(column.field_id)))
        return pa.RecordBatch.from_arrays(found, names=[column.name for column in self.wanted.fields])


def _projection(stored: StoredTable, file: LiveFile, physical: pa.Schema, wanted: Schema) -> _Projection:
    mapping = parse_mapping_from_json(stored.name_mapping) if stored.name_mapping else None
    try:
        have = pyarrow_to_schema(physical, mapping, downcast_ns_timestamp_to_us=True, format_version=2)
    except ValueError as error:
        raise SafetyError(f"{file.path} cannot be matched with the table's columns: {error}") from None
    constants = {
        field.source_id: file.values.get(avro_name(field))
        for field in stored.specs[file.spec_id].fields
        if isinstance(field.transform, IdentityTransform)
    }
    ids = {column.field_id for column in wanted.fields}
    columns = [column.name for column in have.fields if column.field_id in ids]
    return _Projection(columns, have, wanted, constants)


def _missing(column: NestedField, rows: int, constant: Any) -> pa.Array:
    if constant is None and column.required:
        raise SafetyError(f"a file has no column {column.name}, which is required")
    kind = arrow_schema(Schema(column)).field(0).type
    return pa.nulls(rows, kind) if constant is None else pa.repeat(pa.scalar(constant, kind), rows)


def _projected(values: pa.Array, have: IcebergType, wanted: IcebergType) -> pa.Array:
    """Match the parts of a value by their ids; parts that are not there are null."""
    if have == wanted or have.is_primitive:
        return values
    if isinstance(have, StructType) and isinstance(wanted, StructType):
        return _struct(values, have, wanted)
    if isinstance(have, ListType) and isinstance(wanted, ListType):
        if pa.types.is_fixed_size_list(values.type):  # as Arrow's own writers note it beside Parquet's types
            values = values.cast(pa.list_(values.type.value_field))
        values = compact(values)
        elements = _projected(pc.list_flatten(values), have.element_type, wanted.element_type)
        return pa.ListArray.from_arrays(values.offsets.cast(pa.int32()), elements, mask=null_mask(values))
    if isinstance(have, MapType) and isinstance(wanted, MapType):
        values = compact(values)
        items = _projected(values.items, have.value_type, wanted.value_type)
        return pa.MapArray.from_arrays(values.offsets, values.keys, items, mask=null_mask(values))
    raise SafetyError(f"a file has {have} where the table has {wanted}")


def _struct(values: pa.Array, have: StructType, wanted: StructType) -> pa.Array:
    places = {part.field_id: place for place, part in enumerate(have.fields)}
    parts = []
    for part in wanted.fields:
        place = places.get(part.field_id)
        if place is None:
            parts.append(_missing(part, len(values), None))
        else:
            stored = have.fields[place]
            parts.append(_projected(pc.struct_field(values, [stored.name]), stored.field_type, part.field_type))
    return pa.StructArray.from_arrays(parts, [part.name for part in wanted.fields], mask=null_mask(values))
