"""Ours, for `compact.py`: plan, rewrite, proof and commits."""

from benchmarks import _timed
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.iceberg.hourly import Warehouse
from lakehouse_pipeline.maintenance.compaction import compact, look
from tests.iceberg.lake import EVENTS, spec_of


def main() -> None:
    """Compact tables as `lakehouse compact` does."""
    warehouse = Warehouse.open(_timed.told())

    def one(name: str) -> None:
        spec = spec_of(EVENTS, {"table": name})  # of which no more than the names of table and hour is asked
        table = warehouse.find(spec)
        assert table, name
        plan = look(MaintenanceSettings(), table)
        failed = [done.error for done in compact(warehouse, spec, plan, "benchmark") if done.error]
        assert not failed, failed

    _timed.run(one)


if __name__ == "__main__":
    main()
