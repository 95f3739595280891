"""Specs and path templates that nobody would write: read as they are meant, or refused with their place."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lakehouse_pipeline.config.lakehouse import load_lakehouse
from lakehouse_pipeline.config.paths import hour_directives, literal, render, resolve, span, uses_hour
from lakehouse_pipeline.config.problems import Problem, SpecError
from lakehouse_pipeline.config.table import TableSpec
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HOUR, HourWindow
from lakehouse_pipeline.object_store.file_io import LakehouseFileIO
from lakehouse_pipeline.sources.listing import list_objects_of

LAKEHOUSE = 'catalog: {type: sql, uri: "sqlite:///catalog.db", warehouse: warehouse}\n'
SPEC: dict[str, Any] = {
    "table": "lake.events",
    "description": "text",
    "owners": ["team:events"],
    "source": {
        "path": "raw/%Y/%m/%d/%H*.jsonl.gz",
        "format": "jsonl",
        "columns": {"at": "timestamptz!", "id": "long!", "who": "struct<name:string,ages:list<int>>", "size": "double"},
        "bad_rows": "reject",
        "missing": "empty",
        "reader": "arrow",
    },
    "join": {"kinds": "raw/kinds.parquet", "days": {"path": "raw/%Y/%m/%d.csv", "columns": {"id": "long"}}},
    "transform": "t.sql",
    "columns": {"at": "timestamptz!", "id": "long!", "size": "decimal(9, 2)"},
    "hour": "at",
    "other_hours": "reject",
    "partition": ["bucket(16, id)"],
    "key": ["id"],
    "sort": ["size desc", "id"],
    "check_order": "true",
    "file_size": "256MB",
    "freshness": "3h",
    "late": "72h",
    "start": "2013-01-01",
    "end": "2013-02-01",
    "compact": {"min_input_files": "2", "delete_ratio_threshold": "50%"},
    "properties": {"write.parquet.compression-level": "3"},
}
PROBLEM = re.compile(r"(lakehouse\.yaml|tables/events\.yaml):[1-9][0-9]*: .+")

ODD_TEXT = st.sampled_from(
    [
        *("", " ", "null", "~", "no", "true", "1e999", "-1", "0", "9" * 400, "\u0661", "٣h", "%", "%%", "%H", "%q"),
        *(
            "s3://",
            "s3://b/",
            "file:///",
            "/",
            "..",
            "~/x",
            "a\tb",
            "é" * 300,
            "\u202e",
            "\u2028",
            "\ufeff",
            "\U0001f600",
        ),
        *(
            "struct<",
            "struct<a:int",
            "list<list<" * 30,
            "map<struct<a:int>,int>",
            "decimal(99,1)",
            "decimal(1,9)",
            "int!!",
        ),
        *(
            "0000-00-00",
            "9999-12-31",
            "10000-01-01",
            "0001-01-01",
            "2013-02-30",
            "2013-01-01-25:00",
            "2013-01-01T00:00+01:00",
        ),
        *(
            "bucket(0, id)",
            "bucket(99999999999, id)",
            "truncate(-1, id)",
            "a desc desc",
            "${X}",
            "${",
            "$",
            "{{x}}",
            "999999d",
        ),
        *("nowhere:f", "t.sql:f", ":", "a:b:c", "../../etc/passwd", "t.SQL", ".sql", "0B", "1e3MB", "99999999999999TB"),
    ]
)
TEXTS = ODD_TEXT | st.text(max_size=8)
KEYS = st.sampled_from([*SPEC, *SPEC["source"], "at", "id", "x", "<<"]) | TEXTS
TREES = st.recursive(
    TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


def paths_of(tree: object, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List the ways to all values of a tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in pairs for path in [(*here, key), *paths_of(value, (*here, key))]]


def changed(tree: Any, path: tuple[Any, ...], value: object) -> Any:
    """Give a tree with another value at a path; None takes it out."""
    if not path:
        return value
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    inner = [(key, changed(each, path[1:], value) if key == path[0] else each) for key, each in pairs]
    kept = [(key, each) for key, each in inner if each is not None]
    return dict(kept) if isinstance(tree, dict) else [each for _, each in kept]


@st.composite
def mutations(draw: st.DrawFn) -> dict[str, Any]:
    """A valid spec with one to three of its values replaced, added to or taken out."""
    tree: dict[str, Any] = SPEC
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(paths_of(tree)))
        if draw(st.booleans()):
            path = (*path[:-1], draw(KEYS)) if isinstance(path[-1], str) else path
            assume(path[:1] != ("table",) or len(path) == 1)
        found = changed(tree, path, draw(st.none() | TREES))
        tree = found if path in paths_of(tree) else added(tree, path, draw(TREES))
    return tree


def added(tree: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Give a tree with one key more."""
    inner: Any = tree
    for key in path[:-1]:
        inner = inner[key]
    return dict(changed(tree, path[:-1], {**inner, path[-1]: value}) if path[:-1] else {**tree, path[-1]: value})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a project with a transform and no table."""
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/t.sql").write_text("SELECT at, id, size FROM source")
    (tmp_path / "lakehouse.yaml").write_text(LAKEHOUSE)
    return tmp_path


def load(folder: Path, text: str) -> TableSpec | None:
    """Load a spec's text; None where it was refused in our words, at a line of its."""
    file = folder / "tables/events.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    lakehouse = None
    problems: tuple[Problem, ...] = ()
    try:
        lakehouse = load_lakehouse(folder / "lakehouse.yaml", {})
    except SpecError as error:
        problems = error.problems
    assert (lakehouse is None) == bool(problems)
    assert all(PROBLEM.fullmatch(str(problem).replace(f"{folder}/", "")) for problem in problems)
    assert all(problem.line <= len(text.splitlines()) + 1 for problem in problems)
    return lakehouse.spec("events") if lakehouse else None


