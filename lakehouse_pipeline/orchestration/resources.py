"""What Dagster hands to asset bodies: a Spark session that starts when an hour first needs it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from lakehouse_pipeline.engines.sessions import LazySession


class OneSession:
    """The session of a run, started at its first use."""

    def __init__(self, engine: str) -> None:
        """Remember the engine; nothing starts yet."""
        self._engine = engine
        self._lazy: LazySession | None = None

    def lazy(self) -> "LazySession":
        """Give the session's holder; nothing starts yet."""
        if self._lazy is None:
            # Definitions are loaded by every tick and command: pyspark is not imported before a run needs it.
            from lakehouse_pipeline.engines.sessions import LazySession  # noqa: PLC0415

            self._lazy = LazySession(self._engine, "lakehouse_pipeline")
        return self._lazy

    def close(self) -> None:
        """Stop the session that this run started."""
        if self._lazy is not None:
            self._lazy.close()


def spark_resource(engine: str) -> dg.ResourceDefinition:
    """Make the resource: one `OneSession` a run.

    The engine is no configuration of Dagster's, which its page and its records show: an address may hold a token.
    """

    @dg.resource(
        description="One Spark session a run, started at its first use and stopped with the run that started it"
    )
    def spark(_: Any) -> Iterator[OneSession]:
        session = OneSession(engine)
        try:
            yield session
        finally:
            session.close()

    return spark
