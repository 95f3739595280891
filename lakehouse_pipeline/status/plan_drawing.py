"""Pictures of plans as PNG: what each number of hours in flight comes to, and the recommended one over time."""

import io

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from lakehouse_pipeline.backfill.forecast import Forecast
from lakehouse_pipeline.status.drawing import COLOURS, small_png

DOTS_PER_INCH = 90
TIME, REFUSED, WRITTEN = COLOURS["committed"], COLOURS["failed"], COLOURS["sealed"]


def draw_plan(told: Forecast) -> bytes:
    """Draw a forecast: hours and 503s by hours in flight, and writes and 503s a second over time.

    Returns:
        A PNG of some 20 kB.
    """
    settings, advice = told.advice.settings, told.advice
    minutes = advice.recommended.predicted.minutes
    long = advice.recommended.predicted.hours >= 1
    unit, of_hour = ("hours", 1) if long else ("minutes", 60)
    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 4.4), dpi=DOTS_PER_INCH, layout="constrained")
        (took, refused), (over, ranges) = figure.subplots(2, 2)
        places = range(len(settings))
        names = [str(each.in_flight) for each in settings]
        edges = ["black" if each.in_flight == advice.in_flight else "none" for each in settings]
        took.bar(places, [of_hour * each.predicted.hours for each in settings], color=TIME, edgecolor=edges)
        took.set_ylabel(unit)
        refused.bar(places, [100 * each.predicted.throttle_share for each in settings], color=REFUSED, edgecolor=edges)
        refused.set_ylabel("503s, % of requests")
        refused.set_ylim(0, max(1.0, *(110 * each.predicted.throttle_share for each in settings)))
        for axes in (took, refused):
            axes.set_xticks(list(places), names)
            axes.set_xlabel("hours in flight; framed: recommended")
        # A mean of each minute, so that a backfill of one minute is a line, too.
        at = [of_hour * place / 60 for place in range(len(minutes) + 1)]
        over.stairs([each.written_per_s for each in minutes], at, color=WRITTEN, label="writes/s")
        over.stairs([each.throttled_per_s for each in minutes], at, color=REFUSED, label="503s/s")
        over.legend(frameon=False)
        over.yaxis.set_major_formatter(EngFormatter())
        ranges.stairs([each.ranges for each in minutes], at, color=TIME)
        ranges.set_ylabel("key ranges")
        ranges.yaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (over, ranges):
            axes.set_xlabel(f"{unit} from the begin, {advice.in_flight} in flight")
            axes.set_ylim(bottom=0)
        figure.suptitle(f"{told.table}: {told.load.hours} of {told.hours}")
        file = io.BytesIO()
        figure.savefig(file, format="png")
    return small_png(file)