FUZZ = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_the_spec_that_is_mutated_is_right(folder: Path) -> None:
    """Without a mutation there is nothing to say."""
    assert load(folder, yaml.safe_dump(SPEC)) is not None


@FUZZ
@given(tree=mutations())
def test_a_mutated_spec_is_a_spec_or_told(folder: Path, tree: dict[str, Any]) -> None:
    """Values of any shape in any place: a spec, or problems each with file and line; no other error, no hang."""
    load(folder, yaml.safe_dump(tree, allow_unicode=True, default_style='"', width=10_000))


@FUZZ
@given(tree=st.dictionaries(KEYS, TREES, max_size=6) | TREES)
def test_any_tree_is_told(folder: Path, tree: object) -> None:
    """A file that has little of a spec is refused, whatever it holds."""
    assert load(folder, yaml.safe_dump(tree, allow_unicode=True)) is None


@FUZZ
@given(data=st.data())
def test_a_damaged_text_is_a_spec_or_told(folder: Path, data: st.DataObject) -> None:
    """Characters that are cut out, put in or doubled anywhere in the text of a spec."""
    text = yaml.safe_dump(SPEC)
    for _ in range(data.draw(st.integers(1, 3))):
        at, cut = data.draw(st.integers(0, len(text))), data.draw(st.sampled_from([0, 0, 1, 2, 40]))
        put = data.draw(st.text(alphabet=":-[]{}&*!|>'\"#%@`?, \t\r\nab\x00\u2028\ufeff", max_size=4) | TEXTS)
        text = text[:at] + put + text[at + cut :]
    load(folder, text)


# ---------------------------------------------------------------------------------------------------------------------
# Templates
# ---------------------------------------------------------------------------------------------------------------------

FIRST = datetime(1, 1, 1, tzinfo=UTC)
HOURS = st.integers(0, 9998 * 8766).map(lambda n: HourWindow(FIRST + n * HOUR))
ODD_NAMES = st.text(
    alphabet=st.characters(exclude_characters="/*?[]\0", exclude_categories=["Cs"]) | st.sampled_from("%{}$#+ ~.&=\\"),
    min_size=1,
    max_size=6,
)
TIMES = ("%Y", "%m", "%d", "%H")


