"""What the state machine has found (`tests/maintenance/test_life`), each with a name."""

import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.backfill.close import remove_left
from lakehouse_pipeline.iceberg.claims import Claim, claim, claims_in
from lakehouse_pipeline.ledger.records import Marker, new_attempt_id
from tests.backfill.hands import in_hand, opened, seal, sealed
from tests.crashes.flows import bring_back, clean, expire, left_open, rewrite_manifests, run
from tests.iceberg.conftest import catalog, lake
from tests.iceberg.lake import ELEVEN, TEN, Lake
from tests.maintenance.test_sweep import KilledError, killed_at

__all__ = ["catalog", "lake"]


def test_a_sealed_manifest_that_expired_before_its_commit_was_heard_of_goes(lake: Lake) -> None:
    """The run was killed as its commit landed; then manifests were written anew, and the snapshot expired."""
    run(lake, ELEVEN, [[7]])
    with pytest.raises(KilledError), events.subscribed(killed_at("commit.landed")):
        run(lake, TEN, [[1]])
    rewrite_manifests(lake)
    expire(lake)
    assert lake.unreached() != set()  # it may be committed anew, after a rollback
    run(lake, TEN, [[1]])
    assert lake.rows() == {TEN.key: [1], ELEVEN.key: [7]}
    assert lake.unreached() == set()


def test_an_hour_that_was_emptied_unheard_of_and_expired_is_not_given_up(lake: Lake) -> None:
    """Its attempt has no file to be known by: that the hour has none any more tells that it landed."""
    run(lake, TEN, [[1]])
    hand = seal(lake, opened(lake, TEN), [])
    with pytest.raises(KilledError), events.subscribed(killed_at("commit.landed")):
        hand.commit()
    run(lake, ELEVEN, [[7]])
    expire(lake)
    assert in_hand(lake, TEN).abandon("not wanted") is not None
    record = lake.now.ledger.hour(TEN).record
    assert (record.state, record.committed and record.committed.attempt) == ("idle", hand.attempt.id)
    assert lake.rows() == {ELEVEN.key: [7]}
    assert lake.unreached() == set()


def test_what_a_sweep_took_before_a_killed_expiry_was_finished_comes_back_by_a_restore(lake: Lake) -> None:
    """It is an orphan by then, and the next sweep's: the expiry is over, and its note is gone."""
    run(lake, TEN, [[1]])
    run(lake, TEN, [[2]])
    with pytest.raises(KilledError), events.subscribed(killed_at("expiry.committed")):
        expire(lake)
    expired = lake.unreached()
    assert len([url for url in expired if url.endswith(".parquet")]) == 1
    clean(lake)
    expire(lake)
    assert lake.unreached() == set()
    bring_back(lake)
    assert lake.unreached() == expired
    clean(lake, delete=True)
    assert lake.unreached() == set()
    assert lake.rows() == {TEN.key: [2]}


def test_a_claim_that_arrived_when_its_attempt_was_over_goes_with_the_next_attempt(lake: Lake) -> None:
    """Those of an attempt under way stay: its marker is there before them."""
    left_open(lake, TEN, [8], sealed=False)
    ledger, files = lake.now.ledger, lake.now.files
    (under_way,) = ledger.marks(TEN)
    claims = {attempt: ledger.claims_url(TEN, attempt) for attempt in (under_way, new_attempt_id(), new_attempt_id())}
    for folder in claims.values():
        claim(files, folder, Claim(replaces=("x",)))
    lake.now.withdraw_claims(TEN, list(claims)[1])
    assert {attempt for attempt, folder in claims.items() if claims_in(files, folder)} == {under_way}


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "in other manifests"])
def test_the_second_pass_of_an_attempt_took_the_manifest_by_which_an_expiry_finds_its_files(
    lake: Lake,
    replaced: bool,  # noqa: FBT001  # a table's column
) -> None:
    """It came between the expiry's commit and its removal of files: the data was left for a sweep. Live data stays."""
    run(lake, ELEVEN, [[7]])
    hand = sealed(lake, TEN, [1])
    with pytest.raises(KilledError), events.subscribed(killed_at("commit.sent")):
        hand.commit()
    hand = in_hand(lake, TEN)  # commits what another run has sealed, so that its closing looks for manifests, too
    hand.resume()
    attempt = hand.attempt
    hand.commit()
    seen = Marker(hour=TEN.key, attempt=attempt, closed=True, landed=True, sealed=True, epoch=attempt.epoch + 1)
    if replaced:
        run(lake, TEN, [[2]])
    else:
        rewrite_manifests(lake)

    def second_pass(event: events.Event) -> None:
        if event.name == "expiry.committed":
            remove_left(lake.now, seen)

    with events.subscribed(second_pass):
        expire(lake)
    assert [url for url in lake.unreached() if attempt.id in url] == []
    assert lake.missing() == set()
    assert lake.rows() == {TEN.key: [2 if replaced else 1], ELEVEN.key: [7]}
