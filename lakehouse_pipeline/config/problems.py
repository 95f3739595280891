"""Problems of the YAML files: where each stands, what is wrong, and the way out.

A problem is one line, `file:line: key: what is wrong; the way out`. Messages never hold a value that came from a
variable. Nothing here knows what the keys mean.
"""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lakehouse_pipeline.errors import ConfigurationError

KeyPath = tuple[str | int, ...]  # the way from the root of a file: keys of mappings, positions in lists

_SHOWN = 12  # names listed in a message before it becomes a wall of text


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file.

    Attributes:
        file: the file as people typed it.
        line: counted from 1.
        key: the keys from the root, joined by dots; empty for the file as a whole.
        message: what is wrong; the way out.
    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Give the line that people read."""
        return ": ".join(part for part in (f"{self.file}:{self.line}", self.key, self.message) if part)


class SpecError(ConfigurationError):
    """The YAML files hold problems.

    Attributes:
        problems: all of them.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Say every problem, one line each."""
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def key_text(path: KeyPath) -> str:
    """Write a path as people say it: `join.weather.path`, `owners[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else repr(part)}"
    return text.removeprefix(".")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Give the way out of a misspelt word: its nearest neighbour, or all there is."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    listed = ", ".join(list(known)[:_SHOWN])
    return f"write one of {listed}{', …' if len(known) > _SHOWN else ''}"
