"""Every name that a file of an attempt can have, so that what a failed one left is found without listing the data.

Names are a function of the attempt, of how many buckets it had, of the layout that it was opened on, and of the paths
that its writers claimed. Within each row of names files are put one after the other: the first that is missing ends it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count, takewhile

from lakehouse_pipeline.iceberg.claims import Claim, paths_of
from lakehouse_pipeline.iceberg.commit import batch_name
from lakehouse_pipeline.iceberg.replacement import manifest_copy_url, manifest_list_url
from lakehouse_pipeline.iceberg.seals import manifest_url
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.ledger.records import Attempt
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO

LOOKS_AT_ONCE = 16  # HEADs
FENCES = 8  # commits that one holder builds to move `main`: a rival that wins moves it, too, so that one or two do

Row = Iterator[str]


@dataclass(frozen=True)
class AttemptFiles:
    """The names of one attempt.

    Attributes:
        attempt: whose.
        target: laid out as the attempt was.
        known_paths: partition paths that need no rows to tell.
        claims: what the writers said.
    """

    attempt: Attempt
    target: WriteTarget
    known_paths: Collection[str]
    claims: Sequence[Claim]

    @property
    def again(self) -> set[int]:
        """The buckets that were written more than once."""
        return {said.bucket for said in self.claims if said.again}

    def manifests(self) -> Row:
        """Name the sealed manifests."""
        return (manifest_url(self.target.locations, self.attempt.id, place) for place in count())

    def data(self) -> Iterator[Iterator[Row]]:
        """Name the data files: for each bucket and path, for each file, its tries."""
        return self.data_of(range(self.attempt.buckets))

    def data_of(self, buckets: Collection[int]) -> Iterator[Iterator[Row]]:
        """Name the data files of some buckets."""
        for bucket in sorted(buckets):
            for path in (
                sorted({*self.known_paths, *paths_of(self.claims, bucket)}) if self.target.paths_in_keys else [""]
            ):
                yield self._files(bucket, path)

    @property
    def data_folder(self) -> str:
        """Where all data files of the table go, of whatever attempt."""
        return f"{self.target.locations.data_path}/"

    def commits(self, epoch: int) -> Iterator[Row]:
        """Name what commits and fences wrote, by all holders up to the one of an epoch."""
        places = max(len(self.attempt.bases) + 1, FENCES)
        for holder in range(self.attempt.epoch, epoch + 1):
            for place in range(places):
                batch = batch_name(batch_of(self.attempt.id, holder), place)
                yield iter([manifest_list_url(self.target.locations, batch)])
                yield self._copies(batch)

    def _copies(self, batch: str) -> Row:
        return (manifest_copy_url(self.target.locations, batch, place) for place in count())

    def _files(self, bucket: int, path: str) -> Iterator[Row]:
        return (self._tries(bucket, file, path) for file in count())

    def _tries(self, bucket: int, file: int, path: str) -> Row:
        return (self.target.file_url(bucket, file, attempt_try, path) for attempt_try in count())


def put_rows(files: LakehouseFileIO, rows: Iterable[Row]) -> list[str]:
    """Find what is there of rows of names."""

    def there(row: Row) -> list[str]:
        return list(takewhile(lambda url: files.head(url) is not None, row))

    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        return list(chain.from_iterable(pool.map(there, rows)))


def put_files(files: LakehouseFileIO, rows: Iterable[Iterator[Row]]) -> list[str]:
    """Find what is there of rows of files, each with its tries: a file that has none ends its row."""

    def there(row: Iterator[Row]) -> list[str]:
        tries = (list(takewhile(lambda url: files.head(url) is not None, each)) for each in row)
        return [url for urls in takewhile(bool, tries) for url in urls]

    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        return list(chain.from_iterable(pool.map(there, rows)))


def batch_of(attempt: str, epoch: int) -> str:
    """Begin the names of what the holder of an epoch commits: no two holders of an attempt share them."""
    return f"{attempt}-{epoch}"
