"""From a document to a model: every problem of the one and of the other, each on its line.

What a model refuses is the model's to say; here it gets its place in the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from lakehouse_pipeline.config.model import SpecModel, sentences
from lakehouse_pipeline.config.problems import KeyPath, Problem
from lakehouse_pipeline.config.yaml_source import Document, Refused

M = TypeVar("M", bound=SpecModel)


def validated(
    model: type[M], document: Document, placed: Mapping[str, object], folder: Path
) -> tuple[M | None, tuple[Problem, ...]]:
    """Make a model of a document.

    Args:
        model: what to make.
        document: the file.
        placed: fields that follow from where the file is; nobody writes them.
        folder: what relative paths are relative to.

    Returns:
        The model, None if there are problems; and the problems in the order of the file.
    """
    if document.tree is None:
        return None, document.problems
    problems = [*document.problems, *_misplaced(document, placed)]
    made: M | None = None
    try:
        made = model.model_validate({**document.tree, **placed}, context={"folder": folder})
    except ValidationError as error:
        found = sentences(error)
        problems += [document.problem(path, text) for path, text in found if not _refused(document.tree, path)]
    return (None if problems else made), tuple(sorted(problems, key=lambda problem: problem.line))


def _misplaced(document: Document, placed: Mapping[str, object]) -> list[Problem]:
    written = document.tree or {}
    message = "is no key here; take it out, it follows from where the file is"
    return [document.problem((key,), message) for key in placed if key in written]


def _refused(tree: object, path: KeyPath) -> bool:
    """Say whether the value at `path`, or one above it, was refused when the file was read."""
    for part in path:
        if isinstance(tree, Mapping):
            tree = tree.get(part)
        elif isinstance(tree, list) and isinstance(part, int):
            tree = tree[part]
    return isinstance(tree, Refused)
