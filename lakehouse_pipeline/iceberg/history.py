"""The snapshots, branches and tags of a table, as whoever decides which of them may go looks at them.

Nothing is decided or changed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRef, SnapshotRefType

MAIN = MAIN_BRANCH


@dataclass(frozen=True)
class SnapshotSeen:
    """A snapshot.

    Attributes:
        id: its id.
        parent: its parent's, which may be gone.
        timestamp_ms: when it was made, since 1970, by the clock of whoever made it.
    """

    id: int
    parent: int | None
    timestamp_ms: int


@dataclass(frozen=True)
class RefSeen:
    """A branch or a tag.

    Attributes:
        name: its name.
        snapshot_id: what it stands on.
        is_branch: or else a tag.
        max_ref_age_ms: its own; None is the table's.
        max_snapshot_age_ms: of a branch's snapshots; None is the table's.
        min_snapshots_to_keep: of a branch; None is the table's.
    """

    name: str
    snapshot_id: int
    is_branch: bool = True
    max_ref_age_ms: int | None = None
    max_snapshot_age_ms: int | None = None
    min_snapshots_to_keep: int | None = None

    @classmethod
    def of(cls, name: str, ref: SnapshotRef) -> "RefSeen":
        """Take it out of metadata."""
        return cls(
            name=name,
            snapshot_id=ref.snapshot_id,
            is_branch=ref.snapshot_ref_type is SnapshotRefType.BRANCH,
            max_ref_age_ms=ref.max_ref_age_ms,
            max_snapshot_age_ms=ref.max_snapshot_age_ms,
            min_snapshots_to_keep=ref.min_snapshots_to_keep,
        )

    def __str__(self) -> str:
        """Say what it is and its name."""
        return f"{'branch' if self.is_branch else 'tag'} {self.name}"


@dataclass(frozen=True)
class History:
    """What a table can tell of its past, at one moment.

    Attributes:
        table: `namespace.name`.
        metadata_url: where that is written.
        snapshots: all of them.
        refs: all branches and tags.
        properties: the table's.
    """

    table: str
    metadata_url: str
    snapshots: tuple[SnapshotSeen, ...]
    refs: tuple[RefSeen, ...]
    properties: Mapping[str, str]

    @classmethod
    def of(cls, table: Table) -> "History":
        """Take it out of a table's metadata, as they were loaded."""
        metadata = table.metadata
        return cls(
            table=".".join(table.name()),
            metadata_url=table.metadata_location,
            snapshots=tuple(
                SnapshotSeen(each.snapshot_id, each.parent_snapshot_id, each.timestamp_ms)
                for each in metadata.snapshots
            ),
            refs=tuple(RefSeen.of(name, ref) for name, ref in sorted(metadata.refs.items())),
            properties=metadata.properties,
        )
