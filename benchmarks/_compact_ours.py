"""Ours, for `compact.py`: plan, rewrite, proof and commits."""

from functools import cache
from typing import Any

from benchmarks import _timed
from lakehouse_pipeline.config.maintenance import MaintenanceSettings
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.maintenance.compaction import compact, look, workers_of
from tests.iceberg.lake import spec_of


@cache
def session() -> Any:
    """Start Spark, as a run has it already."""
    from lakehouse_pipeline.engines.sessions import open_session  # noqa: PLC0415  # Spark, where it is used

    return open_session("local[2]", "compact")


def main() -> None:
    """Compact tables as `lakehouse compact` does."""
    warehouse, how = Warehouse.open(_timed.told()), _timed.how()
    settings = MaintenanceSettings(workers=how["workers"])

    def one(name: str) -> list[str]:
        table = warehouse.find(spec_of({"at": "timestamptz!"}, {"table": name}))
        assert table, name
        types = {column.name: f"{column.type}{'!' if column.required else ''}" for column in table.columns}
        keys = {"table": name, "compact": how["compact"]}
        spec = spec_of(types, {**keys, "key": how["key"]} if how["key"] else keys)
        plan = look(settings, spec, table)
        done = list(compact(warehouse, spec, plan, "benchmark", workers_of(settings, session)))
        failed = [each.error for each in done if each.error]
        assert not failed, failed
        return sorted({strategy for each in done for strategy, _ in each.strategies})

    _timed.run(one)


if __name__ == "__main__":
    main()
