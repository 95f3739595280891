"""Hours in hand without an engine: attempts of a lake's hours, opened, written, sealed and taken over as runs do it."""

from collections.abc import Sequence
from datetime import UTC, datetime

from lakehouse_pipeline.backfill.attempts import HourInHand
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.ledger.records import Attempt, new_attempt_id
from tests.iceberg.lake import Lake, events, in_bucket

OPENED_AT = datetime(2026, 1, 1, tzinfo=UTC)


def in_hand(lake: Lake, hour: HourWindow, run_id: str = "another run") -> HourInHand:
    """Read an hour's record, as another process would."""
    table = lake.now
    return HourInHand(table, hour, table.ledger.hour(hour), run_id)


def new_attempt(
    table: HourlyTable, hour: HourWindow, *, buckets: int = 1, remote: bool = False, **told: str
) -> Attempt:
    """Make an attempt on what the hour has now; who opens it says whose it is, and `told` what it is made from."""
    return Attempt(
        id=new_attempt_id(),
        run_id="",
        opened_at=OPENED_AT,
        opened_on=table.head,
        replaces=digest(file.path for file in table.live(hour)),
        buckets=buckets,
        remote=remote,
        layout=table.layout,
        named=True,
        **{"source": "s", "recipe": "r", **told},
    )


def opened(lake: Lake, hour: HourWindow, run_id: str = "run", *, source: str = "s", recipe: str = "r") -> HourInHand:
    """Open an attempt; a sealed one that is in its place is given up, as by a run that asks for other rows."""
    hand = in_hand(lake, hour, run_id)
    if hand.held.record.state in {"sealed", "committing", "aborting"}:
        assert hand.abandon("other rows are asked for") is None
    attempt = new_attempt(hand.table, hour, source=source, recipe=recipe)
    if superseded := hand.open(attempt):
        hand.close_superseded(superseded)
    return hand


def seal(lake: Lake, hand: HourInHand, ids: Sequence[int]) -> HourInHand:
    """Write and seal an attempt that makes these events of the hour; none of them empty it."""
    attempt = hand.attempt.id
    written = lake.write(hand.hour, [in_bucket(0, events(hand.hour, ids))], attempt) if ids else []
    try:
        hand.seal(hand.table.seal(attempt, written, rows_read=None, rejected=0))
    except BaseException as error:
        hand.close(error)
        raise
    return hand


def sealed(lake: Lake, hour: HourWindow, ids: Sequence[int], run_id: str = "run") -> HourInHand:
    """Open, write and seal an attempt."""
    return seal(lake, opened(lake, hour, run_id), ids)
