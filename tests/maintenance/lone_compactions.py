"""A compaction in a process of its own that strikes itself, or one of its workers, at a known place."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pyspark.sql import SparkSession

from lakehouse_pipeline import events
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.engines import sessions
from lakehouse_pipeline.engines.workers import RayWorkers, SparkWorkers, ThreadWorkers, Workers
from lakehouse_pipeline.iceberg import hourly
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance.compaction import compact, look
from tests.backfill.lone_runs import ROOT, SPARK, STRIKES, Strikes, StrikingFiles, _strike_at
from tests.iceberg.lake import EVENTS, Lake, spec_of

OWN_GROUP = 0  # as kill(2) has it: all processes of the caller's group


@dataclass(frozen=True)
class LoneCompaction:
    """A compaction of all that is worth it.

    Attributes:
        folder: for its counts.
        catalog: its properties.
        identifier: of the table.
        kind: of workers.
        at: by event, what its process is struck with.
        puts: by the number of files that all workers have put, what the worker is struck with that put the last.
        puts_strike_all: the same strikes the compaction's process, too, and whatever either has started.
        spark: master of Apache Spark.
        ray: address of a cluster.
        environment: that the cluster's other drivers have.
    """

    folder: Path
    catalog: Mapping[str, str]
    identifier: str
    kind: str
    at: Mapping[str, signal.Signals] = field(default_factory=dict)
    puts: Strikes = field(default_factory=dict)
    puts_strike_all: bool = False
    spark: str = "local[2]"
    ray: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def counted(self) -> Path:
        """Where its workers count their files."""
        return self.folder / "puts"

    def __call__(self) -> list[str]:
        """Run it, in a process of its own; gives the errors, by hour."""
        os.setsid()  # what it starts is struck with it
        os.environ |= {**self.environment, "PYTHONPATH": str(ROOT)}
        store_of = hourly.store_of
        hourly.store_of = lambda properties: StrikingFiles(store_of(properties).properties)
        # Workers of Spark are a group of their own; Ray ends those of a driver that is gone itself.
        of_group = [] if self.kind == "ray" else [OWN_GROUP]
        _strike_at(self.counted, self.puts, [-os.getpid(), *of_group] if self.puts_strike_all else [])
        lake = Lake(open_catalog(self.catalog), self.identifier)
        spec, table = spec_of(EVENTS, {"table": lake.identifier}), lake.now
        plan = look(MaintenanceSettings(), spec, table)
        with events.subscribed(self._heard), self._workers() as workers:
            done = list(compact(Warehouse(lake.catalog, table.files), spec, plan, "killed", workers))
        return [f"{each.hour}: {each.error}" for each in done if each.error]

    @contextmanager
    def _workers(self) -> Iterator[Workers]:
        if self.kind == "spark":
            os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYSPARK_SUBMIT_ARGS": SPARK}
            yield SparkWorkers(lambda: sessions._classic(self.spark, "killed", local=True))
            SparkSession.active().stop()
        elif self.kind == "ray":
            handed = {name: os.environ[name] for name in (STRIKES, "PYTHONPATH")}
            yield RayWorkers(options={"address": self.ray, "runtime_env": {"env_vars": handed}})
        else:
            yield ThreadWorkers()

    def _heard(self, event: events.Event) -> None:
        if event.name in self.at:
            os.killpg(os.getpid(), self.at[event.name])
