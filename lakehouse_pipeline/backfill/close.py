"""Closing an attempt that never became part of the table: its files are removed by name, without a listing.

The caller has made sure that no snapshot reaches them and that none ever can.
"""

import logging
from itertools import count

from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.hourly import HourlyTable
from lakehouse_pipeline.ledger import Attempt

logger = logging.getLogger(__name__)


def remove_files(table: HourlyTable, hour: HourWindow, attempt: Attempt) -> int:
    """Remove the data files and the rejects of an attempt; gives how many there were.

    A bucket's files are put one after the other, and so are the tries at one name: the first that is missing ends
    the row.

    Raises:
        TransientError: the store did not answer; what is left is left.
    """
    target, files = table.target(hour, attempt.id, 0), table.files
    found = []
    for bucket in range(attempt.buckets):
        for file in count():
            urls = []
            for attempt_try in count():
                url = target.file_url(bucket, file, attempt_try)
                if files.head(url) is None:
                    break
                urls.append(url)
            if not urls:
                break
            found += urls
    found += [item.url for item in files.list_objects(f"{table.ledger.rejects_url(hour, attempt.id)}/")]
    files.delete_objects(found)
    logger.info("%s: removed %d files of attempt %s", hour, len(found), attempt.id)
    return len(found)


def remove_manifests(table: HourlyTable, attempt: Attempt) -> None:
    """Remove the manifests that a seal wrote."""
    if attempt.seal:
        table.files.delete_objects([manifest.path for manifest in attempt.seal.manifests])
