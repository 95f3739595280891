"""Seconds, and those of processors, that a writer takes for a compaction or a step. Standard library only.

A writer runs in a process of its own with nothing imported that it does not need, so that its memory is its own.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


def told() -> Mapping[str, str]:
    """Give the properties of the catalog: the first argument, as JSON."""
    properties: dict[str, str] = json.loads(sys.argv[1])
    return properties


def how() -> Mapping[str, Any]:
    """Give what else it was told: the second argument, as JSON."""
    said: dict[str, Any] = json.loads(sys.argv[2])
    return said


def tables() -> list[str]:
    """Name the tables: the other arguments."""
    return sys.argv[3:]


def busy_seconds() -> float:
    """Give what the machine's processors have worked for since it started, for whomever."""
    user, nice, system, _idle, _waiting, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / TICKS


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


def measured(step: Callable[[], object]) -> Mapping[str, float]:
    """Do a step: its seconds, those of processors, and this process's peak of memory before and after, in bytes."""
    before = peak_bytes()
    spent, started = cpu_seconds(), time.perf_counter()
    step()
    seconds, cpu = time.perf_counter() - started, cpu_seconds() - spent
    return {"seconds": seconds, "cpu": cpu, "before": before, "peak": peak_bytes()}


def peak_bytes() -> int:
    """Give the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def run(compact: Callable[[str], object]) -> None:
    """Compact the tables one after the other, and print a JSON line for each.

    What `compact` gives is told, too, where it gives anything.
    """
    for table in tables():
        spent, busy, started = cpu_seconds(), busy_seconds(), time.perf_counter()
        said = compact(table)
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - spent
        told = {"seconds": seconds, "cpu": cpu, "others": busy_seconds() - busy - cpu, "said": said}
        print(json.dumps(told), flush=True)
