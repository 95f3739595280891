"""PySpark's daemon, which imports what our tasks need before it forks them: a new worker need not, for a second each.

`spark.python.daemon.module` names it, where Spark runs on this machine; elsewhere our package comes with the tasks.
"""

from pyspark.daemon import manager

import lakehouse_pipeline.backfill.etl  # noqa: F401

if __name__ == "__main__":
    manager()
