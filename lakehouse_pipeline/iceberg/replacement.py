"""What a commit is made of: the manifests that it adds, keeps and writes anew, its manifest list and its summary.

Written for the table's present head and sent by `commit`. Rules that must not be bent:

- An hour is replaced only while its live files are those that its attempt was opened on: nobody else's rows are lost,
  and commits to other hours never get in the way.
- Files are rewritten only while they are live, all older files of their hour are those that were there when they were
  read, and no row of them was deleted since. Younger deletes of rows that equal others are no obstacle as long as the
  partition spec stays: they go on applying to the new files, whose data is as old as what was read.
- Every file is named in `Built.own_files` before it is written, so that a commit that certainly did not land can be
  removed.
"""

from collections.abc import Sequence

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Summary

from lakehouse_pipeline.errors import CommitConflictError, SafetyError
from lakehouse_pipeline.iceberg.commit_writing import Built, writing_commit
from lakehouse_pipeline.iceberg.deletes import unpartitioned
from lakehouse_pipeline.iceberg.event_time import EventTime
from lakehouse_pipeline.iceberg.manifest_files import sealed_manifest_file
from lakehouse_pipeline.iceberg.manifests import (
    DATA,
    POSITION_DELETES,
    LiveFile,
    digest,
    manifests_of,
    refuse_straddling,
)
from lakehouse_pipeline.iceberg.sealed_hours import HoursLostError, SealedHour, Taken
from lakehouse_pipeline.ledger.records import Rewrite


def build_replacement(table: Table, hours: Sequence[SealedHour], event_time: str, batch: str) -> Built | None:
    """Write all that a commit of the hours on the table's head needs; None where it would change nothing.

    Args:
        table: as it is now.
        hours: what replaces what.
        event_time: the column that tells a row's hour.
        batch: names the commit's files; used once and never again.

    Raises:
        HoursLostError: some hours' live files are not those that their attempts were opened on.
        SafetyError: a seal is of another table, or files of earlier partition specs straddle the hours.
    """
    _check_seals(table, hours)
    _check_columns(table, hours)
    rewritten = Taken.by(hours).paths
    with writing_commit(table, batch) as writing:
        kept, removed, left = writing.without(hours, EventTime.of(table.metadata, event_time))
        refuse_straddling(file for file in removed if file.path not in rewritten)
        _check_unchanged(table, hours, removed, left)
        writing.check_far_deletes(hours, removed)
        added = [
            sealed_manifest_file(manifest, sealed.hour, sealed.seal.spec_id, writing.snapshot_id, sealed.as_of)
            for sealed in hours
            for manifest in sealed.seal.manifests
        ]
        if not added and not removed:
            return None
        return writing.built([*added, *kept], _summary(hours, removed, batch), removed)


def build_fence(table: Table, batch: str) -> Built:
    """Write a commit that changes nothing but what `main` stands on."""
    with writing_commit(table, batch) as writing:
        kept = manifests_of(table.metadata, table.io, writing.base)
        told = {"engine-name": "lakehouse_pipeline", "lakehouse.batch": batch, "lakehouse.fence": "true"}
        return writing.built(kept, Summary(Operation.APPEND, **told), ())


def _check_seals(table: Table, hours: Sequence[SealedHour]) -> None:
    for sealed in hours:
        if sealed.seal.table_uuid != str(table.metadata.table_uuid):
            raise SafetyError(f"attempt {sealed.attempt} of {sealed.hour} was written for another table of this name")
        if sealed.seal.spec_id not in table.metadata.specs():
            raise SafetyError(
                f"attempt {sealed.attempt} of {sealed.hour} was written for a partition spec that is gone"
            )


def _check_columns(table: Table, hours: Sequence[SealedHour]) -> None:
    """Hold seals against the table's columns, which may be replaced until the table has a row.

    Raises:
        HoursLostError: files were written with columns that are gone, or without one that every row has to have:
            readers would find nothing there.
    """
    there, needed = set(table.schema().field_ids), {field.field_id for field in table.schema().fields if field.required}
    fit = {known.schema_id for known in table.schemas().values() if needed <= set(known.field_ids) <= there}
    lost = {
        sealed.hour: CommitConflictError(
            f"attempt {sealed.attempt} of {sealed.hour} was written before columns of {table.name()[-1]} were "
            "replaced; run the hour again"
        )
        for sealed in hours
        if sealed.rewrites is None and sealed.seal.schema_id not in fit  # a rewrite finds columns by their ids
    }
    if lost:
        raise HoursLostError(lost)


