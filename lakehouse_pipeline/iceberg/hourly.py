"""An Iceberg table as a backfill sees it: hours that are read, written, sealed and replaced."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from lakehouse_pipeline.config.types import Column
from lakehouse_pipeline.errors import CommitConflictError, CommitStateUnknownError, LakehouseError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.as_sealed import digests_as_sealed
from lakehouse_pipeline.iceberg.attempt_files import HEADS_AT_ONCE, AttemptFiles, batch_of
from lakehouse_pipeline.iceberg.borders import check_layout
from lakehouse_pipeline.iceberg.claims import Claim, claim, claims_in, withdraw
from lakehouse_pipeline.iceberg.commit import REGROUPS, Replaced, RivalsWonError, fence, load, replace_hours
from lakehouse_pipeline.iceberg.commit_writing import head
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.event_time import EventTime
from lakehouse_pipeline.iceberg.evolution import check_writable
from lakehouse_pipeline.iceberg.manifests import (
    DELETED,
    LiveFile,
    digest,
    live_entries,
    live_file,
    manifests_of,
    read_entries,
    read_sealed,
    refuse_straddling,
)
from lakehouse_pipeline.iceberg.partitions import Partitions
from lakehouse_pipeline.iceberg.reachability import strays
from lakehouse_pipeline.iceberg.rows import StoredTable
from lakehouse_pipeline.iceberg.schemas import arrow_schema, columns_of
from lakehouse_pipeline.iceberg.sealed_hours import HoursLostError, SealedHour
from lakehouse_pipeline.iceberg.seals import seal_files
from lakehouse_pipeline.iceberg.sorted_rows import OrderCheck
from lakehouse_pipeline.iceberg.write_target import WriteTarget, layout_of
from lakehouse_pipeline.ledger.hours import Ledger
from lakehouse_pipeline.ledger.records import Attempt, Seal, new_attempt_id
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from lakehouse_pipeline.object_store.vending import DRIVERS_KEYS, ENDPOINT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldAttempt:
    """A sealed attempt in the hands of whoever commits it.

    Attributes:
        hour: the hour.
        attempt: sealed.
        epoch: of the hold on the hour, which names the commit's files; used once.
    """

    hour: HourWindow
    attempt: Attempt
    epoch: int


BeforeSendOf = Callable[[Sequence[HourWindow], int | None, int], None]
Outcomes = Mapping[HourWindow, Replaced | LakehouseError]


@dataclass(frozen=True)
class HourlyTable:
    """One table at one moment: `head`, `live` and `target` speak of the metadata that was loaded.

    Attributes:
        catalog: PyIceberg's.
        table: PyIceberg's.
        hour: the column that tells a row's hour.
    """

    catalog: Catalog
    table: Table
    hour: str

    @property
    def identifier(self) -> str:
        """`namespace.name`."""
        return ".".join(self.table.name())

    @property
    def location(self) -> str:
        """Where the table's folders are."""
        return self.table.location()

    @property
    def metadata_url(self) -> str:
        """The metadata file that was loaded."""
        return self.table.metadata_location

    @property
    def uuid(self) -> str:
        """The table's own id, which a table created again under the same name does not have."""
        return str(self.table.metadata.table_uuid)

    @property
    def schema_id(self) -> int:
        """The current schema."""
        return self.table.schema().schema_id

    @property
    def columns(self) -> tuple[Column, ...]:
        """The current schema, in the spec's words."""
        return columns_of(self.table.schema())

    @property
    def arrow_schema(self) -> pa.Schema:
        """The current schema as Arrow writes it."""
        return arrow_schema(self.table.schema())

    @property
    def head(self) -> int | None:
        """The snapshot that `main` stands on."""
        return head(self.table)

    @property
    def summary(self) -> Mapping[str, str]:
        """What the current snapshot says of itself; empty for a table without one."""
        snapshot = self.table.current_snapshot()
        return snapshot.summary.additional_properties if snapshot and snapshot.summary else {}

    @property
    def manifests(self) -> int:
        """How many manifests the current snapshot has."""
        return len(manifests_of(self.table.metadata, self.table.io, self.head))

    @property
    def snapshots(self) -> int:
        """How many snapshots there are, of whatever branch."""
        return len(self.table.metadata.snapshots)

    @property
    def ledger(self) -> Ledger:
        """The record of the table's hours."""
        return Ledger(self.files, self.location, self.uuid)

    @cached_property
    def files(self) -> LakehouseFileIO:
        """The table's store, without anything that a task must not get; one, so that it counts all requests."""
        return store_of(self.table.io.properties)

    @cached_property
    def catalogs_files(self) -> LakehouseFileIO:
        """The store as the catalog's own properties reach it, which is how sources are read."""
        return store_of(self.catalog.properties)

    def live(self, hour: HourWindow) -> list[LiveFile]:
        """List the hour's live files, delete files included.

        Raises:
            SafetyError: files of earlier partition specs hold rows of the hour and of others, or may.
        """
        files = list(self.all_live((hour,)))
        refuse_straddling(files)
        return files

    def all_live(self, hours: Collection[HourWindow] | None = None, *, newest: int | None = None) -> Iterator[LiveFile]:
        """Go through the live files that may have rows of some hours, or of all, delete files included.

        Args:
            hours: these; None is all.
            newest: of so many manifests, those that were added last; None is all.
        """
        metadata = self.table.metadata
        wanted = None if hours is None else {hour.ordinal for hour in hours}
        told = EventTime.of(metadata, self.hour)
        for entry, span, spec_id in live_entries(metadata, self.table.io, self.head, told, wanted, newest=newest):
            yield live_file(entry, span, spec_id)

    def as_sealed(self, seals: Mapping[HourWindow, Collection[Seal]]) -> dict[HourWindow, str]:
        """Give the digests of the hours that are as one of their seals says; see `digests_as_sealed`."""
        metadata = self.table.metadata
        return digests_as_sealed(metadata, self.table.io, self.head, EventTime.of(metadata, self.hour), seals)

    @cached_property
    def stored(self) -> StoredTable:
        """What has to be known to read the table's files, wherever that is done."""
        return StoredTable.of(self.table, self.files)

    def check_writable(self) -> None:
        """Hold the table against what can be written at all; see `evolution.check_writable`."""
        check_writable(self.identifier, self.table.metadata)

    @property
    def sequence_number(self) -> int:
        """Of the snapshot that `main` stands on; 0 where it stands on none."""
        snapshot = self.table.metadata.snapshot_by_id(self.head) if self.head is not None else None
        return snapshot.sequence_number or 0 if snapshot else 0

    @property
    def spec_id(self) -> int:
        """The partition spec that files are written for."""
        return self.table.spec().spec_id

    @property
    def sort_order_id(self) -> int:
        """The table's sort order; 0 where it has none."""
        return self.table.sort_order().order_id

    @property
    def order(self) -> tuple[tuple[str, bool], ...]:
        """The table's sort order: names, and whether they descend; empty where it has none."""
        return OrderCheck.of(self.table.sort_order(), self.table.schema()).columns

    def rows(self, columns: Sequence[str]) -> pa.Table:
        """Read some columns of every live row into memory.

        Raises:
            ValueError: the table has equality deletes, which PyIceberg cannot apply (apache/iceberg-python#6568).
        """
        return self.table.scan(selected_fields=tuple(columns)).to_arrow()

    @property
    def layout(self) -> Mapping[str, str]:
        """What shapes the keys of files that are written now."""
        return layout_of(self.table)

    def target(self, hour: HourWindow, attempt: str, file_size: int) -> WriteTarget:
        """Describe the writing of an attempt to the engine's tasks."""
        return WriteTarget.of(self.table, self.files, hour, attempt, hour_column=self.hour, file_size=file_size)

    def seal(
        self,
        attempt: str,
        written: Sequence[WrittenFile],
        *,
        rows_read: int | None,
        rejected: int,
        left: int | None = 0,
        as_of: int | None = None,
        kept: Sequence[LiveFile] = (),
    ) -> Seal:
        """Write the manifests of an attempt; see `seal_files`."""
        return seal_files(
            self.table, attempt, written, rows_read=rows_read, rejected=rejected, left=left, as_of=as_of, kept=kept
        )

    def files_of(self, hour: HourWindow, attempt: Attempt) -> AttemptFiles:
        """Give the names of all files that an attempt can have.

        Raises:
            SafetyError: it says that they are where no file of the table can be.
        """
        check_layout(self.table, attempt.layout)
        target = self.target(hour, attempt.id, 0).laid_out(attempt.layout)
        claims = claims_in(self.files, self.ledger.claims_url(hour, attempt.id))
        return AttemptFiles(attempt, target, self._known_paths(hour), claims)

    def withdraw_claims(self, hour: HourWindow, attempt: str) -> None:
        """Remove what an attempt's writers said of their files: none is left."""

        def under_way() -> set[str]:
            held = self.ledger.hour(hour).record.attempt  # whatever became of its marker
            return self.ledger.marks(hour) | ({held.id} if held else set())

        withdraw(self.files, self.ledger.claims_url(hour, ""), attempt, under_way)

    def replace(self, held: Sequence[HeldAttempt], *, before_send: BeforeSendOf) -> Outcomes:
        """Commit sealed attempts together: the hours' live files are then exactly those of their seals.

        One snapshot takes all of them that can land; those that cannot are left out, and do not stop the others. An
        attempt whose earlier commit turns out to have landed is done, whatever became of the hour since: its files
        belong to that snapshot.

        Args:
            held: each hour at most once.
            before_send: see `replace_hours`; told, too, of which hours the commit is. Where some of them are lost it
                raises HoursLostError.

        Returns:
            By hour, what the commit did or why it is not known to have done it: CommitConflictError where the hour was
            changed by somebody else or rivals won every try, CommitStateUnknownError where it may have landed,
            TransientError and SafetyError.
        """
        outcomes: dict[HourWindow, Replaced | LakehouseError] = {}
        for each in held:
            try:
                landed = self.landed(each.hour, each.attempt) if each.attempt.bases else None
            except LakehouseError as error:
                outcomes[each.hour] = error
                continue
            if landed is not None:
                outcomes[each.hour] = Replaced(landed, 0, 0)
        waiting = [each for each in held if each.hour not in outcomes]
        places = count()
        for _ in range(REGROUPS):
            if not waiting:
                break
            outcomes |= self._replace(waiting, before_send, places)
            waiting = [each for each in waiting if each.hour not in outcomes]
        alone = "lost the other hours of its commit again and again"
        return outcomes | {each.hour: RivalsWonError(f"{each.hour} {alone}") for each in waiting}

    def _replace(self, held: Sequence[HeldAttempt], before_send: BeforeSendOf, places: Iterator[int]) -> Outcomes:
        """Commit attempts together, once; of hours that can be committed without others nothing is said."""
        first = held[0]  # whose names the commit's files have: whoever gives it up fences the commit before
        hours = [each.hour for each in held]
        try:
            replaced = replace_hours(
                self.catalog,
                self.identifier,
                [self._sealed_hour(each) for each in held],
                event_time=self.hour,
                batch=batch_of(first.attempt.id, first.epoch),
                before_send=partial(before_send, hours),
                places=places,
            )
        except HoursLostError as error:
            return {each.hour: self._seen(each, error.errors[each.hour]) for each in held if each.hour in error.errors}
        except CommitConflictError as error:
            return {each.hour: self._seen(each, error) for each in held}
        except SafetyError as error:
            if len(held) == 1:
                return {first.hour: error}
            # It is one of them. Names are the first's alone so far.
            alone = [self._replace([each], before_send, places if each is first else count()) for each in held]
            return {hour: outcome for outcomes in alone for hour, outcome in outcomes.items()}
        except LakehouseError as error:  # what was sent may have landed: each hour's next run finds out
            return dict.fromkeys(hours, error)
        return dict.fromkeys(hours, replaced)

    def _sealed_hour(self, held: HeldAttempt) -> SealedHour:
        claims = (
            claims_in(self.files, self.ledger.claims_url(held.hour, held.attempt.id)) if held.attempt.rewrites else []
        )
        return SealedHour.of(held.hour, held.attempt, [path for said in claims for path in said.replaces])

    def claim_files(self, hour: HourWindow, attempt: str, paths: Iterable[str]) -> None:
        """Say which live files a rewrite takes the place of."""
        claim(self.files, self.ledger.claims_url(hour, attempt), Claim(replaces=tuple(sorted(paths))))

    def _seen(self, held: HeldAttempt, error: CommitConflictError) -> Replaced | LakehouseError:
        """Look whether an attempt whose commit met a conflict is in the table after all."""
        try:
            if (landed := self.landed(held.hour, held.attempt)) is not None:
                return Replaced(landed, 0, 0)
            now = HourlyTable(self.catalog, load(self.catalog, self.identifier), self.hour)
            if now.is_as_sealed(held.hour, held.attempt):
                return Replaced(now.head, 0, 0)  # it landed, and its snapshot was expired since
        except LakehouseError as unseen:
            return unseen
        except OSError as unseen:  # expired by somebody else while it was read
            return CommitStateUnknownError(f"{error}; the table could not be read back ({unseen})")
        return error

    def _known_paths(self, hour: HourWindow) -> set[str]:
        """Give the partition paths that need no rows to tell, of whatever spec an attempt was written for."""
        metadata, schema = self.table.metadata, self.table.schema()
        event_time = schema.find_field(self.hour).field_id
        every = [Partitions(spec, schema, event_time, hour.ordinal) for spec in metadata.specs().values()]
        return {each.path() for each in every if each.known and each.spec.fields}

    def landed(self, hour: HourWindow, attempt: Attempt) -> int | None:
        """Find a snapshot of the table, as it is now, that an attempt made or that still reaches one of its files."""
        now = load(self.catalog, self.identifier)
        for snapshot in now.metadata.snapshots:
            if snapshot.snapshot_id in attempt.snapshot_ids:
                return snapshot.snapshot_id
        for snapshot_id, _ in self._reached(now, hour, attempt.id):
            return snapshot_id
        seal = attempt.seal
        if seal and attempt.bases and not seal.files and seal.digest != attempt.replaces:
            # Nothing bears its name; but what it was sent to take away is gone.
            table = HourlyTable(self.catalog, now, self.hour)
            return table.head if table.is_as_sealed(hour, attempt) else None
        return None

    def is_as_sealed(self, hour: HourWindow, attempt: Attempt) -> bool:
        """Tell whether an hour has the files, and no others, that a sealed attempt wants it to have."""
        return attempt.seal is not None and digest(file.path for file in self.all_live((hour,))) == attempt.seal.digest

    def reached_files(self, hour: HourWindow, attempt: str) -> set[str]:
        """Name the data files of an attempt that a snapshot of the table, as it is now, reaches."""
        return {path for _, path in self._reached(load(self.catalog, self.identifier), hour, attempt)}

    def _reached(self, now: Table, hour: HourWindow, attempt: str) -> Iterator[tuple[int, str]]:
        """Go through an attempt's live files in all snapshots.

        Summaries and snapshots may have been expired, and manifests merged, by somebody else: the names of data files
        tell whose they are.
        """
        told, seen = EventTime.of(now.metadata, self.hour), set[str]()
        for snapshot in now.metadata.snapshots:
            for manifest in snapshot.manifests(now.io):
                if manifest.manifest_path in seen or not told.in_manifest(manifest).meets((hour.ordinal,)):
                    continue
                seen.add(manifest.manifest_path)
                for entry in read_entries(now.io, manifest):
                    path: str = entry["data_file"]["file_path"]
                    if entry["status"] != DELETED and f"-{attempt}-" in path.rpartition("/")[2]:
                        yield snapshot.snapshot_id, path

    def fence(self, attempt: Attempt, *, epoch: int) -> None:
        """Make sure that no commit of an attempt that was sent can land any more; see `commit.fence`."""
        if attempt.bases:
            batch = batch_of(attempt.id, epoch)
            fence(self.catalog, self.identifier, set(attempt.bases), batch=batch)

    def fence_head(self, hour: HourWindow, attempt: Attempt) -> None:
        """Make sure that no commit can land any more that asserts what `main` stands on now.

        No hold on the hour names its files, since there is none: several may do this at once, and again. So each
        claims the name that it uses, for whoever removes what the attempt left.
        """
        batch = f"{attempt.id}-{new_attempt_id()}"
        claim(self.files, self.ledger.claims_url(hour, attempt.id), Claim(fence=batch))
        fence(self.catalog, self.identifier, {head(load(self.catalog, self.identifier))}, batch=batch)

    def reached_metadata(self) -> set[str]:
        """Name the manifest lists and manifests that the snapshots of the table, as it is now, reach."""
        now = load(self.catalog, self.identifier)
        lists = {snapshot.manifest_list for snapshot in now.metadata.snapshots}
        return lists | {m.manifest_path for snapshot in now.metadata.snapshots for m in snapshot.manifests(now.io)}

    def strays(self) -> list[ObjectInfo]:
        """List what lies in the table's folders and no snapshot reaches; see `reachability.strays`."""
        return list(strays(load(self.catalog, self.identifier), self.files))

    def sealed_files(self, seal: Seal) -> set[str]:
        """Name the data files of a seal."""
        entries = (entry for manifest in seal.manifests for entry in read_sealed(self.table.io, manifest))
        return {entry["data_file"]["file_path"] for entry in entries}

    def missing_files(self, seal: Seal) -> list[str]:
        """Name the sealed manifests and data files that are gone or of another size."""
        gone = _not_as_said(self.files, {manifest.path: manifest.length for manifest in seal.manifests})
        if gone:
            return gone
        for manifest in seal.manifests:
            entries = [entry["data_file"] for entry in read_sealed(self.table.io, manifest)]
            gone += _not_as_said(self.files, {entry["file_path"]: entry["file_size_in_bytes"] for entry in entries})
        return gone


def _not_as_said(files: LakehouseFileIO, sizes: Mapping[str, int]) -> list[str]:
    found = zip(sizes.items(), side_by_side(files.head, sizes, HEADS_AT_ONCE), strict=True)
    return [url for (url, size), info in found if info is None or info.size != size]


def store_of(properties: Mapping[str, Any]) -> LakehouseFileIO:
    """Make a FileIO of the store's own properties, and of what renews vended credentials.

    A task gets no secret of the catalog's, see `vending.portable`.
    """
    own = {key: str(value) for key, value in properties.items() if key.startswith(("s3.", "client."))}
    renewing = {key: properties[key] for key in DRIVERS_KEYS if ENDPOINT in own and key in properties}
    return LakehouseFileIO(own | renewing)
