from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.ledger.records import Committed, HourRecord, Rewrite
from tests.backfill.hands import new_attempt
from tests.iceberg.lake import ELEVEN, TEN, TWELVE, Lake, events


def read(lake: Lake) -> str:
    """Give the digest of an hour's live files as its manifests tell."""
    return digest(file.path for file in lake.now.live(TEN))


def told(lake: Lake, *sealed: SealedHour) -> str | None:
    """Give the digest as the manifest list tells, if it does."""
    return lake.now.as_sealed({TEN: [each.seal for each in sealed]}).get(TEN)


def test_an_hour_that_nobody_changed_is_told_without_its_manifests(lake: Lake) -> None:
    """Its manifests may even be gone; other hours, of the same snapshot and of later ones, make no difference."""
    sealed = lake.seal(TEN, [1, 2])
    lake.replace(sealed, lake.seal(ELEVEN, [3]))
    lake.put(TWELVE, [4])
    before = read(lake)
    for manifest in sealed.seal.manifests:
        Path(manifest.path.removeprefix("file://")).unlink()
    assert told(lake, sealed) == before


def test_an_empty_hour_is_as_sealed(lake: Lake) -> None:
    """A seal of no files is told from no manifest being near."""
    sealed = lake.seal(TEN, [])
    lake.put(ELEVEN, [1])
    assert told(lake, sealed) == read(lake) == digest([])


def test_of_several_seals_the_one_that_landed_is_told(lake: Lake) -> None:
    """An attempt whose commit was lost may have landed or not."""
    first, second = lake.seal(TEN, [1]), lake.seal(TEN, [2])
    lake.replace(first)
    assert told(lake, second, first) == first.seal.digest == read(lake)


CHANGES: dict[str, Callable[[Lake], object]] = {
    "appended to": lambda lake: lake.append(events(TEN, [9])),
    "appended to with others": lambda lake: lake.append(events(TEN, [9]), events(ELEVEN, [8])),
    "replaced": lambda lake: lake.put(TEN, [9]),
    "emptied": lambda lake: lake.put(TEN, []),
    "deleted from": lambda lake: lake.now.table.delete("id = 1"),
    "deleted": lambda lake: lake.now.table.delete("id > 0"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_hour_that_somebody_changed_is_read(lake: Lake, change: Callable[[Lake], object]) -> None:
    """Whatever was done to it, nothing is told of its old seal."""
    sealed = lake.seal(TEN, [1, 2])
    lake.replace(sealed, lake.seal(ELEVEN, [3]))
    change(lake)
    assert told(lake, sealed) is None
    assert read(lake) != sealed.seal.digest


def test_an_hour_beside_files_of_several_hours_is_read(lake: Lake) -> None:
    """A manifest that other hours share may have files of it: only reading it tells that it has none."""
    sealed = lake.seal(TEN, [1])
    lake.replace(sealed)
    earlier = HourWindow.from_ordinal(TEN.ordinal - 1)
    lake.append(events(earlier, [7]), events(ELEVEN, [8]))
    assert told(lake, sealed) is None
    assert read(lake) == sealed.seal.digest


def test_a_rewrites_seal_tells_nothing(lake: Lake) -> None:
    """Its digest is of files that it has left where they were, too: where these are gone, nothing near it says so."""
    seal = lake.seal(TEN, [1]).seal
    at = datetime(2026, 1, 1, tzinfo=UTC)
    committed = Committed(attempt="A", at=at, snapshot_id=1, source="", recipe="", seal=seal)
    attempt = new_attempt(lake.now, TEN).model_copy(update={"seal": seal})
    assert HourRecord(hour=TEN.key, committed=committed, attempt=attempt).seals == (seal, seal)
    rewritten = committed.model_copy(update={"rewritten": True})
    rewriting = attempt.model_copy(update={"rewrites": Rewrite(as_of=1, live="")})
    assert HourRecord(hour=TEN.key, committed=rewritten, attempt=rewriting).seals == ()
