"""The planner of transfers: what ways cost, which one is chosen, and what is said of it."""

import json
import re
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse_pipeline.config.problems import SpecError
from lakehouse_pipeline.errors import ConfigurationError
from lakehouse_pipeline.planning import transfer
from lakehouse_pipeline.planning.price_book import PriceBook, Way, parse_book, read_book, shipped_book
from lakehouse_pipeline.planning.transfer import (
    Candidate,
    Load,
    NoWayError,
    Origin,
    Question,
    TransferPlan,
    leg_of,
    plan_transfer,
)
from lakehouse_pipeline.planning.transfer_text import as_json, explain, name_of
from lakehouse_pipeline.planning.units import DAY_S, YEAR_S, rate_of, show_rate, show_seconds

PAGE = (Path(__file__).parents[2] / "docs" / "transfer.md").read_text(encoding="utf-8")
OWN_ROWS, ARTICLE_ROWS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
EXABYTE = 10**18
TB, GB = 10**12, 10**9
EXAMPLE = Question(
    (Origin("eu-west-1", 2 * TB, 20_000),),
    "us-east-1",
    "us-east-1",
    reads=2,
    result_bytes=300 * GB,
    compute_moves=True,
    deadline_s=DAY_S,
)


def _by_way(plan: TransferPlan) -> dict[str, Candidate]:
    return {each.legs[0].way: each for each in (plan.chosen, *plan.others)}


# ---------------------------------------------------------------------------------------------------------------------
# The joke
# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def joke() -> dict[str, Candidate]:
    """Give the article's rows, each asked to move an exabyte."""
    question = Question((Origin("here", EXABYTE),), "there", "there", reads=0)
    return _by_way(plan_transfer(question, parse_book(ARTICLE_ROWS, "transfer.md")))


@pytest.mark.parametrize(
    ("way", "rate", "time", "dollars"),
    [
        ("internet", "100 Gb/s", "2.54 years", 80e6),
        ("mailed disks", "53 Gb/s", "4.78 years", 2.25e6),
        ("cable", "60,000 Gb/s", "1.54 d", 300e6),
        ("ten trucks", "6,614 Gb/s", "14 d", 2.5e6),
    ],
)
def test_the_table_of_the_joke(joke: dict[str, Candidate], way: str, rate: str, time: str, dollars: float) -> None:
    """Its figures follow from its rows, and the page says the same."""
    found = joke[way]
    assert (show_rate(rate_of(EXABYTE, found.seconds)), show_seconds(found.seconds)) == (rate, time)
    assert found.dollars == pytest.approx(dollars)
    assert f"| {way} | {rate} | {time} | ${dollars:,.0f} |" in PAGE


def test_what_the_joke_makes_of_it(joke: dict[str, Candidate]) -> None:
    """Trucks are 66 times as fast as the internet, and 32 times as cheap."""
    internet, trucks = joke["internet"], joke["ten trucks"]
    assert round(internet.seconds / trucks.seconds) == 66
    assert round(internet.dollars / trucks.dollars) == 32


def test_where_the_joke_is_loose(joke: dict[str, Candidate]) -> None:
    """What the page says of it is computed."""
    weeks = 14 * DAY_S
    assert rate_of(EXABYTE, weeks) == pytest.approx(6_614e9, rel=1e-4)
    assert rate_of(2**60, weeks) == pytest.approx(7_625e9, rel=1e-4)
    assert joke["internet"].seconds / YEAR_S == pytest.approx(2.54, abs=0.005)
    assert 53e9 * weeks / 8 == pytest.approx(8e15, rel=0.01)
    row = next(way for way in parse_book(ARTICLE_ROWS, "").ways if way.name == "ten trucks")
    loaded = leg_of(row.model_copy(update={"loading": 1e12}), Load("sources", EXABYTE), ("here", "there"))
    assert loaded.seconds / DAY_S == pytest.approx(32.5, abs=0.05)
    assert rate_of(EXABYTE, loaded.seconds) == pytest.approx(2_847e9, rel=1e-3)
    exbibyte = leg_of(row, Load("sources", 2**60), ("here", "there"))
    assert (exbibyte.shipments, exbibyte.seconds) == (12, 2 * weeks)
    assert joke["mailed disks"].dollars < joke["ten trucks"].dollars


