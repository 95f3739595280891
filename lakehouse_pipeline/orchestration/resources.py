"""What Dagster hands to asset bodies: a Spark session that starts when an hour first needs it."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from lakehouse_pipeline.engines.sessions import LazySession


class SparkResource(dg.ConfigurableResource["SparkResource"]):
    """One Spark session a run, started at its first use and stopped with the run that started it.

    Attributes:
        engine: `local[N]` or `local[*]`.
    """

    engine: str
    _lazy: "LazySession | None" = PrivateAttr(default=None)

    def lazy(self) -> "LazySession":
        """Give the session's holder; nothing starts yet."""
        if self._lazy is None:
            # Definitions are loaded by every tick and command: pyspark is not imported before a run needs it.
            from lakehouse_pipeline.engines.sessions import LazySession  # noqa: PLC0415

            self._lazy = LazySession(self.engine, "lakehouse_pipeline")
        return self._lazy

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002  # Dagster's signature
        """Stop the session that this run started."""
        if self._lazy is not None:
            self._lazy.close()
