"""One table of small files compacted by ours, the JVM's Iceberg, PyIceberg and Zamboni, in turn, in one run.

`python -m benchmarks.compact [--hours N] [--files N] [--rows N] [--rounds N] [--zamboni]` prints a Markdown table. Each
writer has a process and a copy of the table of its own, with the same rows in as many files, in one Iceberg REST
catalog (SeaweedFS), and compacts a small table first, to warm up. Seconds are of the second compaction: by the clock,
and of the processors that its processes took, the server's not included. Memory is the peak of a process's whole life,
start and warm-up included. The best of the rounds counts for seconds, which noise only adds to, and the highest for
memory. After each compaction the rows are read and added up: a writer that changed one ends the benchmark.

Zamboni needs an environment of its own (0.5 GB), made once; without `--zamboni` it takes part where there is one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyiceberg.catalog import Catalog

from benchmarks.memory import peak
from lakehouse_pipeline.demo.seaweed import SeaweedServer
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.checksum import Checksum, checksum_of
from lakehouse_pipeline.iceberg.data_files import WrittenFile
from lakehouse_pipeline.iceberg.schemas import arrow_schema_of
from lakehouse_pipeline.iceberg.tables import open_catalog
from lakehouse_pipeline.object_store.side_by_side import side_by_side
from tests.backfill.hands import in_hand, new_attempt
from tests.iceberg.lake import Lake, columns, hours_after, in_bucket
from tests.oracle import environment

HOURS, FILES, ROWS = 4, 40, 50_000  # rows of a file, which has 1.2 MB then
WARM_FILES = 6  # of one hour: as many as every writer finds worth it
FILE_SIZE = 512 * 1024**2
WRITERS_AT_ONCE = 2
FIRST = HourWindow.from_key("2013-01-01-00:00")
TYPES = {"at": "timestamptz!", "id": "long!", "name": "string", "value": "double"}
ZAMBONI = Path(".lakehouse/benchmarks/zamboni").absolute()
ZAMBONI_PIN = "iceberg-zamboni==0.7.0"


@dataclass(frozen=True)
class Asked:
    """How large the table is.

    Attributes:
        hours: of it.
        files: of an hour.
        rows: of a file.
    """

    hours: Sequence[HourWindow]
    files: int
    rows: int


@dataclass(frozen=True)
class Size:
    """What a table's snapshot says of itself."""

    files: int
    bytes: int
    rows: int

    @classmethod
    def of(cls, lake: Lake) -> "Size":
        """Read it from the live files."""
        files = list(lake.now.all_live())
        return cls(len(files), sum(file.bytes for file in files), sum(file.rows for file in files))


@dataclass(frozen=True)
class Measured:
    """A writer's compaction."""

    seconds: float
    cpu: float
    peak: int

    @classmethod
    def best(cls, runs: Sequence["Measured"]) -> "Measured":
        """Take the least seconds and the most memory."""
        return cls(min(run.seconds for run in runs), min(run.cpu for run in runs), max(run.peak for run in runs))


def rows_of(hour: HourWindow, place: int, rows: int) -> pa.RecordBatch:
    """Make a file's rows, the same ones each time; little of them can be compressed."""
    random = np.random.default_rng([hour.ordinal, place])
    moments = int(hour.start.timestamp()) * 1_000_000 + random.integers(0, 3_600_000_000, rows)
    schema = arrow_schema_of(columns(TYPES))
    values = [
        pa.array(moments).cast(schema.field("at").type),
        pa.array(random.integers(0, 2**40, rows)),
        pa.array(random.integers(0, 2**40, rows)).cast(schema.field("name").type),
        pa.array(random.normal(size=rows)),
    ]
    return pa.RecordBatch.from_arrays(values, schema=schema)


def batches(asked: Asked) -> Iterator[pa.RecordBatch]:
    """Make the rows of all files."""
    return (rows_of(hour, place, asked.rows) for hour in asked.hours for place in range(asked.files))


def made(catalog: Catalog, asked: Asked) -> Lake:
    """Make a table, each hour committed as by a run that has as many tasks as files."""
    lake = Lake.create(catalog, TYPES)
    for hour in asked.hours:
        hand = in_hand(lake, hour)
        hand.open(new_attempt(hand.table, hour, buckets=asked.files))
        attempt = hand.attempt.id

        def write(place: int, hour: HourWindow = hour, attempt: str = attempt) -> Sequence[WrittenFile]:
            rows = in_bucket(place, rows_of(hour, place, asked.rows))
            return lake.write(hour, [rows], attempt, FILE_SIZE)

        written = [file for files in side_by_side(write, range(asked.files), WRITERS_AT_ONCE) for file in files]
        hand.seal(hand.table.seal(attempt, written, rows_read=None, rejected=0))
        hand.commit()
    return lake


