"""The curves of a report: SVG in the page's own colours, thinned to what a screen can show."""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from runner.metrics import Row

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.float64]]

BUCKETS = 400
"""Stretches of a curve of which only the lowest and the highest value are drawn."""
SMOOTH_FROM = 40
"""Values from which a running mean is drawn over them."""
RATES = 120
"""Stretches over which tokens a second are counted."""
COLORS = {
    "#010101": "var(--soft)",
    "#020202": "var(--line)",
    "#030303": "var(--accent)",
    "#040404": "var(--faint)",
}
"""What is drawn in these is shown in the page's."""
TEXT, GRID, LINE, FAINT = COLORS
BARE = {"Date": None, "Creator": None, "Format": None, "Type": None}
UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))
NOT_CURVES = {"of", "step", "seconds", "tokens", "memory", "gpu_memory"}
FIRST = ("loss", "learning_rate")


@dataclass(frozen=True)
class Series:
    """One thing over steps or time, before it is drawn."""

    title: str
    across: str
    x: "Numbers"
    y: "Numbers"
    at_zero: bool = False
    smooth: bool = False


@dataclass(frozen=True)
class Curve:
    """One drawing: what it shows, in words too."""

    title: str
    about: str
    svg: str = field(repr=False)


def draw(rows: Sequence[Row], mark: str) -> list[Curve]:
    """Curves of all that a step has measured: over its steps, then over time.

    `mark` tells the names inside these drawings from those of others in the page.
    """
    found = [series for series in _series(rows) if len(series.x) > 1]
    return [_curve(series, f"{mark}-{number}-") for number, series in enumerate(found)]


def _series(rows: Sequence[Row]) -> Iterator[Series]:
    for name in _columns(rows):
        x, y = _pairs(rows, "step", name)
        smooth = name != "learning_rate" and len(x) >= SMOOTH_FROM
        yield Series(name.replace("_", " "), "step", x, y, smooth=smooth)
    yield from _over_time(rows)


def _over_time(rows: Sequence[Row]) -> Iterator[Series]:
    seconds, tokens = _pairs(rows, "seconds", "tokens")
    last = max((row.get("seconds", 0) for row in rows), default=0)
    unit, length = next(each for each in UNITS if last > 2 * each[1] or each == UNITS[-1])
    x, y = _rates(seconds, tokens)
    yield Series("tokens a second", unit, x / length, y, at_zero=True)
    for name, title in (("memory", "memory"), ("gpu_memory", "GPU memory")):
        x, y = _pairs(rows, "seconds", name)
        yield Series(f"{title} in GB", unit, x / length, y / 1e9, at_zero=True)


def _columns(rows: Sequence[Row]) -> list[str]:
    """The names of the figures, loss and learning rate first."""
    names = {name for row in rows for name, value in row.items() if _is_number(value)}
    others = sorted(names - NOT_CURVES - {*FIRST})
    return [*(name for name in FIRST if name in names), *others]


def _pairs(rows: Sequence[Row], across: str, name: str) -> "tuple[Numbers, Numbers]":
    """The values of one column by those of another, where both are finite numbers."""
    import numpy as np

    pairs = [
        (row[across], row[name])
        for row in rows
        if _is_number(row.get(across)) and _is_number(row.get(name))
    ]
    table = np.array(pairs, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rates(seconds: "Numbers", tokens: "Numbers") -> "tuple[Numbers, Numbers]":
    """Tokens a second, over stretches that are long enough to tell."""
    import numpy as np

    count = min(len(seconds), RATES)
    at = np.unique(np.linspace(0, len(seconds) - 1, count).astype(int)) if count > 2 else []
    x, took = seconds[at][1:], np.diff(seconds[at])
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.diff(tokens[at]) / took
    return x[took > 0], rate[took > 0]


def thinned(x: "Numbers", y: "Numbers", buckets: int = BUCKETS) -> "tuple[Numbers, Numbers]":
    """The first, the last, and of each bucket the lowest and the highest point, in order."""
    import numpy as np

    if len(x) <= 2 * buckets:
        return x, y
    edges = np.linspace(0, len(x), buckets + 1).astype(int)
    kept = {0, len(x) - 1}
    for begin, end in pairwise(edges):
        part = y[begin:end]
        kept |= {begin + int(part.argmin()), begin + int(part.argmax())}
    at = np.array(sorted(kept))
    return x[at], y[at]


def smoothed(y: "Numbers") -> "Numbers":
    """The mean of each value and those around it, a fiftieth of all; fewer at the ends."""
    import numpy as np

    half = max(1, len(y) // 100)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    return np.asarray((total[high] - total[low]) / (high - low))


def _curve(series: Series, mark: str) -> Curve:
    first, last, low, high = (
        _words(value) for value in (series.y[0], series.y[-1], series.y.min(), series.y.max())
    )
    about = f"{first} at first, {last} at the end, between {low} and {high}"
    return Curve(series.title, about, _svg(series, mark))


def _words(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _svg(series: Series, mark: str) -> str:
    """The drawing as an SVG element: no metadata, no sizes, no names that others may have."""
    import io

    import matplotlib as mpl

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of fonts that are not there
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "runner", "font.size": 10}
    with mpl.rc_context({**settings, "axes.unicode_minus": False}):
        target = io.StringIO()
        _figure(series).savefig(target, format="svg", transparent=True, metadata=BARE)
    return _adapted(target.getvalue(), mark)


def _figure(series: Series) -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(5.2, 2.3))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.16, 0.21, 0.8, 0.75))
    faint = FAINT if series.smooth else LINE
    axes.plot(*thinned(series.x, series.y), color=faint, linewidth=1 if series.smooth else 1.6)
    if series.smooth:
        axes.plot(*thinned(series.x, smoothed(series.y)), color=LINE, linewidth=1.8)
    axes.set_xlabel(series.across, color=TEXT, labelpad=2)
    if series.at_zero:
        axes.set_ylim(0, 1.1 * max(series.y.max(), 1e-9))
    axes.grid(visible=True, color=GRID, linewidth=0.6)
    axes.tick_params(colors=TEXT, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    return figure


def _adapted(text: str, mark: str) -> str:
    """An SVG file's text as a part of a page."""
    text = text[text.index("<svg") :]
    for drawn, shown in COLORS.items():
        text = text.replace(drawn, shown)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'xlink:href="#|href="#', f'href="#{mark}', text)
    return text.replace(' id="', f' id="{mark}').replace("url(#", f"url(#{mark}")
