"""What Dagster hands to asset bodies: a Spark session that starts when an hour first needs it."""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkResource(dg.ConfigurableResource["SparkResource"]):
    """One Spark session a run, started at the first use and stopped with the run that started it.

    Attributes:
        engine: `local[N]` or `local[*]`.
    """

    engine: str
    _session: "SparkSession | None" = PrivateAttr(default=None)
    _started: bool = PrivateAttr(default=False)

    def session(self) -> "SparkSession":
        """Give the session of this process; it is left alone at the end if something else had started it."""
        if self._session is None:
            # Definitions are loaded by every tick and command: pyspark is not imported before an hour needs it.
            from pyspark.sql import SparkSession  # noqa: PLC0415

            from lakehouse_pipeline.engines.spark import open_session  # noqa: PLC0415

            self._started = SparkSession.getActiveSession() is None
            self._session = open_session(self.engine, "lakehouse_pipeline")
        return self._session

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002  # Dagster's signature
        """Stop the session that this run started."""
        if self._session is not None and self._started:
            self._session.stop()
        self._session = None
