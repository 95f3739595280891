from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.config.paths import format_of, literal, render, resolve, resolve_folder, uses_hour
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.hours import HourWindow

HOUR = HourWindow.from_key("2013-02-03-04:00")
FOLDER = Path("/project")


@pytest.mark.parametrize(
    ("path", "rendered"),
    [
        pytest.param("s3://b/%Y/%m/%d/%H*.gz", "s3://b/2013/02/03/04*.gz", id="folders"),
        pytest.param("s3://b/%Y%m%d-%H-%Y", "s3://b/20130203-04-2013", id="together and twice"),
        pytest.param("s3://b/100%%/%%H%H", "s3://b/100%/%H04", id="percent signs"),
        pytest.param("s3://b/a.parquet", "s3://b/a.parquet", id="no hour"),
    ],
)
def test_render(path: str, rendered: str) -> None:
    """An hour's path has its digits, padded, and single percent signs."""
    assert render(path, HOUR) == rendered


def test_years_have_four_digits() -> None:
    """An early year is padded, which strftime leaves out on Linux."""
    assert render("%Y", HourWindow.from_key("0999-01-01-00:00")) == "0999"


@pytest.mark.parametrize(
    ("path", "uses"), [("s3://b/%H", True), ("s3://b/%%H", False), ("s3://b/x", False), ("s3://b/%%%d", True)]
)
def test_uses_hour(path: str, uses: bool) -> None:  # noqa: FBT001  # a case of the table
    """A path uses the hour if a directive of it is left after percent signs are taken out."""
    assert uses_hour(path) is uses


@given(st.text())
def test_literal_text_renders_as_it_is(text: str) -> None:
    """`render` undoes `literal`, whatever the text."""
    assert render(literal(text), HOUR) == text


@pytest.mark.parametrize(
    ("path", "url"),
    [
        pytest.param("s3://bucket/a/%H*.csv", "s3://bucket/a/%H*.csv", id="s3"),
        pytest.param("file:///a/b.csv", "file:///a/b.csv", id="file URL"),
        pytest.param("/a/b.csv", "file:///a/b.csv", id="absolute"),
        pytest.param("//a//b.csv", "file:///a/b.csv", id="slashes"),
        pytest.param("raw/b.csv", "file:///project/raw/b.csv", id="relative"),
        pytest.param("../raw/./b c.csv", "file:///raw/b c.csv", id="dots and blanks"),
        pytest.param("raw/%%20/b.csv", "file:///project/raw/%%20/b.csv", id="percent sign"),
        pytest.param("raw/**/b?.csv", "file:///project/raw/**/b?.csv", id="globs"),
    ],
)
def test_resolve(path: str, url: str) -> None:
    """Every path that is supported becomes an absolute URL."""
    assert resolve(path, FOLDER) == url


def test_percent_signs_of_the_folder_are_no_directives() -> None:
    """A project in a folder named `50%H` reads its own files."""
    assert render(resolve("b.csv", Path("/50%H")), HOUR) == "file:///50%H/b.csv"


_SUPPORTED = "is no path that is supported; write s3://bucket/…, file:///… or a local path"
_DIRECTIVES = "holds a % that begins none of %Y %m %d %H; write %% for a percent sign"
_FILES = "names no file; write the files' names, such as …/*.parquet"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("s3a://b/x", _SUPPORTED, id="s3a"),
        pytest.param("https://b/x", _SUPPORTED, id="https"),
        pytest.param("s3://bucket", _SUPPORTED, id="bucket only"),
        pytest.param("s3:///x", _SUPPORTED, id="no bucket"),
        pytest.param("file://host/x", _SUPPORTED, id="host"),
        pytest.param("~/x", _SUPPORTED, id="home"),
        pytest.param("s3://b/%M", _DIRECTIVES, id="minutes"),
        pytest.param("s3://b/%", _DIRECTIVES, id="at the end"),
        pytest.param("s3://b/%20x", _DIRECTIVES, id="percent-encoding"),
        pytest.param("", _FILES, id="empty"),
        pytest.param("s3://b/x/", _FILES, id="folder"),
    ],
)
def test_what_is_refused(path: str, message: str) -> None:
    """Other paths are refused, without showing them."""
    with pytest.raises(ConfigurationError) as refused:
        resolve(path, FOLDER)
    assert str(refused.value) == message


def test_without_a_folder_only_absolute_paths_resolve() -> None:
    """A relative path is not read as one of the current folder."""
    assert resolve("/a", None) == "file:///a"
    with pytest.raises(ConfigurationError, match=r"^is relative"):
        resolve("a", None)


@pytest.mark.parametrize(
    ("path", "url"),
    [("s3://b/c/", "s3://b/c"), ("s3://b/c", "s3://b/c"), ("c/", "file:///folder/c"), ("/c", "file:///c")],
)
def test_folders(path: str, url: str) -> None:
    """With or without a slash at their end."""
    assert resolve_folder(path, Path("/folder")) == url


@pytest.mark.parametrize("path", ["s3://b/%Y", "s3://b/*/c", "s3://b/", "", "ftp://b/c"])
def test_no_folder(path: str) -> None:
    """Times and globs name many, and a whole bucket is too much."""
    with pytest.raises(ConfigurationError):
        resolve_folder(path, Path("/folder"))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("s3://b/x.csv", "csv"),
        ("s3://b/x.CSV.gz", "csv"),
        ("x.jsonl.zst", "jsonl"),
        ("x.ndjson", "jsonl"),
        ("x.json.bz2", "jsonl"),
        ("x.parquet", "parquet"),
        ("x.orc", "orc"),
        ("x.avro", None),
        ("x/*", None),
        ("x.gz", None),
        ("xcsv", None),
    ],
)
def test_format_of(path: str, told: str | None) -> None:
    """The suffix tells the format, below that of a compression."""
    assert format_of(path) == told
