"""What a sweep's page draws: scores against costs, all values side by side, curves together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files, metrics
from runner.report import plots
from runner.report.html import figure as number
from runner.report.html import span
from runner.report.plots import Coordinate, Format, Line, Point
from runner.sweep import results
from runner.sweep.results import Table
from runner.sweep.settings import JOB_FIGURES, Direction
from runner.sweep.standing import Standing, store_of

Points = Sequence[tuple[float, float]]
COSTS = {"bytes": "size", "seconds": "time", "peak_memory": "memory"}
LOOKED_AT = ("held_out_loss", "loss")
"""What is drawn over steps, where it was measured."""
MOST = 400
"""Jobs that are drawn; of more, the best."""
CHOICES = 8
"""Different values of an option from which on numbers get a scale."""


@dataclass(frozen=True)
class Drawing:
    """A drawing, and what it shows in words."""

    title: str
    about: str
    svg: str


def form(name: str) -> Format:
    """How a figure of that name is written."""
    return {"bytes": _size, "peak_memory": _size, "seconds": span}.get(name, plots.plain)


def _size(value: float) -> str:
    return files.human_bytes(max(0, round(value)))


def title(name: str) -> str:
    """A figure's name for people."""
    return COSTS.get(name, name.replace("_", " "))


def said(row: Mapping[str, Any], varied: Sequence[str]) -> str:
    """What a job is, in words."""
    return ", ".join(f"{name}={row[name]}" for name in varied if row[name]) or str(row["job"])


def planes(
    rows: Table, objectives: Mapping[str, Direction], varied: Sequence[str]
) -> Iterator[Drawing]:
    """Each score against what it costs, and each two scores against one another."""
    names, costs = [*objectives], [name for name in JOB_FIGURES if name not in objectives]
    directions = {**dict.fromkeys(costs, "minimize"), **objectives}
    pairs = [(cost, name) for name in names for cost in costs]
    pairs += [(b, a) for n, a in enumerate(names) for b in names[n + 1 :]]
    for across, up in pairs:
        points = _points(rows, across, up, directions, varied)
        if len(points) > 1 and (across not in COSTS or any(point.x for point in points)):
            shown = plots.plane(points, title(across), form(across), form(up))
            best = sum(point.best for point in points)
            about = f"{len(points)} jobs, {best} of them beaten by no other"
            yield Drawing(f"{title(up)} against {title(across)}", about, shown)


def _points(
    rows: Table, across: str, up: str, directions: Mapping[str, str], varied: Sequence[str]
) -> list[Point]:
    found = []
    for row in rows:
        x, y = results.score(row, across), results.score(row, up)
        if row["state"] == "done" and x is not None and y is not None:
            about = (
                f"{said(row, varied)}: {title(up)} {form(up)(y)}, {title(across)} {form(across)(x)}"
            )
            found.append(Point(row["job"], x, y, about))
    signs = [1 if directions[name] == "maximize" else -1 for name in (across, up)]
    best = {*results.front([(signs[0] * p.x, signs[1] * p.y) for p in found])}
    return [Point(p.job, p.x, p.y, p.about, best=number in best) for number, p in enumerate(found)]


