"""What stops the commit of a rewrite: files and deletes that it has not read; `oracle` has them of a JVM's."""

from dataclasses import replace
from typing import Any

import pytest

from lakehouse_pipeline.iceberg.commit_writing import writing_commit
from lakehouse_pipeline.iceberg.event_time import HourSpan
from lakehouse_pipeline.iceberg.manifests import DATA, EQUALITY_DELETES, POSITION_DELETES, LiveFile, digest
from lakehouse_pipeline.iceberg.replacement import _check_unchanged
from lakehouse_pipeline.iceberg.sealed_hours import HoursLostError, SealedHour
from lakehouse_pipeline.ledger.records import Rewrite
from tests.iceberg.lake import TEN, Lake

AS_OF, EARLIER = 5, 7  # the sequence number that was read; a partition spec that is not the seal's
HOUR = HourSpan(TEN.ordinal, TEN.ordinal, exact=True)


def live(path: str, content: int, number: int, **told: Any) -> LiveFile:
    """Describe a live file of the hour, of a sequence number."""
    return LiveFile(
        path=path,
        content=content,
        rows=1,
        bytes=1,
        sequence_number=number,
        **{"span": HOUR, "spec_id": 0, "partition": "p", **told},
    )


OLD, BESIDE = live("old", DATA, 3), live("beside", DATA, 4)


@pytest.fixture
def rewrite(lake: Lake) -> SealedHour:
    """Give an attempt that takes the place of one of the hour's two files."""
    told = Rewrite(as_of=AS_OF, live=digest([OLD.path, BESIDE.path]))
    return replace(lake.seal(TEN, [1]), replaces=digest([OLD.path]), rewrites=told, only=frozenset({OLD.path}))


def check(lake: Lake, rewrite: SealedHour, *left: LiveFile, old: LiveFile = OLD) -> None:
    """Hold an attempt against what is live beside the file that it takes the place of."""
    _check_unchanged(lake.now.table, [rewrite], [old], [BESIDE, *left])


@pytest.mark.parametrize(
    "younger",
    [
        pytest.param(live("new", DATA, 6), id="data"),
        pytest.param(live("delete", EQUALITY_DELETES, 6), id="deletes of equal rows, which go on applying"),
        pytest.param(live("delete", POSITION_DELETES, 6, refers_to="beside"), id="deletes of the file beside"),
    ],
)
def test_what_is_younger_is_no_obstacle(lake: Lake, rewrite: SealedHour, younger: LiveFile) -> None:
    """What came since stays beside the new files, and does to them what it did to the old one."""
    check(lake, rewrite, younger)


def test_files_of_that_age_that_came_since(lake: Lake, rewrite: SealedHour) -> None:
    """They were not live when the others were read, and are again after a rollback: deletes may be among them."""
    with pytest.raises(HoursLostError, match="it has other files of that age than it had"):
        check(lake, rewrite, live("back", POSITION_DELETES, 4, refers_to="old"))


@pytest.mark.parametrize("refers_to", ["old", ""], ids=["of the file", "of whichever"])
def test_deletes_that_came_since(lake: Lake, rewrite: SealedHour, refers_to: str) -> None:
    """Places in a file that is written anew are other rows then: who was deleted would be back."""
    with pytest.raises(HoursLostError, match="rows of the files that it rewrites may have been deleted"):
        check(lake, rewrite, live("delete", POSITION_DELETES, 6, refers_to=refers_to))


def test_deletes_of_an_earlier_spec_that_came_since(lake: Lake, rewrite: SealedHour) -> None:
    """They are of files of that spec alone: what is written for the current one would keep the rows."""
    earlier = replace(OLD, spec_id=EARLIER)
    check(lake, rewrite, old=earlier)
    with pytest.raises(HoursLostError, match="rows of files of an earlier partition spec may have been deleted"):
        check(lake, rewrite, live("delete", EQUALITY_DELETES, 6, spec_id=EARLIER), old=earlier)


def test_deletes_of_several_hours_that_may_apply_again(lake: Lake, rewrite: SealedHour) -> None:
    """One that is to go with a rewrite stays while a file is there whose rows it may take."""
    lake.put(TEN, [1])
    (file,) = lake.now.live(TEN)
    far = live(
        "far",
        EQUALITY_DELETES,
        6,
        span=HourSpan(0, TEN.ordinal, exact=True),
        spec_id=file.spec_id,
        partition=file.partition,
    )
    taking = replace(rewrite, only=frozenset({OLD.path, far.path}))
    with writing_commit(lake.now.table, "batch") as writing:
        writing.check_far_deletes([taking], [OLD, far, file])  # which goes, too
        with pytest.raises(HoursLostError, match=f"far may apply to {file.path} again"):
            writing.check_far_deletes([taking], [OLD, far])