@st.composite
def templates(draw: st.DrawFn, least: int = 4) -> str:
    """A template with its first directives in order, odd literal text about them, and sometimes one once more."""
    parts: list[str] = []
    for time in TIMES[: draw(st.integers(least, 4))]:
        parts += [literal(draw(ODD_NAMES)), draw(st.sampled_from(["", "/", "%%", "//"])), time]
    again: bool = draw(st.booleans())
    if parts and again:
        parts.append(draw(st.sampled_from([part for part in parts if part in TIMES])))
    return f"s3://raw/{''.join(parts)}{literal(draw(ODD_NAMES))}.csv"


@given(template=templates(), hour=HOURS, other=HOURS)
def test_an_hours_name_is_of_no_other_hour(template: str, hour: HourWindow, other: HourWindow) -> None:
    """With all four directives two hours have the same name only if they are one."""
    assert (render(template, hour) == render(template, other)) == (hour == other)
    assert span(template, hour) == (hour.start, hour.end)


@given(template=templates(), hour=HOURS)
def test_a_name_gives_its_hour_back(template: str, hour: HourWindow) -> None:
    """What stands in the places of the directives is the hour that was filled in."""
    name, at = render(template, hour), 0
    found: dict[str, str] = {}
    for part in re.split(r"(%.)", template, flags=re.DOTALL):
        width = {"%Y": 4, "%%": 1}.get(part, 2 if part in TIMES else len(part))
        text, at = name[at : at + width], at + width
        if part in TIMES:
            assert found.setdefault(part, text) == text
        else:
            assert text == ("%" if part == "%%" else part)
    assert at == len(name)
    assert [int(found[time]) for time in TIMES] == [*hour.start.timetuple()[:4]]


@given(template=templates(0), hour=HOURS, more=st.integers(-40 * 24, 40 * 24))
def test_hours_share_a_name_as_long_as_its_span(template: str, hour: HourWindow, more: int) -> None:
    """Of a template with fewer directives, the hours of one name are those of its span."""
    assume(2 <= hour.start.year <= 9998)
    other = HourWindow(hour.start + more * HOUR)
    covered = span(template, hour)
    within = covered is None or covered[0] <= other.start < covered[1]
    assert (render(template, hour) == render(template, other)) == within
    assert uses_hour(template) == (covered is not None)
    assert len(hour_directives(template)) == sum(time in re.findall("%.", template, re.DOTALL) for time in TIMES)


@given(text=st.text(alphabet="%YmdHMj\u0130s3:/.*é\n", max_size=12), hour=HOURS)
def test_any_text_is_a_template_or_refused(text: str, hour: HourWindow) -> None:
    """What is not refused is an absolute URL, and can be filled in."""
    try:
        url = resolve(text, Path("/a 100%/b"))
    except ConfigurationError:
        return
    assert re.match(r"(s3://[^/]+/|file:///)", render(url, hour))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=ODD_NAMES, globs=st.booleans(), hour=HOURS)
def test_an_object_is_found_by_its_own_hour_alone(tmp_path: Path, name: str, globs: bool, hour: HourWindow) -> None:  # noqa: FBT001
    """A name of any characters is found through its template, by its hour, and by no hour beside it."""
    assume(not name.startswith((".", "_")) and len(name.encode()) < 100 and hour.start.year < 9999)
    io = LakehouseFileIO()
    template = resolve(f"raw/{literal(name)}-%Y%m%d%H{'?[a-c]*' if globs else '-b'}.csv", tmp_path)
    url = f"{render(template, hour)}".replace("?[a-c]*", "-b")
    io.put(url, b"x")
    try:
        assert [found.url for found in list_objects_of(io, render(template, hour))] == [url]
        for beside in (timedelta(hours=1), timedelta(days=1), timedelta(days=366)):
            assert list_objects_of(io, render(template, HourWindow(hour.start + beside))) == ()
    finally:
        io.delete(url)
