"""Claims: what the names of an attempt's files do not tell by themselves, said by whoever is about to put a file.

File names are a function of bucket, attempt, file and try, but the values of partition fields beside the hour are the
rows', and a task that is run twice, after its death or to be faster, writes its files twice. With its claims every file
of an attempt can be named without listing the table's data. Tables that are partitioned by the hour alone have none
unless a task met the files of another writing of it, or somebody who does not hold the hour fences the attempt.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import PreconditionFailedError


class Claim(BaseModel):
    """What a writer says of a bucket, a rewrite of what it replaces, or who fences the attempt of its fence.

    Attributes:
        bucket: the bucket; None of the others.
        paths: partition paths at which it has files, relative as they stand in keys.
        again: names were taken: it has files of more than one writing.
        fence: begins the names of a fence's files.
        replaces: live files that a rewrite takes the place of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: int | None = None
    paths: tuple[str, ...] = ()
    again: bool = False
    fence: str = ""
    replaces: tuple[str, ...] = ()


def claim(files: LakehouseFileIO, folder: str, said: Claim) -> None:
    """Say it; twice is once.

    Raises:
        TransientError: the store did not take it within its retries.
    """
    body = said.model_dump_json().encode()
    about = ("replaces" if said.replaces else "fence") if said.bucket is None else f"{said.bucket:05d}"
    try:
        files.put(f"{folder}/{about}-{hashlib.sha256(body).hexdigest()[:32]}.json", body, if_absent=True)
    except PreconditionFailedError:
        return  # another try of the task said the same


def claim_paths(files: LakehouseFileIO, folder: str, bucket: int, paths: Iterable[str]) -> None:
    """Say that a bucket has files at these partition paths."""
    claim(files, folder, Claim(bucket=bucket, paths=tuple(sorted(paths))))


def claims_in(files: LakehouseFileIO, folder: str) -> list[Claim]:
    """Give all that the writers of an attempt said."""
    found = []
    for item in files.list_objects(f"{folder}/"):
        with suppress(FileNotFoundError):  # withdrawn since it was listed
            found.append(Claim.model_validate_json(files.get(item.url).body))
    return found


def paths_of(claims: Sequence[Claim], bucket: int) -> set[str]:
    """Give the partition paths that a bucket's writers claimed."""
    return {path for said in claims if said.bucket == bucket for path in said.paths}


def withdraw(files: LakehouseFileIO, folder: str) -> None:
    """Remove the claims of an attempt: its files are the table's, or gone."""
    files.delete_objects([item.url for item in files.list_objects(f"{folder}/")])
