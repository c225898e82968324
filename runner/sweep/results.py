"""The table of a sweep: every job with its values, state, scores, size, time and memory.

What is best by several scores are the jobs that no other beats: the Pareto front.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.stage import Stage
from runner.sweep.manifest import Job, Manifest
from runner.sweep.settings import Direction
from runner.sweep.standing import Standing

CSV, PARQUET = "jobs.csv", "jobs.parquet"
Table = list[dict[str, Any]]


def table(standing: Standing, stages: Mapping[str, Stage]) -> Table:
    """One row a job. Seconds are those of all its steps, whoever made them; memory is the peak."""
    return [_row(standing, job, stages) for job in standing.manifest.jobs]


def _row(standing: Standing, job: Job, stages: Mapping[str, Stage]) -> dict[str, Any]:
    steps = standing.manifest.steps(job)
    entries = {row.name: standing.entries[row.key] for row in steps if row.key in standing.entries}
    records = {name: entry.record for name, entry in entries.items()}
    named = {name.rpartition(".")[0] for name in standing.manifest.settings.objectives}
    scored = [
        row.name for row in steps if stages[row.stage].GIVES == "scores" or _is_in(row.name, named)
    ]
    figures: dict[str, Any] = {}
    for name in scored:
        if name in records:
            figures |= dict(_flat(records[name]["facts"], name))
    sizes = [record["facts"].get("bytes_after") for record in records.values()]
    return {
        "job": job.id,
        **_trials(standing.manifest, job),
        **values(standing, job),
        "state": str(standing.state(job)),
        **figures,
        "bytes": next((size for size in reversed(sizes) if size is not None), None),
        "seconds": round(sum(float(record["seconds"]) for record in records.values()), 3),
        "peak_memory": max((r.get("peak_memory", 0) for r in records.values()), default=0),
        "cause": standing.cause(job),
    }


def _is_in(step: str, figures: Iterable[str]) -> bool:
    """Whether one of these names of figures begins with the step's."""
    return any(f"{name}.".startswith(f"{step}.") for name in figures)


def _trials(manifest: Manifest, job: Job) -> dict[str, str]:
    """The trials of a search that have proposed a job."""
    if not manifest.frozen:
        return {}
    numbers = (str(n) for n, each in enumerate(manifest.trials) if each == job.id)
    return {"trial": ", ".join(numbers)}


def values(standing: Standing, job: Job) -> dict[str, str]:
    """What a job has for each option with many values, as it is typed."""
    pairs = (text.partition("=") for text in job.overrides)
    chosen = {name.lstrip("+"): value for name, _, value in pairs}
    return {name: chosen.get(name, "") for name in standing.manifest.varied}


def _flat(facts: Any, name: str) -> Iterator[tuple[str, float]]:
    """The figures among facts, however deep."""
    if isinstance(facts, Mapping):
        for part, value in facts.items():
            yield from _flat(value, f"{name}.{part}")
    elif isinstance(facts, (int, float)) and not isinstance(facts, bool):
        yield name, facts


def write(rows: Table, folder: Path) -> list[Path]:
    """jobs.csv and jobs.parquet in a folder, each replaced whole."""
    names = [*dict.fromkeys(name for row in rows for name in row)]
    fresh = folder / f".{CSV}.{os.getpid()}"
    with open(fresh, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(fresh, folder / CSV)
    import pyarrow
    from pyarrow import parquet

    columns = {name: [row.get(name) for row in rows] for name in names}
    fresh = folder / f".{PARQUET}.{os.getpid()}"
    parquet.write_table(pyarrow.table(columns), fresh)
    os.replace(fresh, folder / PARQUET)
    return [folder / CSV, folder / PARQUET]


def score(row: Mapping[str, Any], objective: str) -> float | None:
    """A job's figure; of several under one name the last: that of the finished model."""
    figures = [
        value
        for name, value in row.items()
        if (name == objective or name.startswith(f"{objective}.")) and value is not None
    ]
    return float(figures[-1]) if figures else None


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """What is a number of a job, and so may be looked for."""
    return {
        name: value
        for name, value in row.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def best(
    rows: Table, objectives: Mapping[str, Direction]
) -> list[tuple[dict[str, Any], list[float]]]:
    """The jobs that no other beats, with their scores, the first score's best first.

    Jobs that were given up do not count. RecipeError where no job has all scores.
    """
    if not objectives:
        fact = "the recipe does not say which score is looked for."
        raise RecipeError([Problem("sweep.objective", fact, "Say --objective STEP.FIGURE.")])
    scored = []
    for row in rows:
        found = [score(row, name) for name in objectives] if row["state"] != "pruned" else [None]
        if None not in found:
            scored.append((row, [value for value in found if value is not None]))
    if not scored:
        raise RecipeError([_no_score(rows, objectives)])
    signs = [1 if direction == "maximize" else -1 for direction in objectives.values()]
    points = [[s * value for s, value in zip(signs, found, strict=True)] for _, found in scored]
    kept = sorted(front(points), key=lambda number: points[number], reverse=True)
    return [scored[number] for number in (kept if len(signs) > 1 else kept[:1])]


def _no_score(rows: Table, objectives: Mapping[str, Direction]) -> Problem:
    """The first that no job has."""
    lacking = [name for name in objectives if all(score(row, name) is None for row in rows)]
    name = lacking[0] if lacking else ", ".join(objectives)
    names = sorted({each for row in rows for each in figures(row)})
    guess = did_you_mean(name, names) or f"Figures are: {listing(names)}."
    return Problem("", f'no job has a score "{name}" yet.', guess)


def front(points: Sequence[Sequence[float]]) -> list[int]:
    """The numbers of the points that no other beats: as high in all, and higher in one."""
    kept: list[int] = []
    for number in sorted(range(len(points)), key=lambda n: (*points[n],), reverse=True):
        if not any(_beats(points[other], points[number]) for other in kept):
            kept.append(number)  # what comes later is lower in one, and cannot beat it
    return sorted(kept)


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = [*zip(one, other, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
