"""What only the catalog, the store and Python can say of a spec: looked at before any hour runs, all at once.

What the files say by themselves is `config`'s. Nothing is written, and Spark does not start.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from lakehouse_pipeline.backfill.functions import load_function
from lakehouse_pipeline.config.engine import kind_of_engine
from lakehouse_pipeline.config.lakehouse import Lakehouse
from lakehouse_pipeline.config.paths import render
from lakehouse_pipeline.config.problems import KeyPath, Problem
from lakehouse_pipeline.config.source import RawFiles
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.transform import FunctionTransform
from lakehouse_pipeline.config.yaml_source import Document, read_document
from lakehouse_pipeline.errors import ConfigurationError, LakehouseError
from lakehouse_pipeline.iceberg.tables import new_sqlite_file
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.sources.listing import list_objects_of


def survey(lakehouse: Lakehouse, names: tuple[str, ...], shown: Callable[[Path], str] = str) -> list[Problem]:
    """Find what is wrong around specs: their transforms, tables and raw files.

    Args:
        lakehouse: its catalog and store.
        names: of the specs.
        shown: how a file is named in a problem.
    """
    # A look makes no catalog: where there is none, all tables are still to come.
    none_yet = {"uri": "sqlite:///:memory:"} if new_sqlite_file(lakehouse.catalog) else {}
    try:
        warehouse = Warehouse.open({**lakehouse.catalog, **none_yet}, patient=False)
    except LakehouseError as error:
        return [
            read_document(lakehouse.file, shown(lakehouse.file)).problem(
                ("catalog",), str(error).removeprefix("the catalog: ")
            )
        ]
    found = []
    for name in names:
        spec = lakehouse.spec(name)
        document = read_document(spec.file, shown(spec.file))
        found += [_problem(document, spec, path, error) for path, error in _errors(spec, warehouse, lakehouse.engine)]
    return sorted(found, key=lambda problem: (problem.file, problem.line))


def notes(lakehouse: Lakehouse, names: tuple[str, ...], shown: Callable[[Path], str] = str) -> list[str]:
    """Say what is no problem as yet, and what a survey has not looked at; see `survey`."""
    if not names:
        return []
    file, what = new_sqlite_file(lakehouse.catalog), "TABLE --hour HOUR"
    if len(names) == 1:
        what = f"{names[0]} --hour {lakehouse.spec(names[0]).start}"
    return [
        *([f"there is no catalog at {shown(file)} yet: the next command makes it"] if file else []),
        f"neither engine nor rows were looked at: lakehouse check {what} does",
    ]


def _errors(spec: TableSpec, warehouse: Warehouse, engine: str) -> Iterator[tuple[KeyPath, LakehouseError]]:
    looks: list[tuple[KeyPath, Callable[[], object]]] = [
        (("table",), lambda: _look_up(spec, warehouse)),
        (("transform",), lambda: _check_on(engine, spec)),
    ]
    if isinstance(function := spec.transform, FunctionTransform):
        looks.append((("transform",), lambda: load_function(spec, function)))
    looks.append((("source", "path"), lambda: _find(spec, spec.source, warehouse)))
    looks += [(("join", join.name), partial(_find, spec, join, warehouse)) for join in spec.join]
    for path, look in looks:
        try:
            look()
        except LakehouseError as error:
            yield path, error


def _look_up(spec: TableSpec, warehouse: Warehouse) -> None:
    if warehouse.table(spec) is None:
        warehouse.check_place(spec)


def _check_on(engine: str, spec: TableSpec) -> None:
    if spec.transform is not None and kind_of_engine(engine) != "local":
        from lakehouse_pipeline.engines.capabilities import ENGINES, check_transform_on, engine_kind  # noqa: PLC0415  # starts with half a second of PySpark

        check_transform_on(ENGINES[engine_kind(engine)], spec)


def _find(spec: TableSpec, raw: RawFiles, warehouse: Warehouse) -> None:
    pattern = render(raw.path, spec.start)
    if not list_objects_of(warehouse.files, pattern) and raw.missing == "fail":
        has_hours = pattern != raw.path
        of_hour, start = (f", for the first hour, {spec.start}", " or `start`") if has_hours else ("", "")
        raise ConfigurationError(
            f"there is no object at {pattern}{of_hour}; land it, correct the path{start}, or write `missing: empty`"
        )


def _problem(document: Document, spec: TableSpec, path: KeyPath, error: LakehouseError) -> Problem:
    message = str(error).removeprefix(f"{spec.file}: ").removeprefix(f"{path[0]}: ")
    return document.problem(path, message)
