"""The JVM's `remove_orphan_files` names what our sweep takes, and finds nothing to add where ours has been.

Tables are of a SQL catalog that the JVM knows nothing of. Those in a folder it knows by a copy of their newest metadata
file under the name that a Hadoop catalog looks for, and names their orphans by the procedure, `dry_run => true`. Those
in a plain bucket it loads from their metadata file; the procedure refuses ages below a day, and an object's age cannot
be made up, so that orphans are named by the action beneath it, with `prefix_listing`.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.iceberg.reachability import METADATA_FILE
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.maintenance.audit import SweepRules
from tests.backfill.hands import opened, sealed
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events, in_bucket
from tests.maintenance.test_sweep import DAY, HIDDEN, ORPHANS, RULES, audited, later, litter, swept, there, with_history
from tests.oracle.jvm import Jvm, s3_file_io

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1200)]  # the first test may have to install Spark

OLD_S = 4 * DAY.total_seconds()
FORGETS = {"write.metadata.previous-versions-max": "1", "write.metadata.delete-after-commit.enabled": "false"}


@pytest.fixture(params=["file", "s3"])
def stored(request: pytest.FixtureRequest, seaweed: SeaweedServer, tmp_path: Path) -> Iterator[Lake]:
    """Give an empty table of events by hour and name, in a folder and in a bucket."""
    bucket = f"s3://plain/{uuid.uuid4().hex}"
    warehouse = bucket if request.param == "s3" else f"file://{tmp_path}/w"
    place = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": warehouse}
    catalog = open_catalog({**place, **seaweed.s3_properties()})
    yield Lake.create(catalog, partition=["name"])
    catalog.close()


class Sweeper:
    """The JVM, which knows tables by their metadata files."""

    def __init__(self, jvm: Jvm, seaweed: SeaweedServer) -> None:
        """Describe it."""
        self._jvm = jvm
        self._io = s3_file_io(seaweed)

    def orphans(self, lake: Lake, rules: SweepRules) -> set[str]:
        """Name the files that it would remove by the same rules, and remove none."""
        assert rules.moment
        older_than = rules.moment - rules.older_than
        if lake.now.location.startswith("s3:"):  # where nothing can be made to look old
            return self._jvm.orphans(lake.now.metadata_url, older_than, io=self._io)
        with copied(lake) as name:
            rows = self._jvm.sql(
                f"CALL {self._hadoop(lake)}.system.remove_orphan_files(table => '{name}', "
                f"older_than => TIMESTAMP '{older_than:%Y-%m-%d %H:%M:%S}', dry_run => true)"
            )
        named = {row["orphan_file_location"].replace("file:/", "file:///", 1) for row in rows}
        return named - {lake.now.metadata_url}  # its copy is in its place

    def _hadoop(self, lake: Lake) -> str:
        """Name a Hadoop catalog that has the table's folder where the SQL catalog has it."""
        name = f"hadoop_{uuid.uuid4().hex[:12]}"
        warehouse = lake.now.location.rpartition("/")[0].rpartition("/")[0]
        told = {"": "org.apache.iceberg.spark.SparkCatalog", ".type": "hadoop", ".warehouse": warehouse}
        for key, value in told.items():
            self._jvm.sql(f"SET `spark.sql.catalog.{name}{key}`=`{value}`")
        return name


@contextmanager
def copied(lake: Lake) -> Iterator[str]:
    """Let a table be one of a Hadoop catalog, too, by a copy of its newest metadata file; gives its name there."""
    table = lake.now
    metadata = Path(f"{table.location.removeprefix('file://')}/metadata")
    first, hint = metadata / "v1.metadata.json", metadata / "version-hint.text"
    first.write_bytes(table.files.get(table.metadata_url).body)
    hint.write_text("1")
    try:
        yield lake.identifier
    finally:
        first.unlink()
        hint.unlink()


@pytest.fixture
def sweeper(jvm: Jvm, seaweed: SeaweedServer) -> Sweeper:
    """Give the JVM."""
    return Sweeper(jvm, seaweed)


def aged(lake: Lake) -> SweepRules:
    """Let all that lies in the table's folders be days old: by its own time, or by that of who asks."""
    if lake.now.location.startswith("s3:"):
        return replace(RULES, moment=later(lake))
    long_ago = time.time() - OLD_S
    for folder in ("data", "metadata", "."):
        for path in (Path(lake.now.location.removeprefix("file://")) / folder).rglob("*"):
            if path.is_file() and "_lakehouse" not in path.parts:
                os.utime(path, (long_ago, long_ago))
    return replace(RULES, moment=later(lake, timedelta(seconds=1)))


def killed(lake: Lake) -> set[str]:
    """Open an attempt, let it write, and let its run be gone; gives its files."""
    hand = opened(lake, ELEVEN, "killed run")
    written = lake.write(ELEVEN, [in_bucket(0, events(ELEVEN, [8, 9]))], hand.attempt.id)
    return {file.path for file in written}


def test_nothing_is_left_for_the_jvm_where_ledger_and_sweep_have_been(stored: Lake, sweeper: Sweeper) -> None:
    """After killed attempts were closed by name and files of a lost ledger swept, beside replaced hours and a tag."""
    lake = stored
    orphans = with_history(lake)  # replaced hours, a branch, a tag, statistics, an expired snapshot
    sealed(lake, TWELVE, [11]).commit()
    left = killed(lake)
    assert left <= there(lake)
    for _ in range(2):  # closed, and its second pass
        close_attempts(lake.now, lambda _run: True, grace=timedelta(0))
    assert left & there(lake) == set()
    lost = lake.seal(TEN, [12])  # of an attempt that no ledger knows
    orphans |= {url for url in there(lake) if lost.attempt in url}
    rules = aged(lake)
    before = lake.rows()
    assert sweeper.orphans(lake, rules) == orphans
    assert swept(lake, rules).files == len(orphans)
    assert sweeper.orphans(lake, rules) == set()
    assert lake.rows() == before
    assert lake.missing() == set()


def test_both_name_the_same_orphans(stored: Lake, sweeper: Sweeper) -> None:
    """Of others' files, of lost attempts and of expired snapshots; hidden folders are nobody's business."""
    lake = stored
    orphans = with_history(lake) | litter(lake, *ORPHANS)
    litter(lake, *HIDDEN)
    lost = lake.seal(ELEVEN, [10])
    orphans |= {url for url in there(lake) if lost.attempt in url}
    rules = aged(lake)
    named = sweeper.orphans(lake, rules)
    before = there(lake)
    assert audited(lake, rules).orphans.files == len(orphans)
    swept(lake, rules)
    assert named == before - there(lake) == orphans


def test_metadata_files_that_the_log_has_forgotten_are_orphans(stored: Lake, sweeper: Sweeper) -> None:
    """For both: what only the log of an older metadata file names is none of the table's."""
    lake = stored
    with lake.now.table.transaction() as change:
        change.set_properties(FORGETS)
    for hour in (TEN, ELEVEN, TWELVE):
        lake.put(hour, [1])
    logged = {lake.now.metadata_url, *(entry.metadata_file for entry in lake.now.table.metadata.metadata_log)}
    forgotten = {url for url in there(lake) if url.endswith(METADATA_FILE)} - logged
    assert forgotten
    rules, before = aged(lake), there(lake)
    assert sweeper.orphans(lake, rules) == forgotten
    swept(lake, rules)
    assert before - there(lake) == forgotten
    assert sweeper.orphans(lake, rules) == set()
    assert lake.rows() == {hour.key: [1] for hour in (TEN, ELEVEN, TWELVE)}