# ---------------------------------------------------------------------------------------------------------------------
# Choices with the rows of the package
# ---------------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_page() -> None:
    """It is what the planner says."""
    told = "\n".join(explain(plan_transfer(EXAMPLE, shipped_book())))
    shown = next(text for text in re.findall(r"```\n(cheapest.*?)\n```", PAGE, re.DOTALL))
    assert told.startswith(shown)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        pytest.param({"compute": "eu-west-1", "destination": "eu-west-1"}, "read by same-region read", id="at home"),
        pytest.param({"reads": 1}, "read by inter-region read", id="read once"),
        pytest.param({"reads": 2}, "move first by inter-region copy, then read by same-region read", id="read twice"),
        pytest.param(
            {"compute_moves": True, "result_bytes": GB},
            "read by same-region read, then move the result by inter-region copy",
            id="a small result",
        ),
        pytest.param(
            {"compute_moves": True, "result_bytes": 8 * TB, "reads": 1}, "read by inter-region read", id="a large one"
        ),
        pytest.param(
            {
                "reads": 1,
                "origins": (Origin("eu-west-1", 400 * TB),),
                "has": frozenset({"physical access from eu-west-1", "Snowball Edge account"}),
            },
            "move first by shipped devices, then read by same-region read",
            id="much of it",
        ),
    ],
)
def test_choices(changes: dict[str, object], chosen: str) -> None:
    """What is read twice is copied, a small result travels in the place of its source, and much is shipped."""
    base = {"origins": EXAMPLE.origins, "compute": "us-east-1", "destination": "us-east-1"}
    plan = plan_transfer(Question(**{**base, **changes}), shipped_book())  # type: ignore[arg-type]
    assert name_of(plan.chosen) == chosen


def test_a_deadline_rules_out_what_is_slow() -> None:
    """Devices are cheaper for much, and take days."""
    question = Question(
        (Origin("eu-west-1", 400 * TB),),
        "us-east-1",
        "us-east-1",
        has=frozenset({"physical access", "Snowball Edge account"}),
        deadline_s=5 * DAY_S,
    )
    plan = plan_transfer(question, shipped_book())
    assert name_of(plan.chosen) == "read by inter-region read"
    shipped = next(each for each in plan.others if each.legs[0].way == "shipped devices")
    assert "longer than the deadline of 5 d" in shipped.problems[0]


def test_no_way() -> None:
    """Each way says what it lacks."""
    question = Question((Origin("a", TB),), "b", "b", deadline_s=1)
    with pytest.raises(
        NoWayError,
        match=r"takes 5\.33 min, 5\.32 min longer than the deadline of 1 s.*no private link for private link",
    ):
        plan_transfer(question, shipped_book())


def test_a_need_may_be_there_for_one_region_only() -> None:
    """One origin takes the link, the other cannot."""
    free = parse_book(
        "ways: {link: {moves: [sources], bandwidth: 1 Gb/s, needs: [private link], source: s, date: d}}", ""
    )
    book = shipped_book().with_own(free)
    question = Question((Origin("a", TB), Origin("b", TB)), "c", "c", reads=0, has=frozenset({"private link from a"}))
    assert [leg.way for leg in plan_transfer(question, book).chosen.legs] == ["link", "inter-region copy"]


def test_it_is_json() -> None:
    """What is said is there as numbers, too."""
    told = json.loads(json.dumps(as_json(plan_transfer(EXAMPLE, shipped_book()))))
    assert told["chosen"]["legs"][0]["bytes"] == 4 * TB
    assert told["runner_up"]["name"].startswith("move first by inter-region copy")


def test_a_region_stands_once_among_the_origins() -> None:
    """Whoever names it twice may mean either."""
    with pytest.raises(ConfigurationError, match="twice"):
        plan_transfer(Question((Origin("a", 1), Origin("a", 2)), "b", "b"), shipped_book())