def contents(lake: Lake) -> Checksum:
    """Read all rows and add them up."""
    return checksum_of(lake.now.table.scan().to_arrow_batch_reader(), lake.now.schema)


def zamboni() -> Path:
    """Give the interpreter of Zamboni's environment, which is made if need be."""
    python = ZAMBONI / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ZAMBONI)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, ZAMBONI_PIN], check=True)
    return python


def writers(*, with_zamboni: bool) -> Mapping[str, tuple[str, str]]:
    """Give each writer's interpreter and module."""
    known = {
        "ours": (sys.executable, "_compact_ours"),
        "JVM Iceberg, `rewrite_data_files`": (sys.executable, "_compact_jvm"),
        "PyIceberg, overwrite by hour": (sys.executable, "_compact_pyiceberg"),
    }
    if with_zamboni or ZAMBONI.exists():
        known["Zamboni 0.7"] = (str(zamboni()), "_compact_zamboni")
    return known


def measured(writer: tuple[str, str], properties: Mapping[str, str], tables: Sequence[str]) -> Measured:
    """Let a writer compact tables; the last of them counts."""
    python, module = writer
    command = (python, "-m", f"benchmarks.{module}", json.dumps(properties), *tables)
    highest, said = peak(*command, output=subprocess.PIPE)
    last = json.loads(said.splitlines()[-1])
    return Measured(last["seconds"], last["cpu"], highest["all"])


def show(writer: str, run: Measured, ours: Measured, before: Size, after: Size) -> None:
    """Print a writer's row, and what it took beside ours."""
    cells = (
        f"{run.seconds:.1f}",
        f"{run.seconds / ours.seconds:.2f}",
        f"{run.cpu:.1f}",
        f"{run.cpu / ours.cpu:.2f}",
        f"{run.peak / 1e6:.0f}",
        f"{run.peak / ours.peak:.2f}",
        f"{before.files} → {after.files}",
        f"{before.bytes / 1e6:.0f} → {after.bytes / 1e6:.0f}",
        f"{before.rows:,} → {after.rows:,}",
    )
    print(f"| {writer} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure all writers and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=int, default=HOURS)
    parser.add_argument("--files", type=int, default=FILES, help="of each hour")
    parser.add_argument("--rows", type=int, default=ROWS, help="of each file")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--zamboni", action="store_true", help="install Zamboni and measure it, too")
    told = parser.parse_args()
    environment.python()  # the JVM's environment is made here, where it is not measured
    asked = Asked(hours_after(FIRST, told.hours), told.files, told.rows)
    known = writers(with_zamboni=told.zamboni)
    runs: dict[str, list[Measured]] = {writer: [] for writer in known}
    sizes = {}
    with tempfile.TemporaryDirectory() as folder, SeaweedServer(Path(folder)) as seaweed:
        for _ in range(told.rounds):
            for writer, command in known.items():
                run, *sizes[writer] = measure(seaweed, asked, command)
                runs[writer].append(run)
    best = {writer: Measured.best(each) for writer, each in runs.items()}
    print("| writer | s | of ours | CPU s | of ours | peak MB | of ours | files | MB | rows |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for writer, run in best.items():
        show(writer, run, best["ours"], *sizes[writer])
    rounds = (f"{writer} {' '.join(f'{run.seconds:.1f}' for run in each)}" for writer, each in runs.items())
    print(f"\nSeconds of each round: {', '.join(rounds)}")


def measure(seaweed: SeaweedServer, asked: Asked, writer: tuple[str, str]) -> tuple[Measured, Size, Size]:
    """Measure a writer on tables of its own, and hold what is left against what was there."""
    properties = seaweed.catalog_properties()
    catalog = open_catalog(properties)
    warm, lake = made(catalog, Asked(hours_after(FIRST, 1), WARM_FILES, asked.rows)), made(catalog, asked)
    before = Size.of(lake)
    run = measured(writer, properties, [warm.identifier, lake.identifier])
    expected = checksum_of(batches(asked), lake.now.schema)
    assert contents(lake) == expected, f"{writer}: the rows are not the same"
    return run, before, Size.of(lake)


if __name__ == "__main__":
    main()
