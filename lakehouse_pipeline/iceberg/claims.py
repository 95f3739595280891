"""Claims: what the names of an attempt's files do not tell by themselves, said by whoever is about to put a file.

Planned are the first files of an attempt's buckets, at try 0 and at the hour's own path: of them nothing is said. A
claim comes before whatever goes beyond: the values of partition fields beside the hour are the rows', a bucket may roll
over to further files, and a task that is run twice, after its death or to be faster, writes its files twice. With its
claims every file of an attempt can be named without listing the table's data, and without asking for any.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import ObjectInfo, PreconditionFailedError
from lakehouse_pipeline.object_store.side_by_side import side_by_side

CLAIMS_AT_ONCE = 16
_TOLD_BY_NAME = re.compile(r"(\d{5,})-(\d+)-(\d+)\.json")  # a bucket, its files and their tries


class Claim(BaseModel):
    """What a writer says of a bucket, a rewrite of what it replaces, or who fences the attempt of its fence.

    Attributes:
        bucket: the bucket; None of the others.
        paths: partition paths at which it has files, relative as they stand in keys; none for the hour's own.
        files: its files are numbered below this, at each of the paths.
        tries: their tries are.
        again: names were taken: it has files of more than one writing. What earlier versions said in place of `tries`.
        fence: begins the names of a fence's files.
        replaces: live files that a rewrite takes the place of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: int | None = None
    paths: tuple[str, ...] = ()
    files: int = 1
    tries: int = 1
    again: bool = False
    fence: str = ""
    replaces: tuple[str, ...] = ()

    @property
    def is_of_several(self) -> bool:
        """Tell whether the bucket may have files of more than one writing."""
        return self.again or self.tries > 1


@dataclass
class Claims:
    """What one writer says of its files before it puts them, and what it has said already.

    Attributes:
        files: the store.
        folder: of the attempt's claims.
        of_paths: whether keys hold what only the rows tell.
        said: bucket, path, and how many files and tries.
    """

    files: LakehouseFileIO
    folder: str
    of_paths: bool
    said: set[tuple[int, str, int, int]] = field(default_factory=set)

    def cover(self, bucket: int, path: str, number: int = 0, attempt_try: int = 0, others: Iterable[str] = ()) -> None:
        """Say that a bucket is about to put a file, unless that is planned, or was said.

        Files and tries are claimed in powers of two, so that a bucket of a hundred files makes seven claims.

        Args:
            bucket: the bucket.
            path: partition path of the file.
            number: of the file, counted from 0 as names have it.
            attempt_try: from 0.
            others: paths at which the bucket is about to have its first files, told in the same object.

        Raises:
            TransientError: the store did not take it within its retries.
        """
        if not self.of_paths:
            path, others = "", ()
        most = (_power_above(number), _power_above(attempt_try))
        if (bucket, path, *most) in self.said or (most == (1, 1) and not self.of_paths):
            return
        fresh = sorted(each for each in {path, *others} if (bucket, each, *most) not in self.said)
        told = tuple(fresh) if self.of_paths else ()
        claim(self.files, self.folder, Claim(bucket=bucket, paths=told, files=most[0], tries=most[1]))
        self.said.update((bucket, each, *most) for each in fresh)


def claim(files: LakehouseFileIO, folder: str, said: Claim) -> None:
    """Say it; twice is once.

    Raises:
        TransientError: the store did not take it within its retries.
    """
    body = said.model_dump_json().encode()
    with suppress(PreconditionFailedError):  # another try of the task said the same
        files.put(f"{folder}/{_name(said, body)}.json", body, if_absent=True)


def claims_in(files: LakehouseFileIO, folder: str) -> list[Claim]:
    """Give all that the writers of an attempt said; what names tell is not read."""
    found = side_by_side(lambda item: _said(files, item), files.list_objects(f"{folder}/"), CLAIMS_AT_ONCE)
    return [said for said in found if said]


def withdraw(files: LakehouseFileIO, prefix: str, attempt: str, marked: Callable[[], Collection[str]]) -> None:
    """Remove the claims of an attempt: its files are the table's, or gone.

    With them go those of attempts that are not marked: a request of theirs arrived when they were over.

    Args:
        files: the store.
        prefix: of all claims of the hour.
        attempt: whose claims go.
        marked: names the attempts of the hour that may claim; asked where others have claims.
    """
    listed = [item.url for item in files.list_objects(prefix)]
    claimed = {url: url.removeprefix(prefix).partition("/")[0] for url in listed}
    others = set(claimed.values()) - {attempt}
    kept = others & set(marked()) if others else others
    files.delete_objects([url for url in listed if claimed[url] not in kept])


def _name(said: Claim, body: bytes) -> str:
    if said.bucket is not None and said == Claim(bucket=said.bucket, files=said.files, tries=said.tries):
        return f"{said.bucket:05d}-{said.files}-{said.tries}"
    about = ("replaces" if said.replaces else "fence") if said.bucket is None else f"{said.bucket:05d}"
    return f"{about}-{hashlib.sha256(body).hexdigest()[:32]}"


def _said(files: LakehouseFileIO, item: ObjectInfo) -> Claim | None:
    if told := _TOLD_BY_NAME.fullmatch(item.url.rpartition("/")[2]):
        bucket, most_files, tries = map(int, told.groups())
        return Claim(bucket=bucket, files=most_files, tries=tries)
    try:
        return Claim.model_validate_json(files.get(item.url).body)
    except FileNotFoundError:  # withdrawn since it was listed
        return None


def _power_above(number: int) -> int:
    """Give the least power of two above a number."""
    return 1 << number.bit_length()
