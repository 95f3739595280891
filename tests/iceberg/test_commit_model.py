"""Any sequence of attempts, commits, foreign writes and rollbacks leaves the table that a dictionary says."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lakehouse_pipeline.errors import CommitConflictError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.iceberg.tables import open_catalog
from tests.iceberg.lake import TEN, Lake, events, hours_after

HOURS = hours_after(TEN, 3)
Files = frozenset[str]

hours = st.sampled_from(HOURS)
some_ids = st.lists(st.integers(0, 9), max_size=3)


@dataclass(frozen=True)
class State:
    """The table at one moment: rows and files by hour, of the hours that have any."""

    rows: dict[str, list[int]]
    files: dict[HourWindow, Files]

    def replaced(self, hour: HourWindow, ids: list[int], files: Files) -> "State":
        """Give the state with an hour replaced."""
        rows = {key: value for key, value in self.rows.items() if key != hour.key}
        others = {key: value for key, value in self.files.items() if key != hour}
        return State(rows | ({hour.key: sorted(ids)} if ids else {}), others | ({hour: files} if files else {}))


@dataclass(frozen=True)
class Open:
    """An attempt that is sealed and not yet committed."""

    sealed: SealedHour
    ids: list[int]
    opened_on: Files


class Commits(RuleBasedStateMachine):
    """A table and the dictionary that says what it must hold."""

    @initialize()
    def create(self) -> None:
        """Begin with an empty table."""
        self.folder = tempfile.TemporaryDirectory(prefix="commits-")
        folder = Path(self.folder.name)
        self.catalog = open_catalog(
            {"type": "sql", "uri": f"sqlite:///{folder}/c.db", "warehouse": f"file://{folder}/w"}
        )
        self.lake = Lake.create(self.catalog)
        self.state = State({}, {})
        self.history: dict[int, State] = {}
        self.attempts: list[Open] = []

    def teardown(self) -> None:
        """Close the catalog."""
        self.catalog.close()
        self.folder.cleanup()

    @rule(hour=hours, ids=some_ids)
    def open(self, hour: HourWindow, ids: list[int]) -> None:
        """Seal an attempt on what is live now."""
        self.attempts.append(Open(self.lake.seal(hour, ids), ids, self.state.files.get(hour, frozenset())))

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Commit an attempt, an old one or one that was committed before: only on the files it was opened on."""
        if not self.attempts:
            return
        attempt = data.draw(st.sampled_from(self.attempts))
        hour, live = attempt.sealed.hour, self.state.files.get(attempt.sealed.hour, frozenset())
        if live != attempt.opened_on:
            with pytest.raises(CommitConflictError):
                self.lake.replace(attempt.sealed)
            return
        replaced = self.lake.replace(attempt.sealed)
        assert (replaced.snapshot_id is None) == (not attempt.ids and not live)
        assert replaced.files_removed == len(live)
        self.state = self.state.replaced(hour, attempt.ids, frozenset(self.lake.files(hour)))
        assert all(attempt.sealed.attempt in path for path in self.lake.files(hour))

    @rule(ids=st.dictionaries(hours, some_ids.filter(bool), min_size=1))
    def append(self, ids: dict[HourWindow, list[int]]) -> None:
        """Let PyIceberg append to one or several hours, in one manifest."""
        self.lake.append(*(events(hour, numbers) for hour, numbers in ids.items()))
        for hour, numbers in ids.items():
            both = self.state.rows.get(hour.key, []) + numbers
            self.state = self.state.replaced(hour, both, frozenset(self.lake.files(hour)))

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        """Set `main` back to an earlier snapshot."""
        ancestors = {entry.snapshot_id for entry in self.lake.now.table.history()} & self.history.keys()
        if ancestors:
            snapshot_id = data.draw(st.sampled_from(sorted(ancestors)))
            self.lake.now.table.manage_snapshots().set_current_snapshot(snapshot_id).commit()
            self.state = self.history[snapshot_id]

    @invariant()
    def rows_and_files_are_the_models(self) -> None:
        """PyIceberg's reader sees the model's rows, and each hour's live files are the model's."""
        head = self.lake.now.head
        assert (self.lake.rows() if head else {}) == self.state.rows
        assert {hour: live for hour in HOURS if (live := frozenset(self.lake.files(hour)))} == self.state.files
        if head:
            self.history[head] = self.state

    @invariant()
    def totals_are_right(self) -> None:
        """The current summary counts the live records and files."""
        snapshot = self.lake.now.table.current_snapshot()
        if snapshot and snapshot.summary:
            totals = [int(snapshot.summary[f"total-{name}"] or 0) for name in ("records", "data-files")]
            files = sum(len(files) for files in self.state.files.values())
            assert totals == [sum(len(ids) for ids in self.state.rows.values()), files]

    @invariant()
    def nothing_is_missing(self) -> None:
        """What the snapshots reach is there, and metadata holds nothing beside it but the seals' manifests."""
        reached, metadata = self.lake.reached(), self.lake.stored("metadata")
        sealed = {manifest.path for attempt in self.attempts for manifest in attempt.sealed.seal.manifests}
        assert reached <= metadata | self.lake.stored("data")
        assert metadata - reached <= sealed


TestCommits = Commits.TestCase
TestCommits.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