# ---------------------------------------------------------------------------------------------------------------------
# Laws
# ---------------------------------------------------------------------------------------------------------------------

REGIONS = ("a", "b", "c")
sizes = st.integers(0, 10**19)
figures = st.floats(0, 1e9, allow_nan=False, allow_infinity=False)
needs = st.lists(st.sampled_from(["same region", "two regions", "private link", "physical access"]), unique=True)


@st.composite
def ways(draw: st.DrawFn) -> Way:
    """Make any row."""
    capacity = draw(st.none() | st.integers(1, 10**18))
    shipped = {"capacity": capacity, "at_once": draw(st.none() | st.integers(1, 9)), "per_shipment": draw(figures)}
    return Way(
        name=draw(st.text("abc", min_size=1, max_size=3)),
        moves=tuple(draw(st.sets(st.sampled_from(["reads", "sources", "results"]), min_size=1))),
        days=draw(st.floats(0, 100)),
        bandwidth=draw(st.floats(1e3, 1e15) if capacity is None else st.none() | st.floats(1e3, 1e15)),
        **(shipped | {"loading": draw(st.none() | st.floats(1e3, 1e15))} if capacity else {}),
        per_byte=draw(st.floats(0, 1e-6)),
        fixed=draw(figures),
        per_day=draw(figures),
        per_request=draw(st.floats(0, 1)),
        request_size=draw(st.none() | st.integers(1, 10**12)),
        needs=tuple(draw(needs)),
        source="s",
        date="d",
    )


@st.composite
def questions(draw: st.DrawFn) -> Question:
    """Ask anything."""
    regions = draw(st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True))
    return Question(
        tuple(Origin(region, draw(sizes), draw(st.integers(1, 10**6))) for region in regions),
        draw(st.sampled_from(REGIONS)),
        draw(st.sampled_from(REGIONS)),
        reads=draw(st.integers(0, 3)),
        result_bytes=draw(sizes),
        deadline_s=draw(st.none() | st.floats(0, 1e9)),
        has=frozenset(draw(st.sets(st.sampled_from(["private link", "physical access", "private link from a"])))),
        compute_moves=draw(st.booleans()),
        want=draw(st.sampled_from(["cheapest", "fastest"])),
    )


books = st.builds(lambda rows: shipped_book().with_own(PriceBook(ways=tuple(rows))), st.lists(ways(), max_size=3))


def _planned(question: Question, book: PriceBook) -> TransferPlan | None:
    try:
        return plan_transfer(question, book)
    except NoWayError:
        return None


@given(questions(), books)
def test_what_is_chosen_is_never_dominated(question: Question, book: PriceBook) -> None:
    """No other feasible way is better in one and no worse in the other; and the chosen one keeps the deadline."""
    if plan := _planned(question, book):
        chosen = plan.chosen
        feasible = [each for each in plan.others if not each.problems]
        beaten = (chosen.dollars, chosen.seconds)
        assert not any(
            each.dollars <= chosen.dollars and each.seconds <= chosen.seconds and (each.dollars, each.seconds) != beaten
            for each in feasible
        )
        assert question.deadline_s is None or chosen.seconds <= question.deadline_s
        assert plan.runner_up is (feasible[0] if feasible else None)


@pytest.mark.parametrize("want", ["cheapest", "fastest"])
def test_ties(want: Literal["cheapest", "fastest"]) -> None:
    """Of ways that cost the same the fastest is chosen, of those that take as long the cheapest; in any order."""
    row = "{{moves: [sources], bandwidth: {}, per_byte: {}, source: s, date: d}}"
    other = row.format(*(("1 Gb/s", "$1/GB") if want == "cheapest" else ("2 Gb/s", "$2/GB")))
    both = [f"good: {row.format('2 Gb/s', '$1/GB')}", f"other: {other}"]
    for rows in (both, both[::-1]):
        book = parse_book(f"ways: {{{', '.join(rows)}}}", "")
        chosen = plan_transfer(Question((Origin("a", TB),), "b", "b", reads=0, want=want), book).chosen
        assert chosen.legs[0].way == "good"


