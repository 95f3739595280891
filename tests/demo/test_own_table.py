"""From raw files of a kind that nobody saw before to a backfilled table, as the how-to page says, word for word."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from pyspark.sql import SparkSession

from lakehouse_pipeline.cli.main import main
from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.iceberg.warehouse import Warehouse
from lakehouse_pipeline.orchestration.assets import build_defs

HOURS = (4, 5, 6)


def _type(*arguments: str) -> None:
    done = CliRunner().invoke(main, list(arguments))
    assert (done.exit_code, done.stderr) == (0, "")


def test_from_raw_files_to_a_table(tmp_path: Path, spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """`init`, `new`, one edited line, `check`, a backfill: all rows are there, though no column was a timestamp."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAKEHOUSE_CONFIG", raising=False)
    _type("init", "lake")
    monkeypatch.chdir("lake")
    Path("raw").mkdir()
    for hour in HOURS:
        rows = "".join(f"01.05.2024 {hour:02d}:{minute:02d},00{minute}\n" for minute in range(20))
        Path(f"raw/air_20240501T{hour:02d}.csv").write_text(f"Zeit,station\n{rows}")
    _type("new", "air", "--from", "raw/air_20240501T05.csv")
    spec = Path("tables/air.yaml")
    spec.write_text(spec.read_text().replace("# sort: []", "sort: [station]"))
    _type("check")
    lakehouse = load_lakehouse(Path("lakehouse.yaml"), {})
    with dg.DagsterInstance.ephemeral() as instance:
        done = (
            build_defs(lakehouse)
            .resolve_job_def("air_job")
            .execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": "2024-05-01-04:00",
                    "dagster/asset_partition_range_end": "2024-05-01-06:00",
                },
            )
        )
    assert done.success
    table = Warehouse.open(lakehouse.catalog).table(lakehouse.spec("air"))
    assert table is not None
    found = table.rows(["event_time", "station"]).to_pylist()
    assert sorted({row["event_time"].hour for row in found}) == list(HOURS)
    assert sorted(row["station"] for row in found) == sorted(f"00{n}" for n in range(20) for _ in HOURS)


# -- The page, typed ---------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/how-to/your-own-table.md").read_text()
UNDER = re.compile(
    r"^(?:## \d\. (.*)|\*\*(.*?)\*\*.*)$", re.MULTILINE
)  # a step's heading, or the bold words of a mistake
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"^\$ (.*?)(?: +#.*)?\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
EXITS = re.compile(r"# exit code (\d)\n")
SPEC, RAW = Path("tables/air.yaml"), Path("raw")


def blocks_of(page: str) -> dict[str, list[tuple[str, str]]]:
    """Give the blocks of each step, and of each mistake: their language, and what stands in them."""
    *begins, end = (*UNDER.finditer(page.partition("## When it is")[0]), None)
    found = {}
    for begin, following in zip(begins, (*begins[1:], end), strict=True):
        part = page[begin.end() : following.start() if following else page.index("## When it is")]
        found[begin[1] or begin[2]] = [(block[1], block[2]) for block in BLOCK.finditer(part)]
    return found


def change(*changes: tuple[str, str]) -> None:
    """Change texts of the spec, each of which is there once."""
    spec = SPEC.read_text()
    for before, after in changes:
        assert spec.count(before) == 1, before
        spec = spec.replace(before, after)
    SPEC.write_text(spec)


def _apply(diff: str) -> None:
    signs = {sign: [line[1:] for line in diff.splitlines() if line[0] == sign] for sign in "-+"}
    change(*zip(signs["-"], signs["+"], strict=True))


def _spoil() -> None:
    file = RAW / "air-2024-05-01T07.csv.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    station, moment, _, rest = lines[20].split(",", 3)
    lines[20] = f"{station},{moment},n/a,{rest}"
    file.write_bytes(gzip.compress("\n".join(lines).encode()))


def _add_sql() -> None:
    (SPEC.parent / "air.sql").write_text("SELECT statoin, measured_at FROM source")
    change(("# transform: air.sql #", "accepts: [integer_overflow]\ntransform: air.sql #"))  # Sail asks for that


# What the page says in words before each block of commands of a mistake.
SAID: dict[str, list[Callable[[], object]]] = {
    "The spec.": [lambda: change(("pm2_5: double", "pm2_5: doubel"), ("  # bad_rows: reject", "  bad_row: fail"))],
    "A raw file.": [_spoil, lambda: change(("  # bad_rows: reject", "  bad_rows: reject"))],
    "A file that is not there.": [(RAW / "air-2024-05-01T11.csv.gz").unlink],
    "A key that is none.": [lambda: change(("key: [station, measured_at]", "key: [sensor_ok]"))],
    "SQL that the engine refuses.": [_add_sql],
    "A type that the table cannot take.": [lambda: change(("temperature: double", "temperature: string"))],
}


def type_all(text: str) -> None:
    """Type the commands of a block, and hold what they say against what stands below them; `…` is anything."""
    for typed in TYPED.finditer(text):
        code = EXITS.search(typed[0])
        if typed[1].startswith("lakehouse "):
            command, _, folder = typed[1].partition(" && cd ")
            done = CliRunner().invoke(main, shlex.split(command)[1:])
            told = (done.exit_code, done.stdout or done.stderr)
            if folder:
                os.chdir(folder)
        else:
            shell = subprocess.run(typed[1], shell=True, capture_output=True, text=True, check=False)  # noqa: S602
            told = (shell.returncode, shell.stdout)
        lines = (r"(?:.*\n)*" if line.strip() == "…" else f"{_like(line)}\n" for line in typed[2].splitlines())
        assert told[0] == (int(code[1]) if code else 0), f"{typed[1]}\n{told[1]}"
        assert re.fullmatch("".join(lines), told[1]), f"{typed[1]}\n{told[1]}"


def _like(line: str) -> str:
    return ".*".join(map(re.escape, line.split("…")))


def test_the_page_is_typed(tmp_path: Path, sail: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the page says what the page says, and ends as the page says; only the engine is another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAKEHOUSE_CONFIG", raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "120")  # of the terminal that the page was typed in
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    found = blocks_of(PAGE)
    assert set(SAID) <= set(found)
    for name, parts in found.items():
        before = {path: path.read_bytes() for path in (SPEC, *RAW.glob("*.gz")) if path.exists()}
        said = iter(SAID.get(name, []))
        for language, text in parts:
            if language == "diff":
                _apply(text)
            elif language == "python" and name == "A project":
                Path("make_air.py").write_text(text)
            elif language == "python":
                subprocess.run([sys.executable, "-c", text], check=True, capture_output=True)
            elif language == "yaml":
                assert SPEC.read_text() == text
            else:
                next(said, lambda: None)()
                type_all(text.replace("$ . .venv/bin/activate", "$ true"))
            engine = Path("lakehouse.yaml").read_text()
            Path("lakehouse.yaml").write_text(
                re.sub("^# engine:.*|^engine:.*", "engine: sail", engine, flags=re.MULTILINE)
            )
        assert next(said, None) is None
        if name in SAID:
            for path, content in before.items():
                if not path.exists() or path.read_bytes() != content:  # one that is written anew is another object
                    path.write_bytes(content)
