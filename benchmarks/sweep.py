"""Sweeps measured: the search for orphans in a table of many objects, beside the JVM's Iceberg and Zamboni.

`python -m benchmarks.sweep [--case NAME] [--objects N] [--rounds N] [--zamboni] [--json FILE]` prints a Markdown table
for each case. `listing`: a table of N tiny objects under hashed keys (SeaweedFS with its Iceberg REST catalog), one in
twenty of them an orphan, the others in the manifests of 456 hours, and one of a quarter of the objects. Ours is an
audit; the JVM's is `remove_orphan_files` with `prefix_listing`, of which orphans are only named; so are Zamboni's. Each
has a process of its own, and goes through a table of 2,000 objects first, to warm up. Seconds are of the second table:
by the clock, and of the processors that its processes took; the server's are among those of all others. Memory is the
peak of a process's whole life. A writer that finds other orphans than there are ends the benchmark.
`attempt`: a failed attempt of `--files` files, closed by its ledger; requests by what they ask for.

Tables are made once, in `.lakehouse/benchmarks/sweep`, which takes minutes. Zamboni needs an environment of its own
(0.5 GB), made once; without `--zamboni` it takes part where there is one.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks import _cases, _sweep_attempt, _sweep_listing
from tests.oracle import environment

OBJECTS = 200_000
FILES = 1_000


def listing(told: argparse.Namespace) -> dict[str, Any]:
    """Measure the search for orphans."""
    return _sweep_listing.measured(told.objects, told.rounds, with_zamboni=told.zamboni)


def attempt(told: argparse.Namespace) -> dict[str, Any]:
    """Measure what closing a failed attempt takes."""
    return _sweep_attempt.measured(told.files)


CASES: _cases.Cases = {"listing": listing, "attempt": attempt}


def main() -> None:
    """Measure some cases and print a Markdown table for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--objects", type=int, default=OBJECTS, help="of the larger table")
    parser.add_argument("--files", type=int, default=FILES, help="of the failed attempt")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--zamboni", action="store_true", help="install Zamboni and measure it, too")
    parser.add_argument("--json", type=Path, help="a file that gets the figures of all rounds")
    told = parser.parse_args()
    environment.python()  # the JVM's environment is made here, where it is not measured
    _cases.measure(told, CASES)


if __name__ == "__main__":
    main()
