"""The JVM's Iceberg, for `manifests.py`, in an environment of its own: `python _manifests_jvm.py JAR METADATA FOLDER`.

The files of a table are read from its metadata file, appended to a new table, and then replaced by themselves; a JSON
line for each. Its manifests are written with the commit. The objects that it takes files as are made before, one call
at a time from Python. Memory is the heap's: what is in use after a collection, and the most since.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

HEAP = "2g"


def session(jar: str) -> SparkSession:
    """Start a JVM with Iceberg in it."""
    builder = SparkSession.builder.master("local[2]").config("spark.driver.memory", HEAP)
    for key, value in {
        "spark.jars": jar,
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def cpu_seconds(jvm: Any) -> float:
    """Give what the JVM's threads have worked for."""
    stat = Path(f"/proc/{jvm.java.lang.ProcessHandle.current().pid()}/stat").read_text()
    return sum(map(int, stat.rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(jvm: Any) -> int:
    """Add up the most that each part of the heap has held."""
    pools = jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans()
    return sum(int(pool.getPeakUsage().getUsed()) for pool in pools if pool.getType().toString() == "Heap memory")


def main(jar: str, metadata: str, folder: str) -> None:
    """Append and replace, each measured."""
    spark = session(jar)
    jvm: Any = spark.sparkContext._jvm  # noqa: SLF001  # the one way to Java
    conf = spark.sparkContext._jsc.hadoopConfiguration()  # noqa: SLF001
    iceberg = jvm.org.apache.iceberg
    io = iceberg.hadoop.HadoopFileIO(conf)
    ours = iceberg.BaseTable(iceberg.StaticTableOperations(metadata, io), "ours")
    found, files = ours.currentSnapshot().addedDataFiles(io).iterator(), []
    while found.hasNext():
        files.append(found.next())
    table = iceberg.hadoop.HadoopTables(conf).create(ours.schema(), ours.spec(), folder)
    for step in ("append", "replace"):
        if step == "append":
            change = table.newFastAppend()
            for file in files:
                change.appendFile(file)
        else:
            change = table.newReplacePartitions()
            for file in files:
                builder = iceberg.DataFiles.builder(ours.spec()).copy(file)
                change.addFile(builder.withPath(f"{file.location()}x").build())
        jvm.java.lang.System.gc()
        for pool in jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans():
            pool.resetPeakUsage()
        before, spent, started = peak_bytes(jvm), cpu_seconds(jvm), time.perf_counter()
        change.commit()
        seconds, cpu = time.perf_counter() - started, cpu_seconds(jvm) - spent
        print(json.dumps({"seconds": seconds, "cpu": cpu, "before": before, "peak": peak_bytes(jvm)}), flush=True)
    spark.stop()


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    main(*sys.argv[1:4])
