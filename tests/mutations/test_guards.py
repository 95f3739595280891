"""Each guard has a test: without it, one that passes fails."""

import ast
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.mutations.conftest import GUARD
from tests.mutations.guard import PACKAGE, ROOT, Guard
from tests.mutations.mutants import TESTS_FAILED, Run, is_of, mutant, run
from tests.mutations.of_attempts import OF_ATTEMPTS
from tests.mutations.of_commits import OF_COMMITS
from tests.mutations.of_maintenance import OF_MAINTENANCE
from tests.mutations.of_requests import OF_REQUESTS
from tests.mutations.of_stores import OF_STORES

GUARDS = (*OF_STORES, *OF_ATTEMPTS, *OF_COMMITS, *OF_MAINTENANCE, *OF_REQUESTS)
HISTORIES = "tests/maintenance/test_life.py::test_histories_that_are_the_same_each_time"
NOTICED = (
    "a commit asserts what `main` stood on",
    "`main` is moved before a sealed attempt is given up",
    "an hour is replaced only while its live files are those it was opened on",
    "what is young is no orphan",
    "a commit that landed is found",
    "a record is replaced only by who knows its version",
    "a second pass waits for the grace of zombies",
    "a young sweep is not purged",
    "an attempt that has landed is not given up",
    "an hour that was taken is not committed by who had it",
    "an hour whose source changed is not skipped",
    "an open attempt is out of its record before its files go",
)
OF_HISTORIES = tuple(replace(guard, killers=(HISTORIES,)) for guard in GUARDS if guard.name in NOTICED)
WHOLE_S = 1800.0  # of the run without mutants, which has all the tests

# Of a mutant that does not even run; a test that needs a name which is no more would fail of that, too.
BROKEN = ("NameError", "UnboundLocalError", "SyntaxError", "ImportError", "ModuleNotFoundError")


@cache
def functions_of(file: Path) -> frozenset[str]:
    """Name the tests in a file, as node ids do."""
    found = set[str]()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return frozenset(found)


def test_the_guards_are_where_the_table_says() -> None:
    """Each source text occurs once, the file is Python without it, and every killer is a test that is there."""
    wrong = [guard.name for guard in GUARDS if guard.text.count(guard.source) != 1]
    assert wrong == []
    for guard in GUARDS:
        ast.parse(guard.without())
    assert len(OF_HISTORIES) == len(NOTICED)
    killers = {killer for guard in (*GUARDS, *OF_HISTORIES) for killer in guard.killers}
    split = [killer.partition("[")[0].partition("::") for killer in killers]
    assert [f"{file}::{name}" for file, _, name in split if name not in functions_of(ROOT / file)] == []
    assert [guard.name for guard in GUARDS if not guard.killers] == []


def test_no_guard_is_there_twice() -> None:
    """Neither by its name nor by what is taken away."""
    assert [name for name, count in Counter(guard.name for guard in GUARDS).items() if count > 1] == []
    assert len({(guard.file, guard.without()) for guard in GUARDS}) == len(GUARDS)


@pytest.fixture(scope="session")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the killers of all guards that were asked for, on the package as it is."""
    asked = [params_of(item)["guard"] for item in request.session.items if "guard" in params_of(item)]
    killers = dict.fromkeys(killer for guard in asked for killer in guard.killers)
    return run(killers, tmp_path_factory.mktemp("whole"), most_s=WHOLE_S)


def params_of(item: pytest.Item) -> dict[str, Guard]:
    """Give what a case was made with."""
    return getattr(getattr(item, "callspec", None), "params", {})


@pytest.mark.full
@pytest.mark.timeout(WHOLE_S)  # the first has to wait for the run without mutants
@pytest.mark.parametrize("guard", [pytest.param(guard, id=guard.name) for guard in GUARDS])
def test_without_the_guard_a_test_fails(
    guard: Guard, whole: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One of its killers, all of which pass with it; the mutated module is what they imported."""
    _without(guard, whole, tmp_path, request)


@pytest.mark.full
@pytest.mark.timeout(WHOLE_S)
@pytest.mark.parametrize("guard", [pytest.param(guard, id=guard.name) for guard in OF_HISTORIES])
def test_without_the_guard_histories_fail(
    guard: Guard, whole: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A table's life under any weather notices by itself what its laws stand on."""
    _without(guard, whole, tmp_path, request)


def _without(guard: Guard, whole: Run, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for killer in guard.killers:
        assert any(is_of(test, killer) for test in whole.passed), whole.output
        assert not any(is_of(test, killer) for test in whole.failed), whole.output
    package = mutant(guard, tmp_path)
    (scratch := tmp_path / "scratch").mkdir()
    done = run(guard.killers, scratch, package)
    assert done.imported.get(guard.module) == str(package / PACKAGE / guard.file), done.output
    killer = done.killed_by(guard.killers)
    assert killer, f"it survives\n{done.output}"
    assert done.code == TESTS_FAILED
    assert not any(error in how for hows in done.failed.values() for how in hows for error in BROKEN), done.output
    request.node.user_properties.append((GUARD, (guard.name, guard.file, killer)))
