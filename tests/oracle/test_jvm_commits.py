"""The JVM's Iceberg reads tables whose commits went wrong in every way, and its maintenance is survived by attempts."""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.backfill.plan import observe_inputs, plan_hour
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.errors import CommitStateUnknownError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.testing.faults import FaultServer
from tests.backfill.hands import in_hand, opened, seal
from tests.iceberg.answers import CASES, ROWS, answers, fault_server, silence_after_landing, tries
from tests.iceberg.lake import ELEVEN, EVENTS, TEN, TWELVE, Lake, columns
from tests.oracle.jvm import Jvm
from tests.projects import HOUR, Project, row

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark


def test_tables_whose_commits_were_answered_wrongly_are_read(jvm: Jvm, seaweed: SeaweedServer) -> None:
    """Of every such table the JVM reads the rows, with the committed attempt's among them, once."""
    queries = []
    with fault_server(seaweed) as server:
        for name, case in CASES.items():
            with answers(seaweed, server) as made:
                made.commit(case)
                table = f"{jvm.catalog}.{made.lake.identifier}"
                hour = "date_format(at, 'yyyy-MM-dd-HH:00') AS hour"
                ids = "sort_array(collect_list(id)) AS ids"
                queries.append(f"SELECT '{name}' AS name, {hour}, {ids} FROM {table} GROUP BY 2")
    found: dict[str, dict[str, list[int]]] = {name: {} for name in CASES}
    for told in jvm.sql(" UNION ALL ".join(queries)):
        found[told["name"]][told["hour"]] = told["ids"]
    assert found == dict.fromkeys(CASES, ROWS)


# ---------------------------------------------------------------------------------------------------------------------
# Expiry: two hours of a project, the first with rows, the second emptied
# ---------------------------------------------------------------------------------------------------------------------

SOURCE = "{path: raw/%Y/%m/%d/%H*.jsonl, missing: empty, columns: {at: timestamptz!, id: long!, name: string}}"


def no_engine() -> "SparkSession":
    """Refuse: none of these hours has to run."""
    raise AssertionError


@dataclass
class Hours:
    """A project in the REST catalog, whose hours are written here rather than by an engine.

    Attributes:
        project: its hours are run for real, as far as they need no engine.
        lake: its table.
        server: the fault server before the catalog.
        near: the table through it.
    """

    project: Project
    lake: Lake
    server: FaultServer
    near: Lake

    def sealed(self, hour: HourWindow, ids: Sequence[int]) -> HourInHand:
        """Seal what a run of the hour as it is now would."""
        bench = self.project.bench()
        inputs = observe_inputs(bench.spec, bench.warehouse.files, hour)
        plan = plan_hour(bench.spec, hour, inputs, in_hand(self.lake, hour).held.record, None)
        return seal(self.near, opened(self.near, hour, source=plan.source, recipe=plan.recipe), ids)

    def expire(self, jvm: Jvm) -> None:
        """Let the JVM expire all snapshots but the last, with every file that only they reach."""
        self.lake.put(TWELVE, [7])
        call = "expire_snapshots(table => '{}', older_than => TIMESTAMP '2999-01-01', retain_last => 1)"
        jvm.sql(f"CALL {jvm.catalog}.system.{call.format(self.lake.identifier)}")
        assert len(self.lake.now.table.metadata.snapshots) == 1
        assert self.lake.missing() == set()


@pytest.fixture
def hours(seaweed: SeaweedServer, project: Project) -> Iterator[Hours]:
    """Give a project whose two hours have rows, and whose second hour's source is gone."""
    table = f"n{uuid.uuid4().hex[:8]}.events"
    project.write("lakehouse.yaml", f"catalog: {json.dumps(seaweed.catalog_properties())}\nengine: local[2]\n")
    project.describe({"table": table, "source": SOURCE})
    project.land(HOUR, [row(HOUR, 1)])
    project.session = no_engine
    bench = project.bench()
    with (
        bench.warehouse.catalog as catalog,
        fault_server(seaweed) as server,
        open_catalog(seaweed.catalog_properties() | {"uri": server.endpoint}) as near,
    ):
        bench.warehouse.create(bench.spec, columns(EVENTS))
        lake = Lake(catalog, table)
        lake.put(TEN, [0])
        lake.put(ELEVEN, [3])
        yield Hours(project, lake, server, Lake(near, table))


def test_finished_hours_are_skipped_after_the_jvms_expiry(jvm: Jvm, hours: Hours) -> None:
    """An hour with rows, and one that was emptied, are as finished without their snapshots as with them."""
    hours.sealed(TEN, [1, 2]).commit()
    assert hours.project.run(ELEVEN.key).step == "run"
    hours.expire(jvm)
    assert [hours.project.run(hour.key).step for hour in (TEN, ELEVEN)] == ["skip", "skip"]
    assert hours.lake.rows() == {TEN.key: [1, 2], TWELVE.key: [7]}


@pytest.mark.parametrize("ids", [[1, 2], []], ids=["rows", "no rows"])
def test_a_landed_attempt_is_recognised_after_the_jvms_expiry(jvm: Jvm, hours: Hours, ids: list[int]) -> None:
    """Landed and never acknowledged, its snapshot expired: the next run finds it, and commits nothing."""
    hour = TEN if ids else ELEVEN
    hand = hours.sealed(hour, ids)
    silence_after_landing(hours.server)
    with tries(), pytest.raises(CommitStateUnknownError):
        hand.commit()
    hours.expire(jvm)
    head = hours.lake.now.head
    result = hours.project.run(hour.key)
    assert (result.step, result.attempt, hours.lake.now.head) == ("resume", hand.attempt.id, head)
    expected = {TEN.key: ids, ELEVEN.key: [3]} if ids else {TEN.key: [0]}
    assert hours.lake.rows() == {**expected, TWELVE.key: [7]}
    assert (hours.lake.missing(), hours.project.run(hour.key).step) == (set(), "skip")
