"""The table of a sweep: every job with its values, state, scores, size, time and memory."""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.stage import Stage
from runner.sweep.manifest import Job
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
    scored = [row.name for row in steps if stages[row.stage].GIVES == "scores"]
    figures: dict[str, Any] = {}
    for name in scored:
        if name in records:
            figures |= dict(_flat(records[name]["facts"], name))
    sizes = [record["facts"].get("bytes_after") for record in records.values()]
    return {
        "job": job.id,
        **values(standing, job),
        "state": str(standing.state(job)),
        **figures,
        "bytes": next((size for size in reversed(sizes) if size is not None), None),
        "seconds": round(sum(float(record["seconds"]) for record in records.values()), 3),
        "peak_memory": max((r.get("peak_memory", 0) for r in records.values()), default=0),
        "cause": standing.cause(job),
    }


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


def best(rows: Table, objective: str | None, direction: str) -> tuple[dict[str, Any], float]:
    """The job with the best score; RecipeError where none is known."""
    if objective is None:
        fact = "the recipe does not say which score is looked for."
        raise RecipeError([Problem("sweep.objective", fact, "Say --objective STEP.FIGURE.")])
    scored = [(row, found) for row in rows if (found := score(row, objective)) is not None]
    if not scored:
        names = sorted({n for row in rows for n, value in row.items() if isinstance(value, float)})
        guess = did_you_mean(objective, names) or f"Figures are: {listing(names)}."
        raise RecipeError([Problem("", f'no job has a score "{objective}" yet.', guess)])
    sign = 1 if direction == "maximize" else -1
    return max(scored, key=lambda each: sign * each[1])
