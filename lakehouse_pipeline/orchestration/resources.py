"""What Dagster gives to bodies of assets and ops: a Spark session that starts when needed, what it knows of runs."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from lakehouse_pipeline.engines.sessions import LazySession

logger = logging.getLogger(__name__)


class RunLog:
    """What an instance of Dagster knows of runs."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        """Ask this instance."""
        self._instance = instance

    def is_over(self, run_id: str) -> bool:
        """Tell whether a run is known to have ended; of other instances' runs and of commands nothing is known."""
        try:
            run = self._instance.get_run_by_id(run_id)
        except Exception as error:  # noqa: BLE001  # Dagster's storage is away: nothing is known, and leases tell
            logger.warning("Dagster does not say whether run %s has ended: %s: %s", run_id, type(error).__name__, error)
            return False
        return run is not None and run.is_finished


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
