import pytest

from lakehouse_pipeline.config.paths import literal
from lakehouse_pipeline.config.problems import KeyPath
from lakehouse_pipeline.config.variables import expand
from lakehouse_pipeline.config.yaml_source import Document, Refused, parse_document

ENVIRON = {"A": "one", "B_2": "two", "EMPTY": "", "DOLLAR": "${A}", "PERCENT": "50%Y"}
_FORMS = (
    "f:1: k: '${' begins something that is no variable; "
    "only ${NAME} is expanded, and a value that holds '${' itself has to come from a variable"
)


def _everywhere(_: KeyPath) -> bool:
    return True


def _value(text: str) -> Document:
    return expand(parse_document(f"k: '{text}'\n", "f"), ENVIRON, _everywhere)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        pytest.param("${A}", "one", id="whole value"),
        pytest.param("x${A}y${B_2}z", "xoneytwoz", id="within"),
        pytest.param("${EMPTY}", "", id="empty"),
        pytest.param("$A", "$A", id="no braces"),
        pytest.param("$$ $", "$$ $", id="dollars"),
        pytest.param("$${A}", "$one", id="no escape"),
        pytest.param("${DOLLAR}", "${A}", id="once only"),
    ],
)
def test_what_is_expanded(text: str, expanded: str) -> None:
    """`${NAME}` is the variable's value, and everything else stays."""
    assert _value(text).tree == {"k": expanded}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("${NOPE}", "f:1: k: the variable NOPE is not set; set it, or write the value", id="unset"),
        pytest.param("${A:-x}", _FORMS, id="default"),
        pytest.param("${}", _FORMS, id="no name"),
        pytest.param("${A", _FORMS, id="no end"),
        pytest.param("${1}", _FORMS, id="number"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    """An unset variable is named; the other forms of a shell are no variables. The value counts as refused."""
    document = _value(text)
    assert [str(each) for each in document.problems] == [problem]
    assert document.tree == {"k": Refused(text)}


def test_every_unset_variable_is_reported() -> None:
    """Two unset variables in one value are two problems."""
    assert len(_value("${X}${Y}").problems) == 2


def test_only_selected_values_are_expanded() -> None:
    """Keys and the values of other keys stay as they are written."""
    document = parse_document("a: ${A}\nb: [x, '${A}']\n${A}: c\n", "f")
    expanded = expand(document, ENVIRON, lambda path: path == ("b", 1))
    assert expanded.tree == {"a": "${A}", "b": ["x", "one"], "${A}": "c"}


def test_values_of_variables_are_escaped() -> None:
    """What a variable holds is no directive of a path."""
    document = expand(parse_document("k: ${PERCENT}/%Y\n", "f"), ENVIRON, _everywhere, literal)
    assert document.tree == {"k": "50%%Y/%Y"}


def test_no_problem_shows_a_value_of_a_variable() -> None:
    """A variable may hold a secret, also beside one that is not set."""
    assert "one" not in repr(_value("${A}${NOPE}"))


def test_a_problem_shows_a_variable_as_it_is_written() -> None:
    """Its value may be a secret that stands in the wrong place: of a wrong age or number, too, it was shown before."""
    document = _value("${B_2} days")
    told = document.problem(("k",), "'two days' is no age (two days)")
    assert str(told) == "f:1: k: '${B_2} days' is no age (${B_2} days)"
