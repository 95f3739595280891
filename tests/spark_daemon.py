"""PySpark's daemon that has imported what our tasks import: the worker after a failed task is a fork, not a second."""

from pyspark.daemon import manager

import lakehouse_pipeline.backfill.etl  # noqa: F401

if __name__ == "__main__":
    manager()
