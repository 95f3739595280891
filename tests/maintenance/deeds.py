"""What workers do in tests, well or not. They import it wherever they are, so that it imports little itself."""

import time
from pathlib import Path

from lakehouse_pipeline.engines.workers import check_wanted
from lakehouse_pipeline.errors import DataError
from lakehouse_pipeline.maintenance.rewrite import GroupTask, ProofError, Rewritten, rewrite_group
from tests.iceberg.lake import ELEVEN, TEN


class TwoWordsError(DataError):
    """An error that pickle cannot make again: it is made of more than its words."""

    def __init__(self, hour: str, number: int) -> None:
        """Name both."""
        super().__init__(f"{hour} and {number}")


def proves_wrong(task: GroupTask) -> Rewritten:
    """Fail one hour when all of it is written."""
    done = rewrite_group(task)
    if task.hour == str(TEN):
        raise ProofError("the rows are others")
    return done


def meets_bad_data(task: GroupTask) -> Rewritten:
    """Fail one hour, and say where."""
    done = rewrite_group(task)
    if task.hour == str(TEN):
        raise TwoWordsError("ten", 7)
    return done


def has_a_defect(task: GroupTask) -> Rewritten:
    """Fail with what is no error of ours."""
    rewrite_group(task)
    raise KeyError(task.hour)


def is_slow(task: GroupTask) -> Rewritten:
    """Write one hour at once, and the other some time later."""
    if task.hour == str(ELEVEN):
        time.sleep(1)
    return rewrite_group(task)


def beats(file: Path) -> None:
    """Show that it is at work, for long."""
    for _ in range(60_000):
        check_wanted()
        with file.open("a") as signs:
            signs.write(".")
        time.sleep(0.001)
