"""Runs of a few tests in a process of their own: on the package as it is, or on a copy of it without a guard."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.guard import PACKAGE, ROOT, Guard

TESTS_FAILED = 1  # pytest's exit code; others are of runs that came to no test
MOST_S = 600.0  # of a run: a mutant may wait for ever, and its tests end by a timeout of their own
TIMEOUT_S = 60  # of a test


@dataclass(frozen=True)
class Run:
    """What became of a run.

    Attributes:
        code: the exit code.
        failed: by test, how it failed: in which phase, and with which error.
        passed: tests.
        imported: modules of the package, and the files that they are of.
        output: all that it said.
    """

    code: int
    failed: Mapping[str, Sequence[str]]
    passed: Sequence[str]
    imported: Mapping[str, str]
    output: str

    def killed_by(self, killers: Collection[str]) -> str:
        """Name the test of those asked for that failed as it was called; empty where none did."""
        calls = [test for test, how in self.failed.items() if any(each.startswith("call ") for each in how)]
        return next((test for test in calls if any(is_of(test, killer) for killer in killers)), "")


def is_of(test: str, killer: str) -> bool:
    """Tell whether a test is one that was asked for, or a case of it."""
    return test == killer or test.startswith(f"{killer}[")


def mutant(guard: Guard, folder: Path) -> Path:
    """Copy the package into a folder, without a guard; gives where the copy is to be imported from."""
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE)
    (folder / PACKAGE / guard.file).write_text(guard.without())
    return folder


def run(killers: Collection[str], scratch: Path, package: Path = ROOT, *, most_s: float = MOST_S) -> Run:
    """Run tests.

    Args:
        killers: node ids.
        scratch: an empty folder for all that they write.
        package: where the package is imported from.
        most_s: how long it may take.
    """
    told = scratch / "witness.json"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys((str(package), str(ROOT)))),  # of processes that tests start, too
        "MUTATION_WITNESS": str(told),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),  # what fails here is no example for other runs
        "PYTEST_ADDOPTS": "",
    }
    command = [
        *(sys.executable, "-P", "-m", "pytest", "-q", "-p", "tests.mutations.witness", "-p", "no:cacheprovider"),
        *("-o", f"pythonpath={shlex.join(dict.fromkeys((str(package), str(ROOT))))}"),
        *("-m", ""),  # whatever its mark, a killer was asked for
        *("--basetemp", str(scratch / "tests"), f"--timeout={TIMEOUT_S}", "--tb=short", "--color=no"),
        *(("-x",) if package != ROOT else ()),
        *killers,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=most_s,
        check=False,
    )
    seen = json.loads(told.read_text()) if told.exists() else {"failed": {}, "passed": [], "imported": {}}
    return Run(done.returncode, **seen, output=done.stdout + done.stderr)
