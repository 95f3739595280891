"""Cases of a benchmark, one after the other; their figures are kept as JSON as soon as each is measured."""

import argparse
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from benchmarks._machine import versions

Cases = Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]]


def measure(told: argparse.Namespace, cases: Cases) -> None:
    """Measure the cases that were asked for by `--case`, and write their figures to the file of `--json`, if any."""
    raw: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "versions": versions(), "cases": {}}
    for name in told.case:
        print(f"\n`{name}`\n", flush=True)
        raw["cases"][name] = cases[name](told)
        if told.json:
            told.json.write_text(json.dumps(raw, indent=1))
