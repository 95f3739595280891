"""Ours, for `sweep.py`: an audit under the maintenance lease, as `lakehouse sweep` makes it without `--delete`."""

from datetime import UTC, datetime, timedelta

from benchmarks import _timed
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance.audit import SweepRules
from lakehouse_pipeline.maintenance.lease import maintaining
from lakehouse_pipeline.maintenance.sweep import audit_table
from lakehouse_pipeline.object_store.counts import counting
from tests.iceberg.lake import spec_of


def main() -> None:
    """Audit tables, as if in four days."""
    warehouse = Warehouse.open(_timed.told())
    age = timedelta(days=3)
    rules = SweepRules(older_than=age, moment=datetime.now(UTC) + age + timedelta(days=1))

    def one(name: str) -> dict[str, int]:
        spec = spec_of({"at": "timestamptz!"}, {"table": name})
        with counting() as counter:
            table = warehouse.find(spec)
            assert table, name
            with maintaining(table, "audit", "benchmark") as held:
                report = audit_table(warehouse, spec, table, rules, held)
        return {"orphans": report.orphans.files, "requests": counter.snapshot().requests}

    _timed.run(one)


if __name__ == "__main__":
    main()
