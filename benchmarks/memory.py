"""Memory of an hour by its size: the peak of all its processes for 200 MB and for 2 GB of raw Parquet.

The goal is that ten times the hour takes at most 1.5 times the memory. *Own* is without pages of files that are mapped,
such as what a sort has written to disk: the system takes them back where it needs them.
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import _events, _goals, _ours

FOLDER = Path(".lakehouse/benchmarks/memory").absolute()
FILES = {"200 MB": 6, "2 GB": 60}  # of a million and a quarter rows, 34 MB each
ROWS_A_FILE = 1_250_000
POLL_S = 0.1
GOAL = 1.5  # times the memory
ERROR_CHARACTERS = 4_000


def resident(root: int) -> dict[str, int]:
    """Sum the resident bytes of a process and all below it, by whether it is the JVM or Python, and those of files."""
    parents, sizes, of_files, names = {}, {}, {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                _, pages, mapped, *_ = map(int, (folder / "statm").read_text().split())
            except (OSError, ValueError):
                continue  # it ended meanwhile
            pid = int(folder.name)
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
            sizes[pid], of_files[pid] = pages * 4096, mapped * 4096
            names[pid] = stat[stat.index("(") + 1 : stat.rindex(")")]
    total = {"java": 0, "python": 0, "files": 0}
    for pid, size in sizes.items():
        above = pid
        while above not in (0, root):
            above = parents.get(above, 0)
        if above == root:
            total["java" if names[pid] == "java" else "python"] += size
            total["files"] += of_files[pid]
    return total


def peak(*command: str, output: int = subprocess.DEVNULL) -> tuple[dict[str, int], str]:
    """Run a process, and give the highest sums seen, and its output."""
    highest = {"java": 0, "python": 0, "files": 0, "all": 0, "own": 0}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=output, stderr=errors, text=True) as process,
    ):
        ended = threading.Event()

        def watch() -> None:
            while not ended.is_set():
                now = resident(process.pid)
                now["all"] = now["java"] + now["python"]
                now["own"] = now["all"] - now["files"]
                for name, size in now.items():
                    highest[name] = max(highest[name], size)
                time.sleep(POLL_S)

        watcher = threading.Thread(target=watch)
        watcher.start()
        said, _ = process.communicate()
        ended.set()
        watcher.join()
        errors.seek(0)
        assert process.returncode == 0, f"the process failed: {errors.read()[-ERROR_CHARACTERS:]}"
    return highest, said or ""


def main() -> None:
    """Measure, and print a Markdown table."""
    ratios = {}
    print("| case | hour | Python peak MB | JVM peak MB | all MB | own MB | ratio of own |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for case in _ours.CASES:
        first = 0
        for name, files in FILES.items():
            folder = FOLDER / name.replace(" ", "")
            _events.write_events(folder / "raw", rows=files * ROWS_A_FILE, files=files)
            _ours.write_project(folder)
            table = _ours.table_of(case, "arrow")
            highest, _ = peak(sys.executable, "-m", "benchmarks._ours", str(folder), table, "1")
            first = first or highest["own"]
            megabytes = (f"{highest[part] / 1e6:.0f}" for part in ("python", "java", "all", "own"))
            ratios[case] = highest["own"] / first
            print(f"| {case} | {name} | {' | '.join(megabytes)} | {ratios[case]:.2f} |", flush=True)
    print()
    for case, ratio in ratios.items():
        _goals.at_most(f"{case}: memory of ten times the hour, in times", ratio, GOAL)


if __name__ == "__main__":
    main()
