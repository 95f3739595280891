"""A project folder: the few files of a lakehouse, copied from the example that travels with the package."""

import json
from importlib.resources import files as package_files
from pathlib import Path

from lakehouse_pipeline.config.schema import SCHEMA_FILE, table_schema
from lakehouse_pipeline.errors import ConfigurationError, SafetyError

EXAMPLES = ("flights",)
LOCAL_RAW = ".lakehouse/raw"  # where the example's specs look for raw files, relative to the folder
PROJECT_FILES = ("lakehouse.yaml", "dagster.yaml", "workspace.yaml")


def init_project(folder: Path, example: str | None, *, raw: str = LOCAL_RAW) -> list[Path]:
    """Make a project folder; nothing that exists is overwritten.

    Args:
        folder: made if need be.
        example: whose tables to copy; None for an empty `tables/`.
        raw: URL or folder that takes the place of the example's raw folder.

    Raises:
        ConfigurationError: there is no such example.
        SafetyError: one of the files exists.
    """
    if example is not None and example not in EXAMPLES:
        raise ConfigurationError(f"there is no example {example!r}; there is: {', '.join(EXAMPLES)}")
    source = package_files("lakehouse_pipeline.demo").joinpath(example or EXAMPLES[0])
    texts = {folder / name: source.joinpath(name).read_text(encoding="utf-8") for name in PROJECT_FILES}
    texts[folder / "tables" / SCHEMA_FILE] = f"{json.dumps(table_schema(), indent=2)}\n"
    if example is not None:
        for item in source.joinpath("tables").iterdir():
            text = item.read_text(encoding="utf-8")
            texts[folder / "tables" / item.name] = text.replace(LOCAL_RAW, raw)
    existing = [str(path) for path in texts if path.exists()]
    if existing:
        raise SafetyError(f"nothing was written: {', '.join(existing)} exist already; choose another folder")
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return sorted(texts)
