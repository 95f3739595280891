"""PyIceberg, for `compact.py`: each hour read into memory and written over itself."""

from datetime import UTC, datetime, timedelta

from pyiceberg.catalog import load_catalog

from benchmarks import _timed

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def within(number: int) -> str:
    """Select the rows of an hour, as Iceberg counts them."""
    begin = EPOCH + number * HOUR
    return f"at >= '{begin.isoformat()}' AND at < '{(begin + HOUR).isoformat()}'"


def main() -> None:
    """Compact tables hour by hour, with its own FileIO."""
    catalog = load_catalog("peer", **{key: value for key, value in _timed.told().items() if key != "py-io-impl"})

    def one(name: str) -> None:
        table = catalog.load_table(name)
        for hour in sorted({task.file.partition[0] for task in table.scan().plan_files()}):
            table.overwrite(table.scan(within(hour)).to_arrow(), overwrite_filter=within(hour))

    _timed.run(one)


if __name__ == "__main__":
    main()
