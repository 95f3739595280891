"""Runs in the oracle's environment: one Spark session that answers SQL, a line of JSON for each.

Reads `{"conf": …}` first; then `{"sql": …}` or `{"view": …, "load": …}`. Answers `{"rows": […]}` or `{"error": …}`.
"""

import json
import os
import sys
from typing import IO, Any

from pyspark.sql import SparkSession


def main() -> None:
    """Answer until the input ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what Spark and the JVM print goes to the log
        builder = SparkSession.Builder()
        for key, value in json.loads(sys.stdin.readline())["conf"].items():
            builder = builder.config(key, value)
        session = builder.getOrCreate()
        answer(answers, {"rows": [{"version": session.version}]})
        for line in sys.stdin:
            try:
                answer(answers, {"rows": run(session, json.loads(line))})
            except Exception as error:  # noqa: BLE001  # the test is told
                answer(answers, {"error": f"{type(error).__name__}: {error}"})


def run(session: SparkSession, request: dict[str, str]) -> list[dict[str, Any]]:
    """Do what a request says and give its rows."""
    if "load" in request:
        session.read.format("iceberg").load(request["load"]).createOrReplaceTempView(request["view"])
        return []
    return [row.asDict(recursive=True) for row in session.sql(request["sql"]).collect()]


def answer(answers: IO[str], said: dict[str, Any]) -> None:
    """Say it; what JSON has no word for as text."""
    answers.write(json.dumps(said, default=lambda value: value.hex() if isinstance(value, bytearray) else str(value)))
    answers.write("\n")
    answers.flush()


if __name__ == "__main__":
    main()
