import pytest

from lakehouse_pipeline.config.problems import KeyPath, Problem, SpecError, did_you_mean, key_text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("join", "weather", "path"), "join.weather.path"),
        (("owners", 1), "owners[1]"),
        (("a\nb",), "'a\\nb'"),
    ],
)
def test_key_text(path: KeyPath, text: str) -> None:
    """Keys are joined by dots, positions stand in brackets, and no key breaks the line."""
    assert key_text(path) == text


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("a.yaml", 3, "hour", "is missing; add it"), "a.yaml:3: hour: is missing; add it"),
        (Problem("a.yaml", 1, "", "is empty; write keys"), "a.yaml:1: is empty; write keys"),
    ],
)
def test_a_problem_is_a_line(problem: Problem, line: str) -> None:
    """`file:line: key: what is wrong; the way out`."""
    assert str(problem) == line


def test_all_problems_are_one_error() -> None:
    """The error has one line for each problem, in their order."""
    error = SpecError([Problem("a", 1, "x", "m"), Problem("b", 2, "y", "n")])
    assert str(error) == "a:1: x: m\nb:2: y: n"


@pytest.mark.parametrize(
    ("known", "way_out"),
    [
        pytest.param(["hour", "key"], "did you mean 'hour'?", id="near"),
        pytest.param(["a", "b"], "write one of a, b", id="all"),
        pytest.param([str(n) for n in range(13)], "write one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …", id="many"),
    ],
)
def test_did_you_mean(known: list[str], way_out: str) -> None:
    """The nearest word is the way out, else all there are, as far as they can be read."""
    assert did_you_mean("huor", known) == way_out
