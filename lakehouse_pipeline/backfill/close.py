"""Closing an attempt that never became part of the table: what it wrote is removed by name, without a listing.

The caller has made sure that no snapshot reaches them and that none ever can.
"""

import logging
from collections.abc import Iterator
from itertools import count, takewhile

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.ledger import Attempt

logger = logging.getLogger(__name__)


def remove_files(table: HourlyTable, hour: HourWindow, attempt: Attempt, *, final: bool = True) -> int:
    """Remove the manifests, the data files and the rejects of an attempt; gives how many there were.

    With `final=False` its claims stay, since tasks of it may still write and it is to be removed once more.

    A bucket's files at a partition path are put one after the other, and so are manifests and the tries at one name:
    the first that is missing ends the row.

    Raises:
        TransientError: the store did not answer; what is left is left.
    """
    files = table.files

    def there(urls: Iterator[str]) -> list[str]:
        return list(takewhile(lambda url: files.head(url) is not None, urls))

    found = there(table.manifest_url(attempt.id, place) for place in count())
    for row in _file_names(table, hour, attempt):
        for tries in row:
            put = there(tries)
            if not put:
                break
            found += put
    found += [item.url for item in files.list_objects(f"{table.ledger.rejects_url(hour, attempt.id)}/")]
    files.delete_objects(found)
    if final:
        table.withdraw_claims(hour, attempt.id)  # last: until then they say where the files are
    logger.info("%s: removed %d files of attempt %s", hour, len(found), attempt.id)
    return len(found)


def _file_names(table: HourlyTable, hour: HourWindow, attempt: Attempt) -> Iterator[Iterator[Iterator[str]]]:
    """Give the names that data files of an attempt can have: for each bucket and path, for each file, its tries."""
    target, paths = table.target(hour, attempt.id, 0), table.partition_paths(hour, attempt.id)
    for bucket in range(attempt.buckets):
        for path in sorted(paths(bucket)) if target.paths_in_keys else [""]:
            yield (_tries(target, bucket, file, path) for file in count())


def _tries(target: WriteTarget, bucket: int, file: int, path: str) -> Iterator[str]:
    return (target.file_url(bucket, file, attempt_try, path) for attempt_try in count())
