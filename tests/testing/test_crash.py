"""Crash points: named in the source, named to the process, and deadly."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse_pipeline import events
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.testing.crash import POINTS, VARIABLE, CrashPoint, crash_where_told

PACKAGE = Path(events.__file__).parent
NAMED = re.compile(r'(?:emit\(|name = |else )\s*"([a-z]+\.[a-z_]+)"')


def test_every_event_is_a_point() -> None:
    """What is said somewhere in the package is what a process can be killed at."""
    named = {name for file in PACKAGE.rglob("*.py") for name in NAMED.findall(file.read_text())}
    assert sorted(named) == sorted(POINTS)


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("commit.snet", r"no point 'commit\.snet'; there are attempt\.aborting, "),
        ("commit.sent:0", r"'0' is no count; write commit\.sent:2"),
        ("commit.sent:", "'' is no count"),
        ("commit.sent:-1", "'-1' is no count"),
    ],
)
def test_what_is_no_point_is_refused(text: str, saying: str) -> None:
    """A point that is never met would look like a run that survives."""
    with pytest.raises(ConfigurationError, match=saying):
        CrashPoint.parse(text)


def test_nothing_told_is_nothing_done() -> None:
    """The rule."""
    before = list(events._subscribers)
    crash_where_told({})
    crash_where_told({VARIABLE: ""})
    assert events._subscribers == before


def test_it_kills_at_the_nth() -> None:
    """Nothing is flushed, and no block ends."""
    code = (
        "from lakehouse_pipeline import events\n"
        "from lakehouse_pipeline.testing.crash import crash_where_told\n"
        f"crash_where_told({{{VARIABLE!r}: 'commit.sent:2'}})\n"
        "for name in ('commit.sent', 'commit.landed', 'commit.sent', 'commit.landed'):\n"
        "    print(name, flush=True)\n"
        "    events.emit(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["commit.sent", "commit.landed", "commit.sent"]
