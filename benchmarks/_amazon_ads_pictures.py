"""Pictures of `amazon_ads`: 503s and writes a second over the hours of each run, on the same axes."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from lakehouse_pipeline.planning.simulation import Minute, Simulation

COLOURS = ("#EE6677", "#4477AA", "#228833")  # https://personal.sron.nl/~pault/ (the "bright" scheme)
PICTURES: Mapping[str, tuple[str, Callable[[Minute], float]]] = {
    "amazon-ads-5xx.png": ("503s a second", lambda minute: minute.throttled_per_s),
    "amazon-ads-writes.png": ("successful writes a second", lambda minute: minute.written_per_s),
    "amazon-ads-ranges.png": ("ranges of keys", lambda minute: minute.ranges),
}


def draw(found: Mapping[str, Simulation], folder: Path) -> None:
    """Write the pictures, one below the other in each: a panel a run."""
    hours = max(each.hours for each in found.values())
    for name, (label, figure) in PICTURES.items():
        most = max(figure(minute) for each in found.values() for minute in each.minutes)
        with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
            drawn = Figure(figsize=(7, 4.5), dpi=90, layout="constrained")
            panels = drawn.subplots(len(found), 1, sharex=True, sharey=True)
            for panel, colour, (title, simulation) in zip(panels, COLOURS, found.items(), strict=True):
                at = [place / 60 for place in range(len(simulation.minutes))]
                panel.fill_between(at, [figure(minute) for minute in simulation.minutes], color=colour, linewidth=0)
                panel.set_title(f"{title}, {simulation.hours:.1f} h", loc="left", fontsize=8)
                panel.set_xlim(0, hours)
                panel.set_ylim(0, most * 1.05)
            panels[-1].set_xlabel("hours since the beginning")
            drawn.supylabel(label, fontsize=8)
            file = io.BytesIO()
            drawn.savefig(file, format="png")
        with Image.open(file) as picture:
            picture.convert("RGB").quantize(64).save(folder / name, optimize=True)
