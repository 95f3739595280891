"""A lakehouse: `lakehouse.yaml`, every spec of its tables' folder, and all of their problems at once.

Nothing is looked up in the catalog or the store, and the environment is a parameter.
"""

import os.path
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from lakehouse_pipeline.config.backfill import BackfillSettings
from lakehouse_pipeline.config.catalog import resolve_catalog
from lakehouse_pipeline.config.engine import kind_of_engine
from lakehouse_pipeline.config.health import HealthSettings
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.config.model import SpecModel
from lakehouse_pipeline.config.problems import Problem, SpecError, did_you_mean
from lakehouse_pipeline.config.spec_files import load_specs
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.validation import validated
from lakehouse_pipeline.config.variables import expand
from lakehouse_pipeline.config.yaml_source import Document, read_document
from lakehouse_pipeline.errors import ConfigurationError

FILE_NAME = "lakehouse.yaml"
VARIABLE = "LAKEHOUSE_CONFIG"

_TABLES = "tables"
_NO_HOST = re.compile(r"\w+://([\s/].*)?")


class Lakehouse(SpecModel):
    """Everything that the YAML files say.

    Attributes:
        file: `lakehouse.yaml`, absolute.
        folder: that of `file`, absolute; relative paths begin there.
        tables: the folder of the specs, absolute.
        catalog: PyIceberg's properties, local paths made absolute. Not in the repr: they hold secrets.
        engine: Spark's master, a Spark Connect address, or `sail`. Not in the repr: an address may hold a token.
        backfill: how many hours are run at once, and committed together.
        health: when a table is taken for healthy.
        maintenance: when tables are kept in shape.
        specs: by name.
    """

    file: Path
    folder: Path
    tables: Path = Field(
        default=Path(_TABLES), validate_default=True, repr=False, description="the folder of the tables' specs"
    )
    catalog: Mapping[str, str] = Field(
        repr=False,
        description="PyIceberg's properties, such as {type: sql, uri: 'sqlite:///catalog.db', warehouse: warehouse}",
    )
    engine: str = Field(
        default="local[*]", repr=False, description="local[*], local[N], spark://…, yarn, k8s://…, sc://… or sail"
    )
    backfill: BackfillSettings = Field(
        default=BackfillSettings(), description="how many hours are run at once, and committed together"
    )
    health: HealthSettings = Field(default=HealthSettings(), description="when a table is taken for healthy")
    maintenance: MaintenanceSettings = Field(default=MaintenanceSettings(), description="when tables are kept in shape")
    specs: tuple[TableSpec, ...]

    def spec(self, name: str) -> TableSpec:
        """Give the spec of a table.

        Raises:
            ConfigurationError: there is none of that name.
        """
        for spec in self.specs:
            if spec.name == name:
                return spec
        known = [spec.name for spec in self.specs]
        way_out = did_you_mean(name, known) if known else "the tables' folder holds none yet"
        raise ConfigurationError(f"there is no table {name!r}; {way_out}")

    @field_validator("tables")
    @classmethod
    def _folder_of_its_own(cls, tables: Path, info: ValidationInfo) -> Path:
        folder: Path = info.data["folder"]
        if (absolute := _absolute(folder / tables)) == folder:
            raise ConfigurationError("is the folder of lakehouse.yaml itself; name one that holds the specs only")
        return absolute

    @field_validator("catalog")
    @classmethod
    def _with_absolute_paths(cls, catalog: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        if not catalog:
            raise ConfigurationError(
                "is empty; add PyIceberg's properties, or {name: …} for a catalog of .pyiceberg.yaml"
            )
        return resolve_catalog(catalog, info.data["folder"])

    @field_validator("engine")
    @classmethod
    def _known_engine(cls, engine: str) -> str:
        # Not shown: a Connect address may hold a token.
        if kind_of_engine(engine) is None or _NO_HOST.fullmatch(engine):
            raise ConfigurationError("is no engine; write local[*], local[N], spark://…, yarn, k8s://…, sc://… or sail")
        return engine


def find_lakehouse(environ: Mapping[str, str], cwd: Path) -> Path:
    """Give the file that `LAKEHOUSE_CONFIG` names, else `lakehouse.yaml` in the current folder.

    Raises:
        ConfigurationError: there is no such file.
    """
    named = environ.get(VARIABLE)
    file = cwd / (named or FILE_NAME)
    if file.is_file():
        return file
    if named:
        raise ConfigurationError(f"{VARIABLE} names {file}, which is no file; set it to the path of a {FILE_NAME}")
    raise ConfigurationError(f"there is no {FILE_NAME} in {cwd}; change to its folder, or set {VARIABLE} to its path")


def load_lakehouse(file: Path, environ: Mapping[str, str]) -> Lakehouse:
    """Read `lakehouse.yaml` and every spec.

    Args:
        file: messages name it, and the specs beside it, as it is given here.
        environ: the variables that `${NAME}` stands for.

    Raises:
        SpecError: every problem of every file, one line each.
    """
    absolute = _absolute(file)
    written = read_document(file, str(file))
    document = expand(written, environ, lambda _: True)
    files, of_folder = _list_tables(document, absolute.parent)
    specs, of_specs = load_specs(files, _shown_tables(written, file.parent), absolute.parent, environ)
    placed = {"file": absolute, "folder": absolute.parent, "specs": specs}
    lakehouse, problems = validated(Lakehouse, document, placed, absolute.parent)
    if lakehouse is None or of_folder or of_specs:
        raise SpecError((*problems, *of_folder, *of_specs))
    return lakehouse


def _list_tables(document: Document, folder: Path) -> tuple[list[Path], list[Problem]]:
    tables = document.tree.get(_TABLES, _TABLES) if document.tree is not None else None
    if not isinstance(tables, str) or _absolute(folder / tables) == folder:
        return [], []
    try:
        return list(_absolute(folder / tables).iterdir()), []
    except OSError as error:
        message = f"the folder cannot be listed ({error.strerror}); create it, or name another"
        return [], [document.problem((_TABLES,), message)]


def _shown_tables(written: Document, parent: Path) -> str:
    """Name the folder with its variables as they are written: their values are not for messages."""
    tables = str((written.tree or {}).get(_TABLES, _TABLES))
    return tables.rstrip("/") if "${" in tables else str(parent / tables)


def _absolute(path: Path) -> Path:
    # Links are not followed: Kubernetes mounts lakehouse.yaml as a link away from its folder.
    return Path(os.path.normpath(path.absolute()))
