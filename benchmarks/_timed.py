"""What each writer of `compact.py` says of a compaction: its seconds, and those of processors. Standard library only.

A writer runs in a process of its own with nothing imported that it does not need, so that its memory is its own.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def told() -> Mapping[str, str]:
    """Give the properties of the catalog: the first argument, as JSON."""
    properties: dict[str, str] = json.loads(sys.argv[1])
    return properties


def cpu_seconds() -> float:
    """Add up user and system time of this process and of all below it, those that have ended included."""
    parents, spent = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            parents[int(folder.name)] = int(fields[1])
            spent[int(folder.name)] = sum(map(int, fields[11:15]))
    total = 0
    for pid, ticks in spent.items():
        above = pid
        while above not in (0, os.getpid()):
            above = parents.get(above, 0)
        total += ticks if above else 0
    return total / TICKS


def run(compact: Callable[[str], None]) -> None:
    """Compact the tables that the other arguments name, one after the other, and print a JSON line for each."""
    for table in sys.argv[2:]:
        spent, started = cpu_seconds(), time.perf_counter()
        compact(table)
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "cpu": cpu_seconds() - spent}), flush=True)
