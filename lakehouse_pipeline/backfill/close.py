"""Closing an attempt that never became part of the table: what it wrote is removed by name, without a listing.

The caller has made sure that no snapshot reaches them and that none ever can.
"""

import logging
from collections.abc import Iterator
from itertools import count, takewhile

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger import Attempt

logger = logging.getLogger(__name__)


def remove_files(table: HourlyTable, hour: HourWindow, attempt: Attempt) -> int:
    """Remove the manifests, the data files and the rejects of an attempt; gives how many there were.

    A bucket's files are put one after the other, and so are manifests and the tries at one name: the first that is
    missing ends the row.

    Raises:
        TransientError: the store did not answer; what is left is left.
    """
    target, files = table.target(hour, attempt.id, 0), table.files

    def there(urls: Iterator[str]) -> list[str]:
        return list(takewhile(lambda url: files.head(url) is not None, urls))

    found = there(table.manifest_url(attempt.id, place) for place in count())
    for bucket in range(attempt.buckets):
        for file in count():
            tries = there(target.file_url(bucket, file, attempt_try) for attempt_try in count())
            if not tries:
                break
            found += tries
    found += [item.url for item in files.list_objects(f"{table.ledger.rejects_url(hour, attempt.id)}/")]
    files.delete_objects(found)
    logger.info("%s: removed %d files of attempt %s", hour, len(found), attempt.id)
    return len(found)
