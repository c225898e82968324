"""Drawings of a sweep's page: SVG in the page's own colours, with every job to be pointed at.

Whatever belongs to a job has its id in `data-job`, and says in words what it is.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
ABREAST = 760
"""The width of parallel axes, if they are few."""
FEW = 6
"""Different values up to which each is written beside its axis."""
SHADES = 5
"""Kinds of lines, from the worst jobs to the best."""
MOST_POINTS = 200
"""Points of a curve that are drawn."""
DECADES = 100
"""How many times the smallest value the largest is, from which on a scale is logarithmic."""
Format = Callable[[float], str]


@dataclass(frozen=True)
class Scale:
    """Numbers, and their places on a line of a drawing."""

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Where a value is."""
        low, high, value = map(self._measured, (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.begin + share * (self.end - self.begin)

    def _measured(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def ticks(self, most: int = 5) -> list[float]:
        """Round values on it: powers of ten, or multiples of 1, 2 or 5 of such."""
        if self.is_log:
            exponents = range(
                math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1
            )
            found = [10.0**each for each in exponents]
            return found[:: max(1, -(-len(found) // most))] or [self.low, self.high]
        if self.high <= self.low:
            return [self.low]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def scale(values: Sequence[float], begin: float, end: float, *, may_be_log: bool = False) -> Scale:
    """A scale that holds these values, and some room where it is linear."""
    low, high = min(values), max(values)
    if may_be_log and low > 0 and high / low >= DECADES:
        return Scale(low, high, begin, end, is_log=True)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - room, high + room, begin, end)


@dataclass(frozen=True)
class Point:
    """A job in a plane; `best` where no other beats it."""

    job: str
    x: float
    y: float
    about: str
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A curve of one or more jobs."""

    jobs: Sequence[str]
    points: Sequence[tuple[float, float]]
    about: str
    shade: int = 0


@dataclass(frozen=True)
class Coordinate:
    """One axis of parallel ones: of numbers, or of names in their order."""

    title: str
    values: Mapping[str, float | str]

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return all(isinstance(value, (int, float)) for value in self.values.values())

    @property
    def names(self) -> list[str]:
        """Its values where they are names, each once."""
        return sorted({str(value) for value in self.values.values()})


def plain(value: float) -> str:
    """A number with four digits at most."""
    return f"{value:.4g}"


def plane(points: Sequence[Point], across: str, as_x: Format = plain, as_y: Format = plain) -> str:
    """Jobs by two figures; those that no other beats are joined by a line."""
    x = scale([each.x for each in points], LEFT, WIDTH - RIGHT)
    y = scale([each.y for each in points], HEIGHT - BOTTOM, TOP)
    best = sorted((each for each in points if each.best), key=lambda each: (each.x, each.y))
    parts = [*_frame(x, y, across, as_x, as_y)]
    if len(best) > 1:
        parts.append(f'<path class="front" d="{_path((x.at(p.x), y.at(p.y)) for p in best)}"/>')
    for each in sorted(points, key=lambda each: each.best):
        kind = "dot best" if each.best else "dot"
        place = f'cx="{x.at(each.x):.1f}" cy="{y.at(each.y):.1f}" r="{5 if each.best else 4}"'
        parts.append(
            f'<circle class="{kind}" {_of([each.job])} {place}>{_title(each.about)}</circle>'
        )
    return _svg(parts)


def curves(lines: Sequence[Line], across: str) -> str:
    """Curves together, the best last, so that they lie on top."""
    every = [point for line in lines for point in line.points]
    x = Scale(min(p[0] for p in every), max(p[0] for p in every), LEFT, WIDTH - RIGHT)
    y = scale([p[1] for p in every], HEIGHT - BOTTOM, TOP)
    parts = [*_frame(x, y, across, plain, plain)]
    for line in sorted(lines, key=lambda line: line.shade):
        at = [(x.at(a), y.at(b)) for a, b in thinned(line.points)]
        if len(at) == 1:
            at = [at[0], (at[0][0] + 4, at[0][1])]
        parts.append(_stroke(line.jobs, line.shade, at, line.about))
    return _svg(parts)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Some of many points, evenly taken, with the last."""
    step = -(-len(points) // MOST_POINTS) or 1
    found = [*points[::step]]
    return found if not points or found[-1] == points[-1] else [*found, points[-1]]


def parallel(
    coordinates: Sequence[Coordinate], shades: Mapping[str, int], about: Mapping[str, str]
) -> str:
    """Every job as a line through its values, one axis for each."""
    width = max(ABREAST, 130 * len(coordinates))
    gap = (width - 2 * LEFT) / max(1, len(coordinates) - 1)
    places = [LEFT + number * gap for number in range(len(coordinates))]
    heights = [_heights(each) for each in coordinates]
    parts = []
    for job in sorted(shades, key=lambda job: shades[job]):
        at = [(place, found[job]) for place, (found, _) in zip(places, heights, strict=True)]
        parts.append(_stroke([job], shades[job], at, about[job]))
    for place, each, (_, ticks) in zip(places, coordinates, heights, strict=True):
        parts += _upright(place, each.title, ticks)
    return _svg(parts, width, HEIGHT + 20)


def _heights(coordinate: Coordinate) -> tuple[dict[str, float], list[tuple[float, str]]]:
    """Where each job is on an axis, and what is written beside it."""
    begin, end = float(HEIGHT - 10), 40.0
    if coordinate.is_number:
        numbers = {job: float(value) for job, value in coordinate.values.items()}
        found = scale([*numbers.values()], begin, end, may_be_log=True)
        marks = sorted({*numbers.values()})
        marks = marks if len(marks) <= FEW else found.ticks()
        ticks = [(found.at(mark), plain(mark)) for mark in marks]
        return {job: found.at(value) for job, value in numbers.items()}, ticks
    names = coordinate.names
    at = {name: Scale(0, len(names) - 1, begin, end).at(n) for n, name in enumerate(names)}
    places = {job: at[str(value)] for job, value in coordinate.values.items()}
    return places, [(height, name) for name, height in at.items()]


def _upright(place: float, title: str, ticks: Sequence[tuple[float, str]]) -> Iterator[str]:
    first, _, last = title.rpartition(".")
    yield f'<path class="axis" d="M{place:.1f} 40V{HEIGHT - 10}"/>'
    yield f'<text class="soft" x="{place:.1f}" y="13" text-anchor="middle">{escape(first)}</text>'
    yield f'<text x="{place:.1f}" y="28" text-anchor="middle">{escape(_short(last))}</text>'
    for height, text in ticks:
        spot = f'x="{place + 5:.1f}" y="{height + 4:.1f}"'
        yield f'<text class="soft halo" {spot}>{escape(_short(text))}</text>'


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _frame(x: Scale, y: Scale, across: str, as_x: Format, as_y: Format) -> Iterator[str]:
    """Grid, ticks, and what is across."""
    for at, label in _labelled(x, 4, as_x):
        yield f'<path class="grid" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        spot = f'x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}"'
        yield f'<text class="soft" {spot} text-anchor="middle">{escape(label)}</text>'
    for at, label in _labelled(y, 5, as_y):
        yield f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>'
        spot = f'x="{LEFT - 6}" y="{at + 4:.1f}"'
        yield f'<text class="soft" {spot} text-anchor="end">{escape(label)}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(across)}</text>'


def _labelled(scale: Scale, most: int, form: Format) -> Iterator[tuple[float, str]]:
    """Where ticks are, and what is written there: nothing twice."""
    seen: set[str] = set()
    for tick in scale.ticks(most):
        label = form(tick)
        yield scale.at(tick), "" if label in seen else label
        seen.add(label)


def _stroke(jobs: Sequence[str], shade: int, at: Sequence[tuple[float, float]], about: str) -> str:
    return f'<path class="job shade{shade}" {_of(jobs)} d="{_path(at)}">{_title(about)}</path>'


def _path(points: Iterator[tuple[float, float]] | Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _of(jobs: Sequence[str]) -> str:
    return f'data-job="{escape(" ".join(jobs))}"'


def _title(about: str) -> str:
    return f"<title>{escape(about)}</title>"


def _svg(parts: Sequence[str], width: float = WIDTH, height: float = HEIGHT) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'
