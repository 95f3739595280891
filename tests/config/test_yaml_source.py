from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.config.yaml_source import Refused, parse_document, read_document


@pytest.mark.parametrize(
    "word", ["no", "on", "y", "null", "~", "1e3", "0x1f", "010", "1_000", "2013-01-01", "12:30:45"]
)
def test_plain_scalars_stay_text(word: str) -> None:
    """No word turns into a bool, a number, a date or nothing, be it a key, a value or an item."""
    document = parse_document(f"{word}: {word}\nlist: [{word}]\n", "a.yaml")
    assert document.tree == {word: word, "list": [word]}
    assert document.problems == ()


def test_a_quoted_empty_value_is_empty_text() -> None:
    """Quotes say that the text is meant to be empty."""
    assert parse_document("a: ''\nb: \"\"\n", "a.yaml").tree == {"a": "", "b": ""}


def test_lines_are_those_of_keys_and_items() -> None:
    """Every key and item has its line, in block and in flow style, after comments and quotes alike."""
    text = '# about\na:\n  b: 1\n  "c":\n    - x\n\n    - {d: 2,\n       e: 3}\n'
    assert parse_document(text, "a.yaml").lines == {
        (): 1,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 7,
        ("a", "c", 1, "d"): 7,
        ("a", "c", 1, "e"): 8,
    }


_SPECIAL = "quote a value that holds special characters, and indent with spaces"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", "f:3: a: stands twice, on lines 1 and 3; keep one", id="duplicate"),
        pytest.param(
            "x:\n  a: 1\n  a: 1\n", "f:3: x.a: stands twice, on lines 2 and 3; keep one", id="nested duplicate"
        ),
        pytest.param("a: &x 1\n", "f:1: the anchor &x is not supported; take it out, or quote the value", id="anchor"),
        pytest.param("\na: *x\n", "f:2: the alias *x is not supported; write the value out, or quote it", id="alias"),
        pytest.param("<<: {a: 1}\n", "f:1: merge keys (<<) are not supported; write the keys out", id="merge"),
        pytest.param("a: !x 1\n", "f:1: the tag !x is not supported; take it out, or quote the value", id="own tag"),
        pytest.param(
            "a: !!python/object:os.system {}\n",
            "f:1: the tag tag:yaml.org,2002:python/object:os.system is not supported; take it out, or quote the value",
            id="python tag",
        ),
        pytest.param(
            "a: !!str 1\n",
            "f:1: the tag tag:yaml.org,2002:str is not supported; take it out, or quote the value",
            id="core tag",
        ),
        pytest.param(
            "a: 1\n---\nb: 2\n---\nc: 3\n",
            "f:2: a second document begins; keep one per file and take '---' out",
            id="documents",
        ),
        pytest.param(
            "a:\nb: 1\n", 'f:1: a: has no value; write one ("" for empty text), or take it out', id="no value"
        ),
        pytest.param(
            "a:\n  - 1\n  -\n",
            'f:3: a[1]: has no value; write one ("" for empty text), or take it out',
            id="empty item",
        ),
        pytest.param(
            "a: {b}\n", 'f:1: a.b: has no value; write one ("" for empty text), or take it out', id="flow key"
        ),
        pytest.param(
            "[a]: 1\n",
            "f:1: a key is a list or a mapping; write text, or quote a value that begins with { or [",
            id="key of a list",
        ),
        pytest.param(
            "x: {{y}: 1}\n",
            "f:1: x: a key is a list or a mapping; write text, or quote a value that begins with { or [",
            id="key of a mapping",
        ),
        pytest.param("x:\n  ?\n  : 1\n", "f:2: x: a key is empty; write its name before the colon", id="empty key"),
        pytest.param("", "f:1: is empty; write keys and values, `key: value`", id="empty"),
        pytest.param("# a\n", "f:1: is empty; write keys and values, `key: value`", id="comments only"),
        pytest.param("- a\n", "f:1: is not a mapping; write keys and values, `key: value`", id="list"),
        pytest.param("a\n", "f:1: is not a mapping; write keys and values, `key: value`", id="word"),
        pytest.param(
            "a: 1\nb: c: d\n",
            f"f:2: is not YAML: mapping values are not allowed here; {_SPECIAL}",
            id="colon in a value",
        ),
        pytest.param(
            "a: 1\n\tb: 2\n",
            "f:2: is not YAML: while scanning for the next token, found character '\\t' that cannot start any token; "
            + _SPECIAL,
            id="tab",
        ),
        pytest.param("a: 1\nb: \x01\n", "f:2: holds a control character; take it out", id="control character"),
        pytest.param(
            "a: 1\nb: " + "[" * 5000,
            "f:2: more than 20 levels of nesting; quote a value that holds brackets",
            id="deep nesting",
        ),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    """What a tree of text cannot say is one problem, with its line and the way out."""
    assert [str(each) for each in parse_document(text, "f").problems] == [problem]


def test_every_surprise_is_reported() -> None:
    """One surprise does not hide the next."""
    problems = parse_document("a: &x 1\nb: *x\nc: !t 2\n", "f").problems
    assert [problem.line for problem in problems] == [1, 2, 3]


def test_a_duplicate_keeps_the_first_value() -> None:
    """What is said about a duplicate's value is said of the first."""
    assert parse_document("a: 1\na: 2\n", "f").tree == {"a": "1"}


def test_an_empty_value_is_marked_as_refused() -> None:
    """A model can tell a key without a value from a key left out."""
    assert parse_document("a:\n", "f").tree == {"a": Refused()}


def test_the_repr_shows_no_value() -> None:
    """A document may hold values of variables, so its repr has none."""
    assert "hunter2" not in repr(parse_document("a: hunter2\n", "f"))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"a: 1\nb: \xff\n", "f:2: is not UTF-8; save the file as UTF-8", id="latin-1"),
        pytest.param(None, "f:1: cannot be read: No such file or directory", id="no file"),
    ],
)
def test_unreadable_files_are_problems(data: bytes | None, problem: str, tmp_path: Path) -> None:
    """A file that cannot be read is a problem as any other."""
    file = tmp_path / "a.yaml"
    if data is not None:
        file.write_bytes(data)
    assert [str(each) for each in read_document(file, "f").problems] == [problem]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_document(file, "f").tree == {"a": "1", "b": "2"}


@given(st.text(alphabet=":-[]{}&*!|>'\"#%@`?, \t\nab\x00\u2028", max_size=40))
def test_any_text_is_a_tree_or_a_problem(text: str) -> None:
    """No text makes reading fail; what has no tree has a problem, and every problem is one line."""
    document = parse_document(text, "f")
    assert document.tree is not None or document.problems
    assert all(len(str(problem).splitlines()) == 1 for problem in document.problems)
