"""A guard of the package: what keeps data from being lost or doubled, and the tests that fail without it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "lakehouse_pipeline"


@dataclass(frozen=True)
class Guard:
    """One guard, and how it is taken away.

    Attributes:
        name: what it does, in a few plain words.
        file: of the package, from its folder on.
        source: its text there, which occurs once.
        becomes: what the text is without the guard.
        killers: node ids of tests, each a function with all of its cases or one case; one of them fails without it.
    """

    name: str
    file: str
    source: str
    becomes: str
    killers: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module that it stands in."""
        return f"{PACKAGE}.{self.file.removesuffix('.py').replace('/', '.')}"

    @property
    def text(self) -> str:
        """What stands in its file."""
        return (ROOT / PACKAGE / self.file).read_text()

    def without(self) -> str:
        """Give its file without it."""
        return self.text.replace(self.source, self.becomes)
