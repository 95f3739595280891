"""The repository as a whole: nothing in it names the machine, or the package index, that it was made with."""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Spelled so that this file does not match itself.
FORBIDDEN = re.compile(
    r"""(?<![\w.~-])/(?:w[o]rk|r[o]ot|f[a]rm)/  # a folder of one machine
      | index[-_]url                            # a package index, as pip's options and settings name it
      | "resolved":\s*"http                     # the same, as npm's lock files do
      | registry\s*=\s*"?http""",
    re.VERBOSE | re.IGNORECASE,
)


def tracked_files() -> list[Path]:
    """What git tracks; of a tree without git, or that git refuses to read, whatever .gitignore leaves."""
    git = shutil.which("git")
    if git:
        listing = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True)
        if listing.returncode == 0:
            return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]
    ignored = [".git", *(line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split())]
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file()
        and not any(fnmatch(part, pattern) for part in path.relative_to(ROOT).parts for pattern in ignored)
    ]


def findings(content: bytes) -> list[str]:
    """Lines that match, each with its number; none in a binary file."""
    if b"\0" in content:
        return []
    lines = content.decode(errors="replace").splitlines()
    return [f"{number}: {line.strip()}" for number, line in enumerate(lines, start=1) if FORBIDDEN.search(line)]


def test_no_file_names_the_machine_or_an_index() -> None:
    """A clone works, and reads, the same anywhere: no path of one machine, no address of a package index."""
    files = tracked_files()
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in findings(path.read_bytes())]

    assert ROOT / "pyproject.toml" in files
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("cd " + "/wo" + "rk/main", id="folder"),
        pytest.param("file://" + "/ro" + "ot/.config", id="file address"),
        pytest.param("PIP_INDEX" + "_URL=x", id="environment"),
        pytest.param("--extra-index" + "-url x", id="option of pip"),
        pytest.param('"resol' + 'ved": "https://x"', id="lock file of npm"),
        pytest.param("regis" + "try=https://x", id="setting of npm"),
    ],
)
def test_forbidden_lines_are_found(line: str) -> None:
    """Each kind of line that the test above is for is one that it finds."""
    assert findings(f"first\n{line}\n".encode()) == [f"2: {line}"]


@pytest.mark.parametrize("line", ["s3://raw/wo" + "rk/2013/", "./ro" + "ot/file", "workspace.yaml"])
def test_ordinary_lines_are_not_found(line: str) -> None:
    """A key or a relative path may hold such a word."""
    assert findings(line.encode()) == []


def test_constraints_hold_names_and_versions_only() -> None:
    """Below its comments, each line of constraints.txt is one exact version: no address, hash, option or marker."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    versions = [line for line in lines if not line.startswith("# ")]

    assert versions
    assert [line for line in versions if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
