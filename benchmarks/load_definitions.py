"""How long Dagster waits for the definitions: every tick and every command loads them. Goal: 3 s."""

import statistics
import subprocess
import sys
import time

from benchmarks import _goals

ROUNDS = 5
GOAL_S = 3.0


def main() -> None:
    """Time a fresh interpreter that imports the definitions of this folder's lakehouse."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import lakehouse_pipeline.definitions"], check=True)
        seconds.append(time.perf_counter() - started)
    print(f"A new interpreter imports the definitions {ROUNDS} times: {', '.join(f'{s:.2f}' for s in seconds)} s.\n")
    _goals.at_most("loading the definitions, in the median", statistics.median(seconds), GOAL_S, " s")


if __name__ == "__main__":
    main()
