"""Spark's own sort, in a process of its own: `python -m benchmarks._graysort_spark FOLDER ENGINE RUNS`.

Plain DataFrame code in a session with the same settings as ours; prints a JSON line a run, the last of them counts.
"""

import json
import shutil
import sys
import time
from pathlib import Path

from benchmarks._timed import cpu_seconds
from lakehouse_pipeline.engines.sessions import LazySession

SETTINGS = {
    "spark.sql.parquet.compression.codec": "zstd",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # as Iceberg has it; Spark's default takes 12 bytes
}


def main(folder: Path, engine: str, runs: int) -> None:
    """Sort the hour again and again in one session."""
    lazy = LazySession(engine, "benchmark")
    spark = lazy.get()
    for key, value in SETTINGS.items():
        spark.conf.set(key, value)
    spark.range(10).count()
    out = folder / "spark"
    for _ in range(runs):
        shutil.rmtree(out, ignore_errors=True)
        spent, started = cpu_seconds(), time.perf_counter()
        spark.read.parquet(str(folder / "raw/2024/01/01/00/*.parquet")).orderBy("key").write.parquet(str(out))
        seconds, cpu = round(time.perf_counter() - started, 2), round(cpu_seconds() - spent, 2)
        files = sorted(str(path) for path in out.glob("part-*.parquet"))
        print(json.dumps({"seconds": seconds, "cpu": cpu, "files": files}), flush=True)
    lazy.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
