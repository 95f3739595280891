"""The oracle: Apache Iceberg's own JVM implementation, in Spark 3.5, as a process that answers SQL."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lakehouse_pipeline.demo.seaweed import REGION, SeaweedServer
from tests.oracle import environment

SERVER = Path(__file__).parent / "spark_server.py"
STOP_TIMEOUT_S = 30.0
POSITION_DELETES, EQUALITY_DELETES = 1, 2  # `content` in a table's `delete_files`, as Iceberg's spec numbers it
Row = dict[str, Any]


def s3_file_io(seaweed: SeaweedServer) -> dict[str, str]:
    """Give the properties with which Iceberg's S3FileIO reads and writes what an S3 server has."""
    return {
        "io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "http-client.type": "urlconnection",
        "client.region": REGION,
        "s3.endpoint": seaweed.endpoint,
        "s3.access-key-id": seaweed.access_key_id,
        "s3.secret-access-key": seaweed.secret_access_key,
        "s3.path-style-access": "true",
    }


class JvmError(Exception):
    """Spark or Iceberg refused; the message is theirs."""


class Jvm:
    """One Spark session with Iceberg, started and stopped by its `with` block.

    Attributes:
        catalog: the name under which SQL finds the REST catalog.
        log: where Spark's own words are.
    """

    catalog = "lake"

    def __init__(self, folder: Path, catalog: Mapping[str, str]) -> None:
        """Describe it; `catalog` has the properties of a catalog in Iceberg's own words."""
        self._python = environment.python()
        self._folder = folder
        self.log = folder / "spark.log"
        self._conf = {
            "spark.master": "local[2]",
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": "1g",
            "spark.jars": ",".join(map(str, [environment.iceberg_runtime(), *environment.aws_jars()])),
            "spark.local.dir": str(folder),
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "2",
            "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
            f"spark.sql.catalog.{self.catalog}": "org.apache.iceberg.spark.SparkCatalog",
            **{f"spark.sql.catalog.{self.catalog}.{key}": value for key, value in catalog.items()},
        }

    def sql(self, text: str) -> list[Row]:
        """Run a statement and give its rows.

        Raises:
            JvmError: it failed.
        """
        return self._ask({"sql": text})

    def view(self, metadata_location: str) -> str:
        """Make a view of a table from its metadata file alone (`#files` and the like may stand behind it); name it."""
        name = f"v{uuid.uuid4().hex[:12]}"
        self._ask({"load": metadata_location, "view": name})
        return name

    def orphans(self, table: str, older_than: datetime, *, io: Mapping[str, str] | None = None) -> set[str]:
        """Name what `remove_orphan_files` would remove of what is older than a time, by a listing of prefixes.

        Nothing is removed, and no age is refused.

        Args:
            table: as SQL names it, or, with `io`, its metadata file.
            older_than: a time, in the future, too.
            io: properties of the FileIO that reads a table of no catalog.

        Raises:
            JvmError: it failed.
        """
        request = {"orphans_of": table, "older_than": int(older_than.timestamp() * 1000)}
        ((answer),) = self._ask({**request, "io": io} if io else request)
        return set(answer["paths"].splitlines())

    def delete_equal(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        partition: Sequence[object] | None = None,
        spec: int | None = None,
    ) -> str:
        """Commit an equality delete, as Flink writes it, and name its file.

        Args:
            table: as SQL names it.
            columns: top-level columns, as the table names them now; their ids are what the file keeps.
            rows: keys, in the order of `columns`; None is equal to null, NaN (of a double) to NaN.
            partition: what to delete from: a value per field of the spec, hours and days counted since 1970. None
                deletes from all partitions, and takes a spec of the table that has no fields.
            spec: the id of the partition's spec, the current one if none is given.

        Raises:
            JvmError: it failed.
        """
        told = {"columns": list(columns), "rows": [list(row) for row in rows]}
        return self._delete(table, told, partition, spec)

    def delete_positions(
        self,
        table: str,
        positions: Mapping[str, Iterable[int]],
        *,
        partition: Sequence[object] | None = None,
        spec: int | None = None,
    ) -> str:
        """Commit one file of position deletes for any number of data files, live ones or not, and name it.

        Args:
            table: as SQL names it.
            positions: rows to delete, counted from 0, by data file.
            partition: the data files', as in `delete_equal`.
            spec: the same.

        Raises:
            JvmError: it failed.
        """
        told = {"positions": [(path, place) for path, places in positions.items() for place in places]}
        return self._delete(table, told, partition, spec)

    def positions(self, table: str, where: str) -> dict[str, list[int]]:
        """Find rows, by data file, as `delete_positions` takes them.

        Raises:
            JvmError: it failed.
        """
        found: dict[str, list[int]] = {}
        for row in self.sql(f"SELECT _file, _pos FROM {table} WHERE {where}"):
            found.setdefault(row["_file"], []).append(row["_pos"])
        return found

    def _delete(
        self, table: str, told: Mapping[str, object], partition: Sequence[object] | None, spec: int | None
    ) -> str:
        values = None if partition is None else list(partition)
        ((answer),) = self._ask({"delete_from": table, "partition": values, "spec": spec, **told})
        return str(answer["path"])

    def __enter__(self) -> Self:
        """Start Spark and wait until it answers."""
        spark = {"TZ": "UTC", "PYSPARK_PYTHON": str(self._python)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_"))}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._python, SERVER],
                cwd=self._folder,
                env={**inherited, **spark},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C ends the tests first
            )
        try:
            self._ask({"conf": self._conf})
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._stop()

    def _stop(self) -> None:
        """End it: its input ends, and so does it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: Mapping[str, object]) -> list[Row]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request, default=_single_value) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise JvmError(f"Spark ended: {self.log.read_text()[-4000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise JvmError(answer["error"])
        rows: list[Row] = answer["rows"]
        return rows


def _single_value(value: object) -> str:
    """Write a value as Iceberg's spec does in JSON (appendix D, single values), where JSON has no word for it."""
    match value:
        case date():  # a datetime too
            return value.isoformat()
        case Decimal():
            return str(value)
        case bytes():
            return value.hex()
    raise TypeError(f"{value!r} has no form in JSON")