def _check_unchanged(
    table: Table, hours: Sequence[SealedHour], removed: Sequence[LiveFile], left: Sequence[LiveFile]
) -> None:
    """Hold what the hours replace against what their attempts were opened on.

    State, not history, is compared: it costs no walk over the snapshots in between, and a change that was undone
    is no change.
    """
    owners = {path: sealed.hour.ordinal for sealed in hours for path in sealed.only}
    live: dict[int | None, list[LiveFile]] = {sealed.hour.ordinal: [] for sealed in hours}
    for file in removed:
        live.get(owners.get(file.path, file.hour), []).append(file)
    lost = {}
    for sealed in hours:
        mine = live[sealed.hour.ordinal]
        why = _unlike(sealed, mine) if digest(file.path for file in mine) != sealed.replaces else ""
        if sealed.rewrites and not why:
            # What another hour of the commit removes was there, too.
            others = [file for file in (*left, *removed) if file.path not in sealed.only]
            near = [file for file in others if file.span.meets((sealed.hour.ordinal,))]
            why = _changed_since(sealed, sealed.rewrites, mine, near, unpartitioned(table.metadata.specs().values()))
        if why:
            said = f"{sealed.hour} was changed by somebody else after attempt {sealed.attempt} was opened ({why})"
            lost[sealed.hour] = CommitConflictError(
                f"{said}: the attempt is superseded. Run the hour again to replace it"
            )
    if lost:
        raise HoursLostError(lost)


def _unlike(sealed: SealedHour, found: Sequence[LiveFile]) -> str:
    if sealed.rewrites:
        return f"{len(sealed.only) - len(found)} of the {len(sealed.only)} files that it rewrites are live no more"
    return f"it now has {len(found)} live files"


def _changed_since(
    sealed: SealedHour,
    rewrite: Rewrite,
    mine: Sequence[LiveFile],
    near: Sequence[LiveFile],
    everywhere: frozenset[int],
) -> str:
    """Say whether rows of the rewritten files, or of those beside them, may be others than they were; empty if not.

    Files that are older than what was read and were not live then may be back, after a rollback.
    """
    if digest(file.path for file in (*mine, *near) if file.sequence_number <= rewrite.as_of) != rewrite.live:
        return "it has other files of that age than it had"
    younger = [file for file in near if file.content != DATA and file.sequence_number > rewrite.as_of]
    positions = [file for file in younger if file.content == POSITION_DELETES]
    if any(not file.refers_to or file.refers_to in sealed.only for file in positions):
        return "rows of the files that it rewrites may have been deleted"
    # Deletes of rows that equal others go on applying, but only within their own partition spec.
    respecced = any(file.content == DATA and file.spec_id != sealed.seal.spec_id for file in mine)
    if respecced and any(file.spec_id not in everywhere for file in younger):
        return "rows of files of an earlier partition spec may have been deleted"
    return ""


def _summary(hours: Sequence[SealedHour], removed: Sequence[LiveFile], batch: str) -> Summary:
    data = [file for file in removed if file.content == 0]
    deletes = {kind: [file for file in removed if file.content == kind] for kind in (1, 2)}
    figures = {
        "added-data-files": sum(sealed.seal.files for sealed in hours),
        "added-records": sum(sealed.seal.rows for sealed in hours),
        "added-files-size": sum(sealed.seal.bytes for sealed in hours),
        "deleted-data-files": len(data),
        "deleted-records": sum(file.rows for file in data),
        "removed-files-size": sum(file.bytes for file in removed),
        "removed-delete-files": len(removed) - len(data),
        "removed-position-deletes": sum(file.rows for file in deletes[1]),
        "removed-equality-deletes": sum(file.rows for file in deletes[2]),
        "changed-partition-count": len(hours),
    }
    same_rows = all(sealed.rewrites and sealed.rewrites.same_rows for sealed in hours)
    replaces = Operation.REPLACE if same_rows else Operation.OVERWRITE
    return Summary(
        replaces if removed else Operation.APPEND,
        **{name: str(figure) for name, figure in figures.items() if figure},
        **{
            "engine-name": "lakehouse_pipeline",
            "lakehouse.batch": batch,
            "lakehouse.hours": str(len(hours)),
            "lakehouse.digest": digest(f"{sealed.hour} {sealed.attempt}" for sealed in hours),
        },
    )
