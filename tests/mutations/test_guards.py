"""Each guard has a test: without it, one that passes fails."""

import ast
from collections import Counter
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
    killers = {killer for guard in GUARDS for killer in guard.killers}
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
