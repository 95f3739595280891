"""Every name that a file of an attempt can have, so that what a failed one left is found without listing the data.

Names are a function of the attempt, of how many buckets it had, of the layout that it was opened on, and of what its
writers claimed: of data files there are no others, so that they are removed without being asked for. Manifests are
asked for, and data files of attempts that an earlier version opened. Within each row of such names files are put one
after the other: the first that is missing ends it, unless the attempt was seen to go further before.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, count, product

from lakehouse_pipeline.iceberg import commit
from lakehouse_pipeline.iceberg.borders import check_inside
from lakehouse_pipeline.iceberg.claims import Claim
from lakehouse_pipeline.iceberg.commit_writing import manifest_copy_url, manifest_list_url
from lakehouse_pipeline.iceberg.seals import manifest_url
from lakehouse_pipeline.iceberg.write_target import WriteTarget
from lakehouse_pipeline.ledger.records import Attempt, Extent, Marker
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.side_by_side import side_by_side

HEADS_AT_ONCE = 16

Row = Iterator[str]


@dataclass(frozen=True)
class Put:
    """What may be there of an attempt.

    Attributes:
        named: data files that were not asked for, and need not be there.
        data: data files that are there, of an attempt whose files are not all named.
        metadata: manifests and manifest lists that are there.
        extent: how far those that are there go.
    """

    named: tuple[str, ...]
    data: tuple[str, ...]
    metadata: tuple[str, ...]
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
        """Find what may be there; of a landed attempt, what may be there beside the files that it landed with.

        Raises:
            SafetyError: something claimed leads out of the table's folders.
            TransientError: the store did not answer.
        """
        seen = marker.seen
        several = {said.bucket for said in self.claims if said.is_of_several and said.bucket is not None}
        buckets = several if marker.landed else None
        named = dict.fromkeys(self._named(buckets)) if self.attempt.named else ()
        rows = () if self.attempt.named else self._data(buckets)
        data = side_by_side(lambda row: _files_put(files, row, seen), rows, HEADS_AT_ONCE)
        commits = self._commits(marker.epoch if marker.sealed else None)
        lists = side_by_side(lambda row: _put(files, row, seen.copies), commits, HEADS_AT_ONCE)
        metadata = [(urls, Extent(copies=last)) for urls, last in lists]
        if marker.sealed or not marker.landed:  # its commit may be long ago: others may have written its manifests anew
            manifests, last = _put(files, self._manifests(), seen.manifests)
            metadata.append((manifests, Extent(manifests=last)))
        extent = reduce(Extent.and_, (each for _, each in (*data, *metadata)), seen)
        put = Put(tuple(named), _urls(data), _urls(metadata), extent)
        check_inside(self.target.locations, chain(put.named, put.data, put.metadata))
        return put

    def _manifests(self) -> Row:
        """Name the sealed manifests."""
        return (manifest_url(self.target.locations, self.attempt.id, place) for place in count())

    def _named(self, buckets: Collection[int] | None) -> Row:
        """Name the data files, of all buckets or of some: those that are planned, and those that were claimed."""
        planned = (Claim(bucket=bucket) for bucket in range(self.attempt.buckets))
        for said in chain(planned, self.claims):
            if said.bucket is not None and (buckets is None or said.bucket in buckets):
                for path in self._paths(said.paths or self.known_paths):
                    for file, attempt_try in product(range(said.files), range(said.tries)):
                        yield self.target.file_url(said.bucket, file, attempt_try, path)

    def _data(self, buckets: Collection[int] | None) -> Iterator[Iterator[Row]]:
        """Name the data files, of all buckets or of some: for each bucket and path, for each file, its tries."""
        for bucket in range(self.attempt.buckets) if buckets is None else sorted(buckets):
            claimed = {path for said in self.claims if said.bucket == bucket for path in said.paths}
            for path in self._paths({*self.known_paths, *claimed}):
                yield self._files(bucket, path)

    def _paths(self, paths: Collection[str]) -> Sequence[str]:
        return sorted(paths) if self.target.paths_in_keys else [""]

    def _commits(self, epoch: int | None) -> Iterator[Row]:
        """Name what fences wrote, and commits of all holders up to the one of an epoch; None where there were none."""
        places = max(len(self.attempt.bases) + commit.REGROUPS + 1, commit.COMMIT_RETRIES.tries)
        for holder in range(self.attempt.preparing, 0 if epoch is None else epoch + 1):
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


def _urls(found: Iterable[tuple[list[str], Extent]]) -> tuple[str, ...]:
    return tuple(chain.from_iterable(urls for urls, _ in found))


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
