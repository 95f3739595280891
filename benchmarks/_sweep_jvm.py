"""The JVM's Iceberg, for `sweep.py`: orphans named and kept, in one session, whose start is not counted."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import _timed
from benchmarks._compact_jvm import properties
from tests.oracle.jvm import Jvm


def main() -> None:
    """Go through tables as `remove_orphan_files` does with `prefix_listing` and `dry_run`."""
    with tempfile.TemporaryDirectory() as folder, Jvm(Path(folder), properties(_timed.told())) as jvm:

        def one(name: str) -> dict[str, int]:
            found = jvm.orphans(f"{jvm.catalog}.{name}", datetime.now(UTC) + timedelta(days=1))
            return {"orphans": len(found)}

        _timed.run(one)


if __name__ == "__main__":
    main()
