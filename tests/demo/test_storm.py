"""`lakehouse demo --storm`: the whole command, with fewer hours."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse_pipeline.demo import run, storm
from lakehouse_pipeline.hours import parse_range

HOURS = parse_range("2013-01-01-10:00...2013-01-01-11:00")


def test_the_demo_in_a_storm(
    tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every hour is committed and nothing is left over; what is said of the storm is what the server's log counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "RUN_HOURS", HOURS)
    monkeypatch.setattr(run, "LANDED_HOURS", HOURS)
    monkeypatch.setattr(storm, "WRITES_PER_S", 3.0)  # two hours write 20 objects and more
    # Spark's workers have the environment that the test run's JVM was started with: the keys travel with the tasks.
    keys = "  s3.access-key-id: ${AWS_ACCESS_KEY_ID}\n  s3.secret-access-key: ${AWS_SECRET_ACCESS_KEY}\n"
    monkeypatch.setattr(run, "LAKEHOUSE_YAML", run.LAKEHOUSE_YAML.replace("engine:", f"{keys}engine:"))
    run.run_demo(storm=True)
    said = capsys.readouterr().out
    log = [json.loads(line) for line in (tmp_path / run.FOLDER / "storm.jsonl").read_text().splitlines()]
    met = Counter(exchange["fault"] for exchange in log)
    assert "2 hours in" in said
    assert "Hours failed: 0. Files left over: 0." in said
    assert met["throttle"] > 0
    assert f"{met['throttle']}  503 above the limit" in said
    assert f"{met.total() - met[None]} of {len(log)} requests went wrong" in said
    told = re.search(r"(\d+) requests sent again", said)
    assert told
    assert int(told[1]) >= met["throttle"]  # each was sent again
