"""Ours, for `manifests.py`: `python -m benchmarks._manifests_ours FOLDER TABLE STEP FILES` prints a JSON line.

Each step is a process, so that its memory is its own; what a seal leaves stands in a file until the commit.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import _manifests_table
from benchmarks._manifests_table import HOUR
from benchmarks._timed import measured
from lakehouse_pipeline.iceberg.manifests import digest
from lakehouse_pipeline.iceberg.sealed_hours import SealedHour
from lakehouse_pipeline.ledger.records import Seal, new_attempt_id
from tests.iceberg.lake import Lake

SEALED = "sealed.json"


def encode(lake: Lake, _folder: Path, files: int) -> Callable[[], object]:
    """Encode the entries of so many files, as tasks do for each of theirs."""
    kind, entries = _manifests_table.entries_of(lake, HOUR, new_attempt_id(), _manifests_table.samples(lake), files)
    return lambda: [kind.encode(entry) for entry in entries]


def seal(lake: Lake, folder: Path, files: int) -> Callable[[], object]:
    """Seal an attempt of so many files; the entries are there, as tasks have made them."""
    attempt = new_attempt_id()
    kind, entries = _manifests_table.entries_of(lake, HOUR, attempt, _manifests_table.samples(lake), files)
    written = [_manifests_table.written_file(kind, entry) for entry in entries]
    entries.clear()
    replaces = digest(file.path for file in lake.now.live(HOUR))
    table = lake.now

    def step() -> None:
        told = table.seal(attempt, written, rows_read=None, rejected=0)
        sealed = {"attempt": attempt, "replaces": replaces, "seal": told.model_dump(mode="json")}
        (folder / SEALED).write_text(json.dumps(sealed))

    return step


def commit(lake: Lake, folder: Path, _files: int) -> Callable[[], object]:
    """Commit what was sealed."""
    told = json.loads((folder / SEALED).read_text())
    sealed = SealedHour(HOUR, told["attempt"], told["replaces"], Seal.model_validate(told["seal"]))
    return lambda: lake.replace(sealed)


def look(lake: Lake, folder: Path, _files: int) -> Callable[[], object]:
    """Tell from the manifest list that the hour is as it was sealed, as every plan of it does."""
    sealed = Seal.model_validate(json.loads((folder / SEALED).read_text())["seal"])

    def step() -> None:
        assert lake.now.as_sealed({HOUR: [sealed]}) == {HOUR: sealed.digest}

    return step


def read(lake: Lake, _folder: Path, _files: int) -> Callable[[], object]:
    """Read which files are live, as a plan does where somebody has changed the hour."""
    return lambda: digest(file.path for file in lake.now.live(HOUR))


STEPS = {"encode": encode, "seal": seal, "commit": commit, "look": look, "read": read}


def main(folder: Path, table: str, step: str, files: int) -> None:
    """Prepare a step, measure it, and print what it took."""
    print(json.dumps(measured(STEPS[step](_manifests_table.opened(folder, table), folder, files))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
