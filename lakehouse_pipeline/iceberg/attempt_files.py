"""Every name that a file of an attempt can have, so that what a failed one left is found without listing the data.

Names are a function of the attempt, of how many buckets it had, of the layout that it was opened on, and of the paths
that its writers claimed. Within each row of names files are put one after the other: the first that is missing ends it,
unless the attempt was seen to go further before.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, count

from lakehouse_pipeline.iceberg import commit
from lakehouse_pipeline.iceberg.claims import Claim, paths_of
from lakehouse_pipeline.iceberg.replacement import manifest_copy_url, manifest_list_url
from lakehouse_pipeline.iceberg.seals import manifest_url
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.ledger.records import Attempt, Extent, Marker
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.side_by_side import side_by_side

HEADS_AT_ONCE = 16

Row = Iterator[str]


@dataclass(frozen=True)
class Put:
    """What is there of an attempt.

    Attributes:
        urls: in no order.
        extent: how far they go.
    """

    urls: tuple[str, ...]
    extent: Extent


@dataclass(frozen=True)
class AttemptFiles:
    """The names of one attempt.

    Attributes:
        attempt: whose.
        target: laid out as the attempt was.
        known_paths: partition paths that need no rows to tell.
        claims: what the names do not tell.
    """

    attempt: Attempt
    target: WriteTarget
    known_paths: Collection[str]
    claims: Sequence[Claim]

    @property
    def data_folder(self) -> str:
        """Where all data files of the table go, of whatever attempt."""
        return f"{self.target.locations.data_path}/"

    def put(self, files: LakehouseFileIO, marker: Marker) -> Put:
        """Find what is there; of a landed attempt, what may be there beside the files that it landed with.

        Raises:
            TransientError: the store did not answer.
        """
        seen = marker.seen
        again = {said.bucket for said in self.claims if said.again and said.bucket is not None}
        rows = self._data(again if marker.landed else None)
        found = side_by_side(lambda row: _files_put(files, row, seen), rows, HEADS_AT_ONCE)
        if marker.sealed:
            commits = side_by_side(
                lambda row: _put(files, row, seen.copies), self._commits(marker.epoch), HEADS_AT_ONCE
            )
            found += [(urls, Extent(copies=last)) for urls, last in commits]
        if not marker.landed:
            manifests, last = _put(files, self._manifests(), seen.manifests)
            found.append((manifests, Extent(manifests=last)))
        urls = chain.from_iterable(urls for urls, _ in found)
        return Put(tuple(urls), reduce(Extent.and_, (extent for _, extent in found), seen))

    def _manifests(self) -> Row:
        """Name the sealed manifests."""
        return (manifest_url(self.target.locations, self.attempt.id, place) for place in count())

    def _data(self, buckets: Collection[int] | None) -> Iterator[Iterator[Row]]:
        """Name the data files, of all buckets or of some: for each bucket and path, for each file, its tries."""
        for bucket in range(self.attempt.buckets) if buckets is None else sorted(buckets):
            paths = {*self.known_paths, *paths_of(self.claims, bucket)} if self.target.paths_in_keys else {""}
            for path in sorted(paths):
                yield self._files(bucket, path)

    def _commits(self, epoch: int) -> Iterator[Row]:
        """Name what commits and fences wrote, by all holders up to the one of an epoch."""
        places = max(len(self.attempt.bases) + commit.REGROUPS + 1, commit.COMMIT_RETRIES.tries)
        for holder in range(self.attempt.preparing, epoch + 1):
            for place in range(places):
                batch = commit.batch_name(batch_of(self.attempt.id, holder), place)
                yield iter([manifest_list_url(self.target.locations, batch)])
                yield self._copies(batch)
        for said in self.claims:
            for place in range(commit.COMMIT_RETRIES.tries if said.fence else 0):
                yield iter([manifest_list_url(self.target.locations, commit.batch_name(said.fence, place))])

    def _copies(self, batch: str) -> Row:
        return (manifest_copy_url(self.target.locations, batch, place) for place in count())

    def _files(self, bucket: int, path: str) -> Iterator[Row]:
        return (self._tries(bucket, file, path) for file in count())

    def _tries(self, bucket: int, file: int, path: str) -> Row:
        return (self.target.file_url(bucket, file, attempt_try, path) for attempt_try in count())


def _put(files: LakehouseFileIO, row: Row, seen: int) -> tuple[list[str], int]:
    """Find what is there of a row, up to the first that is missing behind `seen`; and how far it goes."""
    found, last = [], 0
    for place, url in enumerate(row):
        if files.head(url) is not None:
            found.append(url)
            last = place + 1
        elif place >= seen:
            break
    return found, last


def _files_put(files: LakehouseFileIO, row: Iterator[Row], seen: Extent) -> tuple[list[str], Extent]:
    """Do the same for a row of files, each of which has a row of tries."""
    found: list[str] = []
    extent = Extent()
    for place, tries in enumerate(row):
        urls, last = _put(files, tries, seen.tries)
        if urls:
            found += urls
            extent = extent.and_(Extent(files=place + 1, tries=last))
        elif place >= seen.files:
            break
    return found, extent


def batch_of(attempt: str, epoch: int) -> str:
    """Begin the names of what the holder of an epoch commits: no two holders of an attempt share them."""
    return f"{attempt}-{epoch}"
