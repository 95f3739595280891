"""A plugin of a pytest run on a mutant: writes down what became of each test, and which package was imported.

The run names the file to write by `MUTATION_WITNESS`.
"""

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

PACKAGE = "lakehouse_pipeline"

_failed: dict[str, list[str]] = {}
_passed: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hear how a phase of a test ended."""
    report = yield
    if report.failed:
        error = call.excinfo.typename if call.excinfo else ""
        _failed.setdefault(item.nodeid, []).append(f"{call.when} {error}")
    elif report.passed and call.when == "call":
        _passed.append(item.nodeid)
    return report


def pytest_sessionfinish() -> None:
    """Write it down."""
    imported = {
        name: getattr(module, "__file__", None)
        for name, module in sys.modules.items()
        if name.partition(".")[0] == PACKAGE
    }
    told = {"failed": _failed, "passed": _passed, "imported": imported}
    Path(os.environ["MUTATION_WITNESS"]).write_text(json.dumps(told))
