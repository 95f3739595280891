"""Pictures of tables as PNG: small enough to stand in the events that Dagster keeps."""

import io
from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator
from PIL import Image

from lakehouse_pipeline.status.picture import STATES, State, TableStatus

MOST_BYTES = 50_000
MOST_DAYS = 62  # rows: the last ones that have begun
DOTS_PER_INCH = (110, 80, 55)

# Told apart without colour vision, too: https://personal.sron.nl/~pault/ (the "bright" scheme), and greys.
COLOURS: Mapping[State, str] = {
    "committed": "#228833",
    "compacted": "#115522",
    "running": "#4477AA",
    "stalled": "#AA3377",
    "sealed": "#66CCEE",
    "interrupted": "#CCBB44",
    "failed": "#EE6677",
    "no source": "#F4B8BF",
    "cancelled": "#999999",
    "not requested": "#EEEEEE",
    "outside start...end": "#FFFFFF",
}


def heat_map(status: TableStatus) -> bytes:
    """Draw the hours of a table, a day a row, each in the colour of its state; and beside it what each day holds.

    Returns:
        A PNG, of `MOST_BYTES` at most: coarser where it has to be.
    """
    for dots in DOTS_PER_INCH:
        drawn = _drawn(status, dots)
        if len(drawn) <= MOST_BYTES:
            break
    return drawn


def _drawn(status: TableStatus, dots: int) -> bytes:
    days, states, held = _by_day(status)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 1.7 + 0.16 * len(days)), dpi=dots, layout="constrained")
        hours, bytes_ = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
        colours = ListedColormap([COLOURS[state] for state in STATES])
        numbers = [[STATES.index(state) for state in day] for day in states]
        hours.pcolormesh(numbers, cmap=colours, vmin=0, vmax=len(STATES), edgecolors="white", linewidth=0.6)
        hours.set_xticks([hour + 0.5 for hour in range(0, 24, 3)], [f"{hour:02d}" for hour in range(0, 24, 3)])
        step = max(1, len(days) // 16)
        hours.set_yticks([place + 0.5 for place in range(0, len(days), step)], days[::step])
        hours.invert_yaxis()
        hours.set_xlabel("hour (UTC)")
        bytes_.barh([place + 0.5 for place in range(len(days))], held, height=0.8, color=COLOURS["committed"])
        bytes_.xaxis.set_major_locator(MaxNLocator(2))
        bytes_.xaxis.set_major_formatter(EngFormatter("B"))
        bytes_.set_xlabel("in the table")
        figure.suptitle(f"{status.name}, as of {status.as_of:%Y-%m-%d %H:%M:%S} UTC")
        shown = [
            Patch(facecolor=COLOURS[state], edgecolor="#999999", label=f"{count} {state}")
            for state, count in status.counts.items()
            if state != "outside start...end"
        ]
        figure.legend(handles=shown, loc="outside lower center", ncols=4, frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="png")
    return small_png(file)


def small_png(file: io.BytesIO) -> bytes:
    """Give a picture of a dozen colours and their edges in a third of the bytes that all colours take."""
    with Image.open(file) as picture, io.BytesIO() as small:
        picture.convert("RGB").quantize(64).save(small, format="png", optimize=True)
        return small.getvalue()


def _by_day(status: TableStatus) -> tuple[list[str], list[list[State]], list[int]]:
    """Give days, their hours' states and bytes; without those that nobody has begun, unless there is no other."""
    states: dict[str, list[State]] = {}
    held: dict[str, int] = {}
    for each in status.hours:
        day = f"{each.hour.start:%Y-%m-%d}"
        states.setdefault(day, ["outside start...end"] * 24)[each.hour.start.hour] = each.state
        held[day] = held.get(day, 0) + each.live_bytes
    begun = [day for day, row in states.items() if set(row) - {"not requested", "outside start...end"}] or list(states)
    days = begun[-MOST_DAYS:]
    return days, [states[day] for day in days], [held[day] for day in days]
