"""All cases on one engine, in a process of its own: `python -m tests.conformance.runner ENGINE FOLDER`.

An engine belongs to a process: PySpark's functions speak either classic or Connect. Prints a JSON line a case.
"""

import json
import sys
from pathlib import Path

from lakehouse_pipeline.backfill.hour import run_hour
from lakehouse_pipeline.backfill.hour_run import Bench
from lakehouse_pipeline.config.lakehouse import Lakehouse, load_lakehouse
from lakehouse_pipeline.engines.sessions import LazySession
from lakehouse_pipeline.errors import LakehouseError
from lakehouse_pipeline.hours import HourWindow
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from tests.conformance.cases import HOUR, SHARED, Case
from tests.conformance.odd_inputs import CASES

LAKEHOUSE = 'catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse}\n'


def write_project(folder: Path, engine: str) -> None:
    """Write every case's spec and files."""
    (folder / "tables").mkdir(parents=True)
    (folder / "lakehouse.yaml").write_text(f"{LAKEHOUSE}engine: {engine}\n")
    for name, body in SHARED.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(body)
    for case in CASES.values():
        (folder / f"tables/{case.name}.yaml").write_text(case.spec)
        for name, text in case.texts.items():
            (folder / "tables" / name).write_text(text)
        (folder / "raw" / case.name).mkdir(parents=True)
        for name, body in case.files.items():
            (folder / "raw" / case.name / name).parent.mkdir(exist_ok=True)
            (folder / "raw" / case.name / name).write_bytes(body)


def run(case: Case, lakehouse: Lakehouse, warehouse: Warehouse, session: LazySession) -> dict[str, object]:
    """Run a case's hour, and say how it ended."""
    bench = Bench(lakehouse.spec(case.name), warehouse, session.get, "conformance")
    try:
        result = run_hour(bench, HourWindow.from_key(HOUR))
    except LakehouseError as error:
        return {"case": case.name, "error": f"{type(error).__name__}: {error}"}
    seal = result.seal
    return {"case": case.name, "rows": seal.rows, "read": seal.rows_read, "rejected": seal.rejected, "error": ""}


def main(engine: str, folder: Path) -> None:
    """Run all cases."""
    write_project(folder, engine)
    lakehouse = load_lakehouse(folder / "lakehouse.yaml", {})
    warehouse = Warehouse.open(lakehouse.catalog)
    session = LazySession(engine, "conformance")
    for case in CASES.values():
        print(json.dumps(run(case, lakehouse, warehouse, session)), flush=True)  # noqa: T201  # to the test
    session.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
