"""`lakehouse commit` and `lakehouse abandon`: sealed attempts by hand, without Dagster and without an engine."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lakehouse_pipeline.backfill.leftovers import close_attempts
from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.errors import TransientError
from lakehouse_pipeline.iceberg import commit as commit_loop
from lakehouse_pipeline.ledger import leases
from lakehouse_pipeline.retry import RetryPolicy
from tests.projects import HOUR, NEXT, Project, row, strays

pytestmark = pytest.mark.usefixtures("sail")  # no claim here is about an engine


def command(project: Project, *words: str) -> Result:
    """Run a command as somebody types it."""
    return CliRunner().invoke(main, [words[0], "events", *words[1:], "-c", str(project.folder / "lakehouse.yaml")])


@pytest.fixture
def sealed(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project with a table and one hour whose run ended before its commit, its lease over."""

    def away(*_: object) -> None:
        raise TransientError("the store is away")

    project.land(NEXT, [row(NEXT, 5)])
    project.run(NEXT)
    project.land(HOUR, [row(HOUR, 1), row(HOUR, 2)])
    with monkeypatch.context() as patched:
        patched.setattr(commit_loop, "COMMIT_RETRIES", RetryPolicy(1, 1, 0, 0))
        patched.setattr(commit_loop, "build_replacement", away)
        with pytest.raises(TransientError):
            project.run()
    monkeypatch.setattr("lakehouse_pipeline.backfill.close.LEASE", -leases.LEASE)
    return project


def test_a_sealed_attempt_is_committed_by_hand(sealed: Project) -> None:
    """Its hour is then as if its run had gone on; a second call finds nothing to do."""
    attempt = sealed.record().attempt
    assert attempt is not None
    done = command(sealed, "commit", "--json")
    assert done.exit_code == 0
    (told,) = json.loads(done.output)["attempts"]
    assert (told["attempt"], told["rows"], told["committed"]) == (attempt.id, 2, True)
    assert (sealed.ids(HOUR), sealed.ids(NEXT), strays(sealed.table)) == ([1, 2], [5], set())
    assert command(sealed, "commit").output == "events: no attempt waits for its commit\n"
    assert sealed.run().step == "skip"


def test_of_another_hour_nothing_is_committed(sealed: Project) -> None:
    """`--hour` means that hour alone."""
    assert command(sealed, "commit", "--hour", NEXT).output == "events: no attempt waits for its commit\n"
    assert sealed.ids(HOUR) == []


def test_what_a_run_holds_is_left_to_it(sealed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the lease goes on, the command refuses, and says for whom and how long."""
    monkeypatch.setattr("lakehouse_pipeline.backfill.close.LEASE", leases.LEASE)
    done = command(sealed, "commit")
    assert done.exit_code == 1
    assert "SafetyError: 2013-01-01-10:00 is held by run run, which was there" in done.output
    refused = command(sealed, "abandon", "--hour", HOUR)
    assert (refused.exit_code, "is held by run run" in refused.output) == (3, True)


def test_missing_files_are_not_committed(sealed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that somebody removed since, or cut, are named; the table stays as it is, and the hour can run again."""
    (data,) = [name for name in sealed.files() if f"at_hour={HOUR[:13]}" in name]
    root = sealed.folder / "warehouse/lake/events/data"
    Path(root / data).write_bytes(b"PAR1")
    attempt = sealed.record().attempt
    assert attempt is not None
    done = command(sealed, "commit")
    assert (done.exit_code, "1 of its files are gone or changed" in done.output) == (1, True)
    assert sealed.ids(HOUR) == []
    monkeypatch.setattr("lakehouse_pipeline.backfill.close.LEASE", leases.LEASE)
    assert sealed.run().attempt != attempt.id
    assert sealed.ids(HOUR) == [1, 2]
    close_attempts(sealed.table, lambda _run_id: True, grace=-leases.LEASE)
    assert strays(sealed.table) == set()


def test_an_abandoned_attempt_leaves_nothing(sealed: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """First shown, then done: its files are gone, the record says why, and the hour runs again."""
    shown = command(sealed, "abandon", "--hour", HOUR, "--dry-run")
    assert "with 2 rows in 1 file would be abandoned" in shown.output
    assert sealed.record().state == "sealed"
    assert "is abandoned" in command(sealed, "abandon", "--hour", HOUR).output
    record = sealed.record()
    assert (record.state, record.outcome and record.outcome.kind) == ("idle", "abandoned")
    assert command(sealed, "why", HOUR).output.endswith(f"\nNow: lakehouse backfill events {HOUR}\n")
    assert strays(sealed.table) == set()
    monkeypatch.setattr("lakehouse_pipeline.backfill.close.LEASE", leases.LEASE)
    assert (sealed.run().step, sealed.ids(HOUR)) == ("run", [1, 2])


def test_there_has_to_be_a_sealed_attempt(sealed: Project) -> None:
    """An hour without one is refused by name."""
    done = command(sealed, "abandon", "--hour", NEXT)
    assert (done.exit_code, done.output) == (
        3,
        "SafetyError: 2013-01-01-11:00 has no sealed attempt: there is nothing to abandon\n",
    )
