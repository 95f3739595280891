"""What is read is data: YAML makes no objects, and nothing that is stored is run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakehouse_pipeline
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.config.problems import SpecError
from lakehouse_pipeline.testing.fault_text import read_faults
from tests.projects import LAKEHOUSE, SPEC

PACKAGE = Path(lakehouse_pipeline.__file__).parent
TAGS = ("!!python/object/apply:os.mkdir [made]", "!!python/name:os.system ''", "!!python/object/new:os.mkdir [made]")

# Calls that make more than data of what they read, and where they are nevertheless.
RUNS = frozenset({"eval", "exec", "compile", "__import__"})
READS = {
    "pickle": frozenset({"load", "loads", "Unpickler"}),
    "cloudpickle": frozenset({"load", "loads"}),
    "marshal": frozenset({"load", "loads"}),
    "shelve": frozenset({"open"}),
    "yaml": frozenset({"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"}),
}
ALLOWED = {
    ("engines/workers.py", "pickle.loads"),  # answers of our own tasks, of the job that has asked for them
    ("engines/preflight.py", "pickle.loads"),  # what a task of ours is told, by the driver that sends it
    ("backfill/functions.py", "compile"),  # a transform's module: trusted code, from the folder of the specs
    ("backfill/functions.py", "exec"),
}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("name", ["lakehouse.yaml", "tables/events.yaml"])
def test_a_tag_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, tag: str) -> None:
    """It is refused with file and line, whatever it would have made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tables").mkdir()
    (tmp_path / "lakehouse.yaml").write_text(LAKEHOUSE)
    (tmp_path / "tables" / "events.yaml").write_text("".join(f"{key}: {value}\n" for key, value in SPEC.items()))
    lines = (tmp_path / name).read_text().splitlines()
    (tmp_path / name).write_text("\n".join([*lines, f"description: {tag}", ""]))
    with pytest.raises(SpecError, match=rf"(?m)^{name}:{len(lines) + 1}: the tag \S*python/\S+ is not supported"):
        load_lakehouse(Path("lakehouse.yaml"), {})
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_in_a_list_of_faults_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: str) -> None:
    """The other file of YAML that somebody writes."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "faults.yaml"
    file.write_text(f"- effect: {tag}\n")
    with pytest.raises(ValueError, match=r"faults\.yaml"):
        read_faults(file)
    assert not (tmp_path / "made").exists()


def calls() -> Iterator[tuple[str, str]]:
    """Go through the calls of the package: the file, and what is called as it is written."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield str(file.relative_to(PACKAGE)), ast.unparse(node.func)
            elif isinstance(node, ast.ImportFrom):  # `from pickle import loads` would hide what is called
                yield from ((str(file.relative_to(PACKAGE)), f"{node.module}.{each.name}") for each in node.names)


def test_nothing_that_is_stored_is_run() -> None:
    """No pickle of a file or an object, no evaluated text, and no YAML but by its safe loaders."""
    found = list(calls())
    assert len(found) > 1000
    unsafe = {f"{module}.{name}" for module, names in READS.items() for name in names}
    met = {(file, call) for file, call in found if call in RUNS or call in unsafe}
    assert met == ALLOWED
