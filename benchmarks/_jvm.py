"""The peer, in a process and environment of its own: the JVM's Iceberg writer on Spark 3.5, on the same raw files.

`python _jvm.py FOLDER CASE RUNS` prints a JSON line a run. `write.distribution-mode` is `none`: the default, `hash`,
shuffles every row first, and one hour has nothing to gain from it.
"""

import json
import os
import sys
import time
from pathlib import Path

import snowpark_connect_deps_iceberg  # type: ignore[import-not-found]  # installed in the peer's environment only
from pyspark.sql import DataFrame, SparkSession

SQL = """SELECT event_time, id, customer, price * 1.19 AS price, upper(kind) AS kind, city, payload
FROM source WHERE price > 0"""
TABLE = """CREATE TABLE lake.bench.{case} (event_time timestamp, id bigint, customer int, price double, kind string,
city string, payload string) USING iceberg PARTITIONED BY (hours(event_time)) TBLPROPERTIES
('write.parquet.compression-codec'='zstd', 'write.object-storage.enabled'='true', 'write.distribution-mode'='{mode}',
'write.target-file-size-bytes'='256000000')"""


def session(folder: Path) -> SparkSession:
    """Start Spark with the Iceberg runtime and a catalog in the folder."""
    jars = Path(snowpark_connect_deps_iceberg.__file__).parent / "jars"
    jar = next(jars.glob("iceberg-spark-runtime-3.5_2.12-*.jar"))
    builder = SparkSession.builder.master("local[2]")
    for key, value in {
        "spark.jars": str(jar),
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.warehouse": f"file://{folder}/jvm",
    }.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def frame_of(spark: SparkSession, folder: Path, case: str) -> DataFrame:
    """Give the rows to write."""
    source = spark.read.parquet(str(folder / "raw/2024/01/01/00"))
    source.createOrReplaceTempView("source")
    return spark.sql(SQL) if case == "transform" else source


def main(folder: Path, case: str, runs: int) -> None:
    """Replace the hour again and again in one warm session."""
    spark = session(folder)
    spark.range(10).count()
    spark.sql(f"DROP TABLE IF EXISTS lake.bench.{case}")
    spark.sql(TABLE.format(case=case, mode="range" if case == "sort" else "none"))
    if case == "sort":
        spark.sql("ALTER TABLE lake.bench.sort WRITE ORDERED BY city, kind")
    for _ in range(runs):
        started = time.perf_counter()
        frame_of(spark, folder, case).writeTo(f"lake.bench.{case}").overwritePartitions()
        seconds = round(time.perf_counter() - started, 2)
        totals = "count(*) AS files, sum(record_count) AS records, sum(file_size_in_bytes) AS size"
        row = spark.sql(f"SELECT {totals} FROM lake.bench.{case}.files").collect()[0]
        result = {"seconds": seconds, "rows": row["records"], "files": row["files"], "bytes": row["size"]}
        print(json.dumps(result), flush=True)
    spark.stop()


if __name__ == "__main__":
    os.environ["PYSPARK_PYTHON"] = sys.executable
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
