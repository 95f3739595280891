"""From raw files of a kind that nobody saw before to a backfilled table, as the how-to page says."""

from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.orchestration.assets import build_defs

HOURS = (4, 5, 6)


def _type(*arguments: str) -> None:
    done = CliRunner().invoke(main, list(arguments))
    assert (done.exit_code, done.stderr) == (0, "")


def test_from_raw_files_to_a_table(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init`, `new`, one edited line, `check`, a backfill: all rows are there, though no column was a timestamp."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAKEHOUSE_CONFIG", raising=False)
    _type("init", "lake")
    monkeypatch.chdir("lake")
    Path("raw").mkdir()
    for hour in HOURS:
        rows = "".join(f"01.05.2024 {hour:02d}:{minute:02d},00{minute}\n" for minute in range(20))
        Path(f"raw/air_20240501T{hour:02d}.csv").write_text(f"Zeit,station\n{rows}")
    _type("new", "air", "--from", "raw/air_20240501T05.csv")
    spec = Path("tables/air.yaml")
    spec.write_text(spec.read_text().replace("# sort: []", "sort: [station]"))
    _type("check")
    lakehouse = load_lakehouse(Path("lakehouse.yaml"), {})
    with dg.DagsterInstance.ephemeral() as instance:
        done = (
            build_defs(lakehouse)
            .resolve_job_def("air_job")
            .execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": "2024-05-01-04:00",
                    "dagster/asset_partition_range_end": "2024-05-01-06:00",
                },
            )
        )
    assert done.success
    table = Warehouse.open(lakehouse.catalog).table(lakehouse.spec("air"))
    assert table is not None
    found = table.rows(["event_time", "station"]).to_pylist()
    assert sorted({row["event_time"].hour for row in found}) == list(HOURS)
    assert sorted(row["station"] for row in found) == sorted(f"00{n}" for n in range(20) for _ in HOURS)
