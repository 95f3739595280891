"""The files of the tables' folder, and what several of them together must not say.

What a single spec says is `config.table`'s.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from lakehouse_pipeline.config.paths import literal
from lakehouse_pipeline.config.problems import KeyPath, Problem
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.config.validation import validated
from lakehouse_pipeline.config.variables import expand
from lakehouse_pipeline.config.yaml_source import Document, read_document

_SUFFIX = ".yaml"
_LIKE_YAML = frozenset({".yaml", ".yml"})
_VARIABLES = frozenset({("source", "path")})
_JOIN = "join"
_JOIN_DEPTH = 2  # join.<view>: the path itself, or a mapping that holds it


def load_specs(
    files: Iterable[Path], shown: str, folder: Path, environ: Mapping[str, str]
) -> tuple[tuple[TableSpec, ...], tuple[Problem, ...]]:
    """Read the specs among `files`.

    Args:
        files: those of the tables' folder, absolute.
        shown: that folder, as messages name it.
        folder: what relative paths of sources are relative to.
        environ: the variables that `${NAME}` stands for in paths.

    Returns:
        The specs without a problem, by name; and every problem, by file and line.
    """
    specs: list[TableSpec] = []
    problems: list[Problem] = []
    documents: list[Document] = []
    for file in sorted(_candidates(files), key=lambda each: (each.stem, each.suffix)):
        label = f"{shown}/{file.name}"
        if file.suffix != _SUFFIX:
            problems.append(Problem(label, 1, "", f"is not read; rename it to end in {_SUFFIX}"))
            continue
        document = expand(read_document(file, label), environ, _is_path, literal)
        spec, found = validated(TableSpec, document, {"name": file.stem, "file": file}, folder)
        documents.append(document)
        problems += found
        specs += [spec] if spec else []
    problems += _shared_tables(documents)
    return tuple(specs), tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))


def _candidates(files: Iterable[Path]) -> Iterable[Path]:
    return (file for file in files if file.suffix.lower() in _LIKE_YAML and not file.name.startswith("."))


def _is_path(path: KeyPath) -> bool:
    if path[0] == _JOIN:
        return len(path) == _JOIN_DEPTH or path[_JOIN_DEPTH:] == ("path",)
    return path in _VARIABLES


def _shared_tables(documents: Iterable[Document]) -> list[Problem]:
    first: dict[str, Document] = {}
    problems = []
    for document in documents:
        table = (document.tree or {}).get("table")
        if not isinstance(table, str):
            continue
        other = first.setdefault(table, document)
        if other is not document:
            where = f"{other.label}:{other.lines[('table',)]}"
            problems.append(document.problem(("table",), f"{table!r} is the table of {where} too; give each its own"))
    return problems
