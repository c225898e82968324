"""The page of a sweep: one file that loads nothing, with every job in a table that sorts."""

import base64
import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import RecipeError, StepError
from runner.launch import Failure
from runner.origins import short
from runner.report import causes, html, sweep_figures
from runner.report.folder import presentable
from runner.report.sweep_figures import Drawing
from runner.secrets import mask, masked
from runner.sweep import results
from runner.sweep.manifest import Job
from runner.sweep.results import Table
from runner.sweep.settings import Direction
from runner.sweep.standing import Standing

NAME = "sweep.html"
TEMPLATE, SCRIPT = "sweep.html.jinja", "sweep.js"
MOST_FIGURES = 6
"""Scores that the table shows where the sweep does not say which is looked for."""
MOST_JOBS, MOST_FAILURES = 2000, 50
SHOWN_ID = 8
"""Characters of a job's id that are shown."""


@dataclass(frozen=True)
class Cell:
    """What stands in the table, and by what it is sorted."""

    text: str
    by: str
    is_number: bool = False


@dataclass(frozen=True)
class Failed:
    """A step that failed: its jobs, and what was likely the matter."""

    failure: Failure
    first: str
    more: int
    causes: Sequence[causes.Cause]


@dataclass(frozen=True)
class Best:
    """A job that no other beats, its scores, and the command that saves it."""

    job: str
    about: str
    scores: str
    command: str


def write(now: Standing, rows: Table, folder: Path) -> Path:
    """Make the page of a sweep from what is known of its jobs, and put it into its folder."""
    path = folder / NAME
    files.write_text(path, render(now, rows, folder))
    return path


def render(now: Standing, rows: Table, folder: Path) -> str:
    """The page of a sweep."""
    manifest, objectives = now.manifest, now.manifest.settings.objectives
    rows = [masked(row) for row in rows]
    script = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8")
    columns = _columns(rows, manifest.varied, objectives)
    template = html.environment().get_template(TEMPLATE)
    page: str = template.render(
        manifest=manifest,
        folder=folder,
        words=shlex.join(manifest.words),
        counts={state.value: count for state, count in now.counts().items() if count},
        headline=[*_headline(now, rows)],
        columns=columns,
        table=[[_cell(row, name) for name in columns] for row in rows[:MOST_JOBS]],
        jobs=[row["job"] for row in rows],
        label=_label,
        best=[*_best(now, rows)],
        objectives=objectives,
        planes=_safe(sweep_figures.planes(rows, objectives, manifest.varied)),
        parallel=_safe(sweep_figures.parallel(rows, objectives, manifest.varied)),
        curves=_safe(sweep_figures.curves(now, rows, objectives)),
        failures=[*_failures(now)][:MOST_FAILURES],
        failed=len(now.failed),
        going_on=shlex.join(["runner", "sweep", short(folder)]),
        script=_trusted(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return mask(page)


def _safe(drawings: Iterator[Drawing]) -> list[Drawing]:
    """Drawings as a part of a page: what is a user's is escaped in them already."""
    return [Drawing(each.title, each.about, _trusted(each.svg)) for each in drawings]


def _trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704  ours


def _headline(now: Standing, rows: Table) -> Iterator[tuple[str, str]]:
    """What a reader wants to know first."""
    manifest = now.manifest
    uses = sum(len(job.rows) for job in manifest.jobs)
    yield "jobs", f"{len(rows)}"
    if manifest.frozen:
        yield "trials", f"{len(manifest.trials)} of {manifest.settings.trials}"
    yield "distinct steps", f"{len(manifest.keys)}, {len(now.entries)} done"
    yield "shared", f"{uses - len(manifest.keys)} steps were not made again"
    took = sum(float(entry.record["seconds"]) for entry in now.entries.values())
    yield "work", html.span(took)


def _columns(rows: Table, varied: Sequence[str], objectives: Mapping[str, Direction]) -> list[str]:
    """What the table shows: of all figures those that are looked for."""
    first = ["job", *(["trial"] if rows and "trial" in rows[0] else []), *varied, "state"]
    shown = [name for name in objectives if name not in sweep_figures.COSTS]
    if not objectives:
        names = {name: 0 for row in rows for name in results.figures(row) if "." in name}
        shown = [name for name in names if name not in first][:MOST_FIGURES]
    costs = [name for name in sweep_figures.COSTS if any(row[name] for row in rows)]
    return [*first, *shown, *costs, "cause"]


def _label(name: str) -> str:
    return {"bytes": "size", "seconds": "time", "peak_memory": "memory"}.get(name, name)


def _cell(row: Mapping[str, Any], name: str) -> Cell:
    """A value for people, and one that sorts."""
    value = row.get(name)
    if name == "job":
        return Cell(row["job"][:SHOWN_ID], row["job"])
    if name not in ("state", "cause") and "." in name and value is None:
        value = results.score(row, name)
    if value is None or value == "" or (value == 0 and name in ("bytes", "peak_memory")):
        return Cell("", "")
    if isinstance(value, (int, float)):
        return Cell(sweep_figures.form(name)(value), f"{float(value)!r}", is_number=True)
    try:
        return Cell(str(value), f"{float(value)!r}", is_number=True)
    except ValueError:
        return Cell(str(presentable(value)), str(value))


def _best(now: Standing, rows: Table) -> Iterator[Best]:
    """The best job, or all that no other beats; none where no score is there yet."""
    manifest, objectives = now.manifest, now.manifest.settings.objectives
    try:
        found = results.best(rows, objectives)
    except RecipeError:
        return
    jobs = {job.id: job for job in manifest.jobs}
    for row, scores in found:
        given = zip(objectives, scores, strict=True)
        words = ["runner", "run", short(manifest.path), *jobs[row["job"]].overrides]
        yield Best(
            row["job"],
            sweep_figures.said(row, manifest.varied),
            ", ".join(f"{name} {sweep_figures.form(name)(value)}" for name, value in given),
            shlex.join(words),
        )


def _failures(now: Standing) -> Iterator[Failed]:
    """Why steps failed, and how many jobs each has cost."""
    users: dict[str, list[Job]] = {}
    for job in now.manifest.jobs if now.failed else ():
        for row in now.manifest.steps(job):
            users.setdefault(row.key, []).append(job)
    for key, failure in now.failed.items():
        if jobs := users.get(key):
            first = shlex.join(jobs[0].overrides)
            yield Failed(failure, first, len(jobs) - 1, _causes(failure))


def _causes(failure: Failure) -> list[causes.Cause]:
    """The likeliest, by what the step said, or by its last lines where it said nothing clear."""
    fact = f"{failure.cause}: {failure.fact}"
    is_refusal = failure.cause == "refused"
    error = StepError(failure.fact) if is_refusal else RuntimeError(fact)
    return causes.of(error, failure.lines)[:2]