def shades(rows: Table, objectives: Mapping[str, Direction]) -> dict[str, int]:
    """How good each job is by the first score, from 0; those without one are in the middle."""
    if not objectives:
        return {row["job"]: plots.SHADES // 2 for row in rows}
    name, direction = next(iter(objectives.items()))
    scored = [(value, row) for row in rows if (value := results.score(row, name)) is not None]
    scored.sort(key=lambda each: each[0], reverse=direction == "minimize")
    top, found = max(1, len(scored) - 1), {row["job"]: 0 for row in rows}
    for place, (_, row) in enumerate(scored):
        found[row["job"]] = place * (plots.SHADES - 1) // top
    return found


def parallel(
    rows: Table, objectives: Mapping[str, Direction], varied: Sequence[str]
) -> Iterator[Drawing]:
    """All values of every finished job on a line."""
    shade = shades([row for row in rows if row["state"] == "done"], objectives)
    best = sorted(shade, key=lambda job: -shade[job])[:MOST]
    shown = [row for row in rows if row["job"] in {*best}]
    names = [*varied, *objectives]
    complete = [
        row for row in shown if all(results.score(row, name) is not None for name in objectives)
    ]
    if len(names) < 2 or len(complete) < 2:
        return
    coordinates = [
        Coordinate(name, {row["job"]: _value(complete, row, name, objectives) for row in complete})
        for name in names
    ]
    about = {row["job"]: said(row, varied) for row in complete}
    drawn = plots.parallel(coordinates, {job: shade[job] for job in about}, about)
    more = (
        f"the best {len(about)} of {len(rows)} jobs" if len(shade) > MOST else f"{len(about)} jobs"
    )
    good = f", strong lines are good by {title(next(iter(objectives)))}" if objectives else ""
    yield Drawing("All values side by side", more + good, drawn)


def _value(
    rows: Table, row: Mapping[str, Any], name: str, objectives: Mapping[str, Direction]
) -> float | str:
    """A score, an option's number where all of its values are such, or its text."""
    if name in objectives:
        return results.score(row, name) or 0.0
    numbers = [_number(each[name]) for each in rows]
    mine = _number(row[name])
    return row[name] if None in numbers or mine is None else mine


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def curves(now: Standing, rows: Table, objectives: Mapping[str, Direction]) -> Iterator[Drawing]:
    """What steps have measured of their learning, of all jobs together."""
    shade, by_job = shades(rows, objectives), {row["job"]: row for row in rows}
    lines: dict[tuple[str, str], list[Line]] = {}
    for place, jobs, points in _measured(now):
        line = _line(jobs, points, shade, by_job, now.manifest.varied)
        lines.setdefault(place, []).append(line)
    for (step, name), found in lines.items():
        kept = sorted(found, key=lambda line: line.shade)[-MOST:]
        if max(len(line.points) for line in kept) > 1:
            some = f"the best {len(kept)} of " if len(kept) < len(found) else ""
            about = f"{some}{len(found)} curves, by step"
            yield Drawing(f"{title(name)} of {step}", about, plots.curves(kept, "step"))


def _measured(now: Standing) -> Iterator[tuple[tuple[str, str], list[str], Points]]:
    """Step and figure, the jobs that have this step, and its values by step."""
    users: dict[str, list[str]] = {}
    for job in now.manifest.jobs:
        for row in now.manifest.steps(job):
            users.setdefault(row.key, []).append(job.id)
    for key, path in _files(now):
        rows = metrics.current(metrics.read(path)) if key in users else ()
        for name in LOOKED_AT:
            if points := [(row["step"], row[name]) for row in rows if _is_drawn(row, name)]:
                yield (now.manifest.keys[key].name, name), users[key], points
    for name_of_job, given_up in now.pruned.items():
        step, _, name = given_up.figure.rpartition(".")
        yield (step, name), [name_of_job], sorted(given_up.reported.items())


def _files(now: Standing) -> Iterator[tuple[str, Path]]:
    """Where the figures of each step are: with its result, or with its unfinished work."""
    for key, entry in now.entries.items():
        yield key, entry.metrics
    store = store_of(now.manifest)
    for key in (*now.running, *now.failed):
        yield from ((key, path) for path in store.unfinished(key))


def _is_drawn(row: Mapping[str, Any], name: str) -> bool:
    found = [row.get("step"), row.get(name)]
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in found)


def _line(
    jobs: Sequence[str],
    points: Points,
    shade: Mapping[str, int],
    by_job: Mapping[str, Mapping[str, Any]],
    varied: Sequence[str],
) -> Line:
    words = said(by_job[jobs[0]], varied)
    more = f" and {len(jobs) - 1} more jobs" if len(jobs) > 1 else ""
    about = f"{words}{more}: {number(points[-1][1])} at step {points[-1][0]:g}"
    return Line(jobs, points, about, max(shade.get(job, 0) for job in jobs))
