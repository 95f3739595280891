"""All benchmarks, and the page that shows them: `python -m benchmarks [NAME…] [--rounds N] [--list]`, or `make bench`.

Each is a process. What it prints and what it measured goes to `benchmarks/results/NAME.json`, and `docs/benchmarks.md`
is made anew of all that is there: a run of one benchmark renews its section alone. One that fails keeps the section
that it had, and ends the command with an error once the others have run.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks._goals import MISSED, NOT_WON
from benchmarks._machine import machine, versions

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs/benchmarks.md"

INTRODUCTION = """\
# Benchmarks

`make bench` makes this page: it runs every benchmark of `benchmarks/`, beside peers in environments of their own, and
keeps what each measured as JSON in `benchmarks/results`. It takes some hours; `make bench ARGS="append manifests"`
renews these sections alone. Quote ratios, which are of one run, rather than seconds: each section says how busy the
machine was. No test depends on any of these figures. [Performance](performance.md) says where the time goes.
"""


@dataclass(frozen=True)
class Benchmark:
    """A script, and how it is run for the page.

    Attributes:
        name: of its module.
        arguments: of its command.
        raw: whether it writes its rounds with `--json`.
        rounds: of which it takes the median; 0 where it has none.
    """

    name: str
    arguments: tuple[str, ...] = ()
    raw: bool = False
    rounds: int = 0

    @property
    def text(self) -> str:
        """What it says of itself."""
        return ast.get_docstring(ast.parse((HERE / f"{self.name}.py").read_text())) or ""


# In the order of the page.
BENCHMARKS = (
    Benchmark("limits"),
    Benchmark("append", raw=True, rounds=3),
    Benchmark("graysort", raw=True, rounds=3),
    Benchmark("manifests", raw=True, rounds=3),
    Benchmark("compact", ("--case", "all", "--zamboni"), raw=True, rounds=3),
    Benchmark("sweep", ("--zamboni", "--objects", "50000"), raw=True, rounds=3),
    Benchmark("backfill"),
    Benchmark("growth", raw=True),
    Benchmark("concurrent_runs", ("--limit", "600")),
    Benchmark("throttle"),
    Benchmark("storm"),
    Benchmark("planned"),
    Benchmark("amazon_ads"),
    Benchmark("memory"),
    Benchmark("stages"),
    Benchmark("partitions"),
    Benchmark("load_definitions"),
    Benchmark("fault_server"),
)


def main() -> None:
    """Run benchmarks, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    names = [each.name for each in BENCHMARKS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all if none is named")
    parser.add_argument("--rounds", type=int, help="in the place of three, of those that take a median")
    parser.add_argument("--list", action="store_true", help="say what each measures, and run none")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [each for each in BENCHMARKS if each.name in (asked.names or names)]
    if asked.list:
        for each in chosen:
            print(f"{each.name}: {each.text.partition(chr(10))[0]}")
        return
    failed = []
    for each in chosen:
        if not run(each, asked.rounds or each.rounds):
            failed.append(each.name)
        PAGE.write_text(page())  # what was measured is kept, however the rest ends
    if failed:
        sys.exit(f"failed, their sections are as they were: {', '.join(failed)}")


def run(benchmark: Benchmark, rounds: int) -> bool:
    """Run one, show what it prints, and keep it."""
    print(f"\n== {benchmark.name}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    load, at, started = os.getloadavg()[0], datetime.now(UTC), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        command = ["-m", f"benchmarks.{benchmark.name}", *benchmark.arguments]
        command += ["--rounds", str(rounds)] if benchmark.rounds else []
        told = [*command, "--json", str(raw)] if benchmark.raw else command
        lines = []
        with subprocess.Popen([sys.executable, *told], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(line)
        if process.returncode:
            return False
        figures = json.loads(raw.read_text()) if benchmark.raw else list(tables(lines))
    text = "".join(lines).strip()
    result = {
        "at": f"{at:%Y-%m-%d %H:%M} UTC",
        "command": f"python {' '.join(command)}",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "load": round(load, 2),
        "machine": machine(),
        "versions": versions(),
        "text": text,
        "figures": figures,
    }
    (RESULTS / f"{benchmark.name}.json").write_text(f"{json.dumps(result, indent=1)}\n")
    return True


def tables(lines: Sequence[str]) -> Iterator[list[dict[str, str]]]:
    """Read the Markdown tables of a text: rows by column."""
    names: list[str] = []
    rows: list[dict[str, str]] = []
    for line in (*lines, ""):
        if not line.startswith("|"):
            if rows:
                yield rows
            names, rows = [], []
        elif not names:
            names = cells(line)
        elif not re.fullmatch(r"[\s|:-]+", line):
            rows.append(dict(zip(names, cells(line), strict=False)))


def cells(line: str) -> list[str]:
    """Take the cells out of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def page() -> str:
    """Make the page of all results that are there."""
    results = {
        each.name: json.loads(file.read_text())
        for each in BENCHMARKS
        if (file := RESULTS / f"{each.name}.json").exists()
    }
    parts = [INTRODUCTION, not_won(results), not_run(results)]
    parts += [section(each, results[each.name]) for each in BENCHMARKS if each.name in results]
    return "\n".join(part for part in parts if part)


def not_won(results: Mapping[str, Any]) -> str:
    """List what is not as it should be."""
    found = [
        f"- [{name}](#{name}): {line.removeprefix(mark)}"
        for mark in (MISSED, NOT_WON)
        for name, result in results.items()
        for line in result["text"].splitlines()
        if line.startswith(mark)
    ]
    return "\n".join(["## Missed, and not won", "", *(found or ["Nothing."]), ""])


def not_run(results: Mapping[str, Any]) -> str:
    """Name what the page says nothing of."""
    names = [each.name for each in BENCHMARKS if each.name not in results]
    return "\n".join(["## Not run yet", "", f"{', '.join(names)}.", ""]) if names else ""


def section(benchmark: Benchmark, result: Mapping[str, Any]) -> str:
    """Show one benchmark."""
    told, at = benchmark.text, result["machine"]
    on = f"{at['processors']} x {at['processor']}, {at['memory']}, {at['system']}"
    used = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    when = f"{result['at']}, {result['minutes']} minutes, load {result['load']} when it began"
    return "\n".join(
        [
            f"## {benchmark.name}",
            "",
            told,
            "",
            f"`{result['command']}`, {when}; {on}.",
            f"<details><summary>Versions</summary>{used}</details>",
            "",
            result["text"],
            "",
        ]
    )


if __name__ == "__main__":
    main()
