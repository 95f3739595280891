"""How long Dagster waits for the definitions: every tick and every command loads them. Goal: 3 s."""

import subprocess
import sys
import time

ROUNDS = 5


def main() -> None:
    """Time a fresh interpreter that imports the definitions of this folder's lakehouse."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import lakehouse_pipeline.definitions"], check=True)
        seconds.append(time.perf_counter() - started)
    print(f"definitions load in {min(seconds):.2f} s (best of {ROUNDS}; all: {', '.join(f'{s:.2f}' for s in seconds)})")


if __name__ == "__main__":
    main()
