"""Zamboni (`iceberg-zamboni` on PyPI), for `compact.py`: PyIceberg and DuckDB, in an environment of its own."""

from pyiceberg.catalog import load_catalog
from zamboni import CatalogSession, TableCompactor  # type: ignore[import-not-found]  # in its environment only

from benchmarks import _timed


def main() -> None:
    """Compact tables with its defaults, but no more threads than the others have."""
    catalog = load_catalog("peer", **{key: value for key, value in _timed.told().items() if key != "py-io-impl"})
    with CatalogSession.from_catalog(catalog, threads=2) as session:

        def one(name: str) -> None:
            TableCompactor(session, name).execute()

        _timed.run(one)


if __name__ == "__main__":
    main()
