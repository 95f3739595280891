"""Claims: at which partition paths the writers of an attempt put files, said before the first file is there.

File names are a function of bucket, attempt, file and try, but the values of partition fields beside the hour are the
rows'. With its claims every file of an attempt can be named, and removed, without listing the table's data. Tables that
are partitioned by the hour alone have none.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.object_store.objects import PreconditionFailedError


class Claim(BaseModel):
    """Some partition paths of a bucket, relative as they stand in keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: int
    paths: tuple[str, ...]


def claim(files: LakehouseFileIO, folder: str, bucket: int, paths: Iterable[str]) -> None:
    """Say that a bucket has files at these partition paths; twice is once.

    Raises:
        TransientError: the store did not take it within its retries.
    """
    said = Claim(bucket=bucket, paths=tuple(sorted(paths)))
    name = hashlib.sha256("\n".join(said.paths).encode()).hexdigest()[:32]
    try:
        files.put(f"{folder}/{bucket:05d}-{name}.json", said.model_dump_json().encode(), if_absent=True)
    except PreconditionFailedError:
        return  # another try of the task said the same


def claimed(files: LakehouseFileIO, folder: str) -> Mapping[int, set[str]]:
    """Give the partition paths that the writers of an attempt claimed, by bucket."""
    found = defaultdict[int, set[str]](set)
    for item in files.list_objects(f"{folder}/"):
        said = Claim.model_validate_json(files.get(item.url).body)
        found[said.bucket].update(said.paths)
    return found


def withdraw(files: LakehouseFileIO, folder: str) -> None:
    """Remove the claims of an attempt: its files are the table's, or gone."""
    files.delete_objects([item.url for item in files.list_objects(f"{folder}/")])
