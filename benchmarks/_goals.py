"""How a benchmark says what its figures come to: a line for each goal and for each peer, met or not.

`benchmarks.__main__` gathers what was missed, and what was not won, from these lines.
"""

from collections.abc import Mapping

WHOLE = 100  # figures from here on are shown without fractions
MISSED, NOT_WON = "- **missed**: ", "- **not won**: "


def at_least(what: str, seen: float, goal: float, unit: str = "") -> None:
    """Hold a figure against the least that it is to be."""
    _say(what, seen, f"at least {_figure(goal)}{unit}", unit, met=seen >= goal)


def at_most(what: str, seen: float, goal: float, unit: str = "") -> None:
    """Hold a figure against the most that it may be."""
    _say(what, seen, f"at most {_figure(goal)}{unit}", unit, met=seen <= goal)


def _say(what: str, seen: float, goal: str, unit: str, *, met: bool) -> None:
    print(f"{'- met: ' if met else MISSED}{what}: {_figure(seen)}{unit} (goal: {goal})", flush=True)


def beside(what: str, ours: float, peers: Mapping[str, float]) -> None:
    """Hold what ours takes against what peers take for the same: seconds, or whatever is better where it is less."""
    for peer, theirs in peers.items():
        mark = "- won: " if theirs >= ours else NOT_WON
        print(f"{mark}{what}: {peer} takes {_figure(theirs / ours)} times what ours takes", flush=True)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= WHOLE else f"{value:.3g}"
