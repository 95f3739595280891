"""Zamboni (`iceberg-zamboni` on PyPI), for `sweep.py`: orphans named and kept, in an environment of its own."""

from datetime import UTC, datetime, timedelta

from pyiceberg.catalog import load_catalog
from zamboni import OrphanCleaner  # type: ignore[import-not-found]  # in its environment only

from benchmarks import _timed


def main() -> None:
    """Go through tables with its defaults, as if in four days."""
    catalog = load_catalog("peer", **{key: value for key, value in _timed.told().items() if key != "py-io-impl"})

    def one(name: str) -> dict[str, int]:
        later = datetime.now(UTC) + timedelta(days=4)
        return {"orphans": OrphanCleaner(dry_run=True).run(catalog.load_table(name), now=later).deleted}

    _timed.run(one)


if __name__ == "__main__":
    main()
