"""DuckDB's sort, in a process of its own: `python -m benchmarks._graysort_duckdb FOLDER MEMORY RUNS`.

Memory is written as a JVM's heap is; prints a JSON line a run, the last counts. All goes to one file: with
`FILE_SIZE_BYTES` or `PER_THREAD_OUTPUT` DuckDB 1.5 keeps no order between files, nor always within one.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from benchmarks._timed import cpu_seconds

THREADS = 2  # as `local[2]` has
SORT = "COPY (SELECT * FROM read_parquet('{source}') ORDER BY key) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"


def main(folder: Path, memory: str, runs: int) -> None:
    """Sort the hour again and again in one session, which spills to where Spark and ours do."""
    out = folder / "duckdb"
    out.mkdir(exist_ok=True)
    file = out / "sorted.parquet"
    sort = SORT.format(source=folder / "raw/2024/01/01/00/*.parquet", file=file)
    disk = os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")[0] or None
    with tempfile.TemporaryDirectory(prefix="duckdb-", dir=disk) as spilled:
        limit = f"{memory}ib"  # the JVM's 6g are GiB, DuckDB's are GB
        with duckdb.connect(config={"threads": THREADS, "memory_limit": limit, "temp_directory": spilled}) as session:
            for _ in range(runs):
                file.unlink(missing_ok=True)
                spent, started = cpu_seconds(), time.perf_counter()
                session.execute(sort)
                seconds, cpu = round(time.perf_counter() - started, 2), round(cpu_seconds() - spent, 2)
                print(json.dumps({"seconds": seconds, "cpu": cpu, "files": [str(file)]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