@given(questions(), books, st.integers(0, 10**18))
def test_more_bytes_never_cost_less(question: Question, book: PriceBook, more: int) -> None:
    """Nor does what was impossible become possible."""
    first, *rest = question.origins
    larger = Question(
        **{
            **vars(question),
            "origins": (Origin(first.region, first.bytes + more, first.objects), *rest),
            "want": "cheapest",
            "result_bytes": 0,  # shares of a result move from one region to another
        }
    )
    smaller = Question(**{**vars(larger), "origins": question.origins})
    if after := _planned(larger, book):
        before = _planned(smaller, book)
        assert before is not None
        assert before.chosen.dollars <= after.chosen.dollars


@given(questions(), books, st.floats(0, 1e9))
def test_a_longer_deadline_never_costs_more(question: Question, book: PriceBook, more_s: float) -> None:
    """What was in time still is."""
    asked = {**vars(question), "want": "cheapest"}
    until = question.deadline_s or 0.0
    if before := _planned(Question(**{**asked, "deadline_s": until}), book):
        after = _planned(Question(**{**asked, "deadline_s": until + more_s}), book)
        assert after is not None
        assert after.chosen.dollars <= before.chosen.dollars


@given(questions(), books)
def test_leaving_out_what_others_beat_changes_no_choice(question: Question, book: PriceBook) -> None:
    """Origins have so many combinations that those that are beaten are dropped on the way."""
    with pytest.MonkeyPatch.context() as patch:
        whole = _planned(question, book)
        patch.setattr(transfer, "COMBINATIONS", 0)
        pruned = _planned(question, book)
    assert (whole is None) == (pruned is None)
    if whole and pruned:
        assert (whole.chosen.dollars, whole.chosen.seconds) == (pruned.chosen.dollars, pruned.chosen.seconds)


# ---------------------------------------------------------------------------------------------------------------------
# The book
# ---------------------------------------------------------------------------------------------------------------------


def test_every_shipped_row_has_a_source_and_a_date() -> None:
    """And stands in the page."""
    for way in shipped_book().ways:
        assert way.source
        assert re.match(r"20\d\d", way.date)
        assert f"| {way.name} |" in PAGE


def test_own_rows_take_the_place_of_shipped_ones(tmp_path: Path) -> None:
    """By name; the others stay."""
    (tmp_path / "ways.yaml").write_text(OWN_ROWS)
    book = read_book(tmp_path / "ways.yaml")
    assert len(book.ways) == len(shipped_book().ways)
    own = next(way for way in book.ways if way.name == "inter-region read")
    assert own.per_byte == pytest.approx(1e-11)
    assert own.bandwidth == 40e9


def test_all_problems_of_a_book_are_told_at_once() -> None:
    """Each with its line and the way out."""
    text = (
        "ways:\n"
        "  slow: {moves: [reads], source: s, date: d}\n"
        "  far:\n"
        "    moves: [reads, rows]\n"
        "    bandwidth: 100\n"
        "    per_byte: 2 cents\n"
        "    price: $1\n"
        "    date: d\n"
        "  odd: {moves: [reads], bandwidth: 1 Gb/s, at_once: 2, source: s, date: d, assumed: [luck]}\n"
    )
    with pytest.raises(SpecError) as caught:
        parse_book(text, "own.yaml")
    said = str(caught.value)
    for part in (
        "own.yaml:2: ways.slow.capacity: is missing, and so is bandwidth",
        "own.yaml:4: ways.far.moves[1]: 'rows' is not supported",
        "own.yaml:5: ways.far.bandwidth: '100' is no rate",
        "own.yaml:6: ways.far.per_byte: '2 cents' is no price of bytes",
        "own.yaml:9: ways.odd.at_once: is of shipments, and nothing is shipped",
        "own.yaml:7: ways.far.price: is no key here",
        "own.yaml:3: ways.far.source: is missing",
        "own.yaml:9: ways.odd.assumed[0]: 'luck' is no key of a way",
    ):
        assert part in said
