"""What a table keeps: Iceberg's rules, by cases."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lakehouse_pipeline.errors import ConfigurationError, SafetyError
from lakehouse_pipeline.iceberg.history import History, RefSeen, SnapshotSeen
from lakehouse_pipeline.maintenance.expiry import ExpiryPlan, plan_expiry
from lakehouse_pipeline.maintenance.retention import ALONE, AMONG_LAST, HEAD, YOUNG

DAY_MS = 24 * 3600 * 1000
NOW = datetime(2026, 1, 31, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)

# Snapshots 1 to 6 of `main` are 10, 8, 6, 4, 2 and 0 days old; 7 is of another line, which leaves `main` at 2; 8 is of
# none, and young; 9 is of none, and old. All of it in days.
AGES = {1: 10, 2: 8, 3: 6, 4: 4, 5: 2, 6: 0, 7: 7, 8: 1, 9: 9}
PARENTS = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 2}
MAIN = RefSeen("main", 6)
PREFIXES = {"expire": "history.expire.", "gc": "gc."}


def plan(*refs: RefSeen, age: timedelta | None = None, **properties: Any) -> ExpiryPlan:
    """Plan the expiry of that table with these refs, beside `main` if they have none of this name."""
    snapshots = [SnapshotSeen(number, PARENTS.get(number), NOW_MS - AGES[number] * DAY_MS) for number in AGES]
    every = refs if any(ref.name == "main" for ref in refs) else (MAIN, *refs)
    named = {
        PREFIXES[name.partition("_")[0]] + name.partition("_")[2].replace("_", "-"): said
        for name, said in properties.items()
    }
    return plan_expiry(History("n.events", "m.json", tuple(snapshots), every, named), age, NOW)


def days(number: int) -> str:
    """Write days as a property."""
    return str(number * DAY_MS)


CASES: Mapping[str, tuple[tuple[RefSeen, ...], dict[str, Any], set[int], set[str]]] = {
    "iceberg's five days": ((), {}, {4, 5, 6, 8}, set()),
    "the lakehouse's age": ((), {"age": timedelta(days=3)}, {5, 6, 8}, set()),
    "the table's age before the lakehouse's": (
        (),
        {"age": timedelta(days=3), "expire_max_snapshot_age_ms": days(7)},
        {3, 4, 5, 6, 7, 8},
        set(),
    ),
    "as old as the age is kept": ((), {"expire_max_snapshot_age_ms": days(6)}, {3, 4, 5, 6, 8}, set()),
    "no age at all keeps the head": ((), {"expire_max_snapshot_age_ms": "0"}, {6}, set()),
    "the last four": (
        (),
        {"expire_max_snapshot_age_ms": days(1), "expire_min_snapshots_to_keep": "4"},
        {3, 4, 5, 6, 8},
        set(),
    ),
    "the last of more than there are": ((), {"expire_min_snapshots_to_keep": "100"}, {1, 2, 3, 4, 5, 6, 8}, set()),
    "a tag": ((RefSeen("v1", 1, is_branch=False),), {}, {1, 4, 5, 6, 8}, set()),
    "a branch keeps its head, and not what is behind it": ((RefSeen("b", 7),), {}, {7, 4, 5, 6, 8}, set()),
    "a branch with an age of its own": (
        (RefSeen("b", 7, max_snapshot_age_ms=8 * DAY_MS),),
        {},
        {7, 2, 4, 5, 6, 8},
        set(),
    ),
    "a branch with a number of its own": (
        (RefSeen("b", 7, min_snapshots_to_keep=3),),
        {},
        {7, 2, 1, 4, 5, 6, 8},
        set(),
    ),
    "main's own": (
        (RefSeen("main", 6, max_snapshot_age_ms=DAY_MS, min_snapshots_to_keep=2),),
        {"expire_min_snapshots_to_keep": "4"},
        {5, 6, 8},
        set(),
    ),
    "a tag that is too old goes, and its snapshot": (
        (RefSeen("v1", 1, is_branch=False, max_ref_age_ms=9 * DAY_MS),),
        {},
        {4, 5, 6, 8},
        {"v1"},
    ),
    "a tag as old as it may be": (
        (RefSeen("v1", 1, is_branch=False, max_ref_age_ms=10 * DAY_MS),),
        {},
        {1, 4, 5, 6, 8},
        set(),
    ),
    "the table's age of refs": (
        (RefSeen("v1", 1, is_branch=False), RefSeen("b", 7), RefSeen("v5", 5, is_branch=False)),
        {"expire_max_ref_age_ms": days(3)},
        {4, 5, 6, 8},
        {"v1", "b"},
    ),
    "a ref's own age before the table's": (
        (RefSeen("v1", 1, is_branch=False, max_ref_age_ms=11 * DAY_MS),),
        {"expire_max_ref_age_ms": days(3)},
        {1, 4, 5, 6, 8},
        set(),
    ),
    "main is never too old": (
        (RefSeen("main", 2, max_ref_age_ms=DAY_MS),),
        {"expire_max_ref_age_ms": days(1)},
        {2, 4, 5, 6, 8},  # what left `main` is of no branch any more, and young
        set(),
    ),
    "a branch that is gone keeps nothing, but what is young is of no branch then": (
        (RefSeen("main", 3), RefSeen("b", 5, max_ref_age_ms=DAY_MS)),
        {},
        {3, 4, 5, 6, 8},
        {"b"},
    ),
    "a ref to a snapshot that is not there": (
        (RefSeen("lost", 99, is_branch=False),),
        {},
        {4, 5, 6, 8},
        {"lost"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_kept(case: str) -> None:
    """Snapshots and refs, and nothing beside them; each that stays has a reason, and is told once."""
    refs, told, kept, refs_removed = CASES[case]
    retention = plan(*refs, **told).retention
    assert [each.snapshot_id for each in retention.kept] == sorted(kept)
    assert set(retention.expired) == set(AGES) - kept
    assert {ref.name for ref in retention.refs_removed} == refs_removed


def test_a_branch_ends_at_the_first_that_is_too_old() -> None:
    """However young its parents say that they are: clocks of several writers differ."""
    snapshots = (
        SnapshotSeen(1, None, NOW_MS),
        SnapshotSeen(2, 1, NOW_MS - 9 * DAY_MS),
        SnapshotSeen(3, 2, NOW_MS - DAY_MS),
    )
    history = History("n.events", "m.json", snapshots, (RefSeen("main", 3),), {})
    assert plan_expiry(history, None, NOW).retention.expired == (1, 2)


def test_reasons_are_told() -> None:
    """By the ref that keeps a snapshot; heads and tags come first."""
    told = plan(RefSeen("v1", 1, is_branch=False), RefSeen("b", 7, min_snapshots_to_keep=2))
    why = {each.snapshot_id: (each.why, each.ref) for each in told.retention.kept}
    assert why == {
        1: (HEAD, "tag v1"),
        2: (AMONG_LAST, "branch b"),
        4: (YOUNG, "branch main"),
        5: (YOUNG, "branch main"),
        6: (HEAD, "branch main"),
        7: (HEAD, "branch b"),
        8: (ALONE, ""),
    }
    assert told.reasons[YOUNG, "branch main"] == 2


@pytest.mark.parametrize("said", ["false", "False", "no"])
def test_files_that_others_may_own(said: str) -> None:
    """A table that says so is refused, as the JVM does: whatever is not true is false."""
    with pytest.raises(SafetyError, match=r"gc\.enabled is "):
        plan(gc_enabled=said)


@pytest.mark.parametrize(
    "name", ["expire_max_snapshot_age_ms", "expire_min_snapshots_to_keep", "expire_max_ref_age_ms"]
)
def test_properties_that_are_no_numbers(name: str) -> None:
    """They are named."""
    with pytest.raises(ConfigurationError, match=r"history\.expire\.m.* is '5d'"):
        plan(**dict[str, Any]({name: "5d"}))
