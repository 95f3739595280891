"""A SQL catalog and a store that fail as a test says; everything else about them is real."""

from collections.abc import Callable
from typing import Any, BinaryIO

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import FileIO
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier, Properties

from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo

Send = Callable[[], CommitTableResponse]
Answer = Callable[[Send], CommitTableResponse]


def honest(send: Send) -> CommitTableResponse:
    """Send the commit and say what came of it."""
    return send()


def lost(error: Exception) -> Answer:
    """Send the commit, and answer with an error nevertheless."""

    def answer(send: Send) -> CommitTableResponse:
        send()
        raise error

    return answer


def refused(error: Exception) -> Answer:
    """Answer with an error and send nothing."""

    def answer(_send: Send) -> CommitTableResponse:
        raise error

    return answer


class ScriptedCatalog(SqlCatalog):
    """Answers commits as its script says, one answer each, and honestly once the script has ended.

    Attributes:
        script: what is still to be answered; the last answer stays where `forever` is set.
        forever: whether the script never ends.
        commits: how many were asked for.
        before_load: called before each table is loaded; may raise.
        refuses: tells of a URL whether the store refuses to write it.
    """

    def __init__(self, name: str, **properties: str) -> None:
        """Open a SQL catalog with an empty script."""
        super().__init__(name, **properties)
        self.script: list[Answer] = []
        self.forever = False
        self.commits = 0
        self.before_load: Callable[[], None] = lambda: None
        self.refuses: Callable[[str], bool] = lambda _url: False

    def load_table(self, identifier: str | Identifier) -> Table:
        """Load it, unless the script says otherwise."""
        self.before_load()
        return super().load_table(identifier)

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Answer as the script says."""
        self.commits += 1
        answer: Answer = honest
        if self.script:
            answer = self.script[0] if self.forever else self.script.pop(0)

        def send() -> CommitTableResponse:
            return super(ScriptedCatalog, self).commit_table(table, requirements, updates)

        return answer(send)

    def _load_file_io(self, properties: Properties | None = None, location: str | None = None) -> FileIO:  # noqa: ARG002  # PyIceberg's signature
        return ScriptedFileIO(self, {**self.properties, **(properties or {})})


class ScriptedFileIO(LakehouseFileIO):
    """A FileIO that refuses what its catalog says."""

    def __init__(self, catalog: ScriptedCatalog, properties: Any) -> None:
        """Ask the catalog at every put."""
        super().__init__(properties)
        self._catalog = catalog

    def put(
        self, url: str, body: bytes | BinaryIO, *, if_absent: bool = False, if_match: str | None = None
    ) -> ObjectInfo:
        """Write, unless the URL is refused."""
        if self._catalog.refuses(url):
            raise TransientError(f"{url}: scripted")
        return super().put(url, body, if_absent=if_absent, if_match=if_match)
