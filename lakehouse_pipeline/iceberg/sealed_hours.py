"""An hour that is ready to be committed, and the hours that a commit has lost."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lakehouse_pipeline.errors import CommitConflictError, SafetyError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.manifests import LiveFile
from lakehouse_pipeline.ledger.records import Attempt, Rewrite, Seal


class HoursLostError(CommitConflictError):
    """Some hours cannot be part of a commit; the others can, without them.

    Attributes:
        errors: by hour, why.
    """

    def __init__(self, errors: Mapping[HourWindow, CommitConflictError]) -> None:
        """Name them."""
        super().__init__("; ".join(str(error) for error in errors.values()))
        self.errors = errors


@dataclass(frozen=True)
class SealedHour:
    """An hour that is ready to be committed.

    Attributes:
        hour: the hour.
        attempt: its id.
        replaces: digest of the live files that the attempt was opened on.
        seal: the files that take their place.
        rewrites: what it is if it takes the place of files; None where it takes that of the hour.
        only: these files; of no meaning for an hour.
    """

    hour: HourWindow
    attempt: str
    replaces: str
    seal: Seal
    rewrites: Rewrite | None = None
    only: frozenset[str] = frozenset()

    @classmethod
    def of(cls, hour: HourWindow, attempt: Attempt, only: Collection[str] = ()) -> "SealedHour":
        """Take a sealed attempt out of its record."""
        if attempt.seal is None:
            raise SafetyError(f"attempt {attempt.id} of {hour} is not sealed")
        return cls(hour, attempt.id, attempt.replaces, attempt.seal, attempt.rewrites, frozenset(only))

    @property
    def as_of(self) -> int | None:
        """The sequence number of its files' data; None where it is the commit's."""
        return self.rewrites.as_of if self.rewrites else None


@dataclass(frozen=True)
class Taken:
    """Which live files hours take the place of.

    Attributes:
        hours: all of theirs.
        paths: these.
    """

    hours: frozenset[int]
    paths: frozenset[str]

    @classmethod
    def by(cls, hours: Sequence[SealedHour]) -> "Taken":
        """Sum up the hours of a commit."""
        whole = frozenset(sealed.hour.ordinal for sealed in hours if not sealed.rewrites)
        return cls(whole, frozenset[str]().union(*(sealed.only for sealed in hours)))

    def has(self, file: LiveFile) -> bool:
        """Tell whether a live file goes."""
        return file.path in self.paths or file.span.meets(self.hours)
