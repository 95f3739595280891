"""A reader of whole tables, for `compact.py`: the processors' seconds that Arrow's own scan of all data files takes."""

import json

import pyarrow.dataset as ds
from pyarrow.fs import S3FileSystem
from pyiceberg.catalog import load_catalog

from benchmarks import _timed

TIMES = 3


def main() -> None:
    """Read a table some times, and print a JSON line with the least seconds."""
    told = _timed.told()
    (name,) = _timed.tables()
    catalog = load_catalog("reader", **{key: value for key, value in told.items() if key != "py-io-impl"})
    paths = [task.file.file_path.removeprefix("s3://") for task in catalog.load_table(name).scan().plan_files()]
    store = S3FileSystem(
        endpoint_override=told["s3.endpoint"],
        region=told["s3.region"],
        access_key=told["s3.access-key-id"],
        secret_key=told["s3.secret-access-key"],
    )
    files = ds.dataset(paths, filesystem=store, format="parquet")
    least = float("inf")
    for _ in range(TIMES):
        before = _timed.cpu_seconds()
        assert sum(batch.num_rows for batch in files.to_batches())
        least = min(least, _timed.cpu_seconds() - before)
    print(json.dumps({"cpu": least}))


if __name__ == "__main__":
    main()
