"""Runs of many hours on Sail, each in a process of its own, alone or beside other runs of the same table."""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

from lakehouse_pipeline.backfill.hour_result import HourResult
from lakehouse_pipeline.backfill.range import run_range
from lakehouse_pipeline.config.backfill import BackfillSettings, CommitEvery
from lakehouse_pipeline.engines.sessions import LazySession
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourWindow
from tests.backfill.lone_runs import WITHIN_S
from tests.projects import Project

Outcomes = dict[HourWindow, HourResult | LakehouseError]


def settings(at_once: int = 3, together: int = 24, seconds: int = 60) -> BackfillSettings:
    """Give settings with these figures."""
    return BackfillSettings(hours_in_flight=at_once, commit_every=CommitEvery(hours=together, seconds=seconds))


@dataclass(frozen=True)
class SailRun:
    """A run on Sail, in a process of its own: one that runs Apache Spark cannot speak to another engine.

    Attributes:
        folder: the project's.
        hours: that it runs.
        at_once: hours in flight.
        run_id: of the orchestrator.
        start: where it waits for others, with its engine started and its catalog open.
    """

    folder: Path
    hours: Sequence[HourWindow]
    at_once: int
    run_id: str = "run"
    start: Barrier | None = None

    @property
    def counted(self) -> Path:
        """Not used: nothing strikes it."""
        return self.folder

    def __call__(self) -> dict[str, str]:
        """Run it; gives the hours that failed, each with the error's class and what it said."""
        session = LazySession("sail", "range")
        ended: Outcomes = {}
        bench = Project(self.folder, session.get).bench(self.run_id)
        if self.start:
            session.get()
            self.start.wait(WITHIN_S)
        run_range(bench, self.hours, settings(self.at_once), ended.__setitem__, apart=session.apart)
        session.close()
        failed = {hour.key: outcome for hour, outcome in ended.items() if isinstance(outcome, LakehouseError)}
        return {key: f"{type(error).__name__}: {error}" for key, error in failed.items()}
