"""The page of a run that failed: what, why most likely, and the command that goes on."""

import json
import re
import shlex
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import RunnerError, StepError
from runner.options import plain
from runner.origins import short
from runner.plan import Plan, Planned
from runner.report import causes
from runner.report.causes import Cause
from runner.report.folder import LOG, Run, presentable, read
from runner.secrets import mask

NAME = "failure.md"
LIKELY = "## Likely causes"
GO_ON = "## To go on"
WHOLE = "## The whole of it"
LOG_LINES, MOST_CAUSES, MOST_OPTIONS = 10, 3, 12
WIDEST = 160
"""Characters of a line of the log that are shown."""


def write(folder: Path, plan: Plan, error: Exception) -> Path:
    """Write the page into the run's folder, after everything else of the run is there."""
    run, path = read(folder), folder / NAME
    lines = [*_page(run, plan, error), "", WHOLE, *_code(_traceback(error))]
    files.write_text(path, mask("\n".join(lines)) + "\n")
    return path


def for_terminal(path: Path) -> str:
    """The page without its traceback, and where that is."""
    page = path.read_text(encoding="utf-8").partition(f"\n{WHOLE}")[0]
    return f"{page}\nThe whole of it, with the traceback: {short(path.absolute())}"


def likely(page: str) -> list[tuple[str, str]]:
    """The causes that a page names, the likeliest first, and what helps with each."""
    section = page.partition(f"\n{LIKELY}\n")[2].partition("\n\n")[0]
    return re.findall(r"^\d+\. (.+?): (.+)$", section, re.MULTILINE)


def command(page: str) -> str:
    """The command by which, as a page says, the run goes on; empty where there is no page."""
    return page.partition(f"\n{GO_ON}\n")[2].partition("\n")[0].strip()


def _page(run: Run, plan: Plan, error: Exception) -> Iterator[str]:
    steps = failing(run, plan, error)
    found = causes.of(error, run.text(LOG).splitlines()[-LOG_LINES:])[:MOST_CAUSES]
    yield f"# {run.name}: {' and '.join(p.step.name for p in steps) or 'the run'} failed"
    yield ""
    yield from _said(error).splitlines()
    if found:
        yield from ("", LIKELY)
        for number, cause in enumerate(found, start=1):
            yield f"{number}. {cause.name}: {cause.cure}"
    for planned in steps:
        if shown := dict(_that_matter(planned, found)):
            yield from ("", f"## Options of {planned.step.name} that matter")
            yield from _code(f"{name}: {json.dumps(value)}" for name, value in shown.items())
    if last := [line[:WIDEST] for line in run.text(LOG).splitlines()[-LOG_LINES:]]:
        yield from ("", f"## The last lines of {LOG}")
        yield from _code(last)
    yield from ("", GO_ON)
    yield from _code([going_on(run.record.get("command", []), plan, steps, run.keys)])
    yield f"What was done is kept: {len(run.keys)} of {len(plan.steps)} steps."


def failing(run: Run, plan: Plan, error: Exception) -> list[Planned]:
    """The step that failed: the one the error names, else those that were running."""
    named = error.step if isinstance(error, StepError) else ""
    names = [named] if named else run.record.get("running", [])
    return [planned for planned in plan.steps if planned.step.name in names]


def going_on(
    words: Sequence[str], plan: Plan, failed: Sequence[Planned], done: Mapping[str, str]
) -> str:
    """The command, without doing again what was done.

    Of what --fresh asked for, the steps stay that were not begun.
    """
    if not words:
        return shlex.join(["runner", "run", short(plan.recipe.path)])
    begun = {*done, *(planned.step.name for planned in failed)}
    rest = [p.step.name for p in plan.steps if p.fresh and p.step.name not in begun]
    fresh = [word for name in rest for word in ("--fresh", name)]
    return shlex.join(["runner", *_without_fresh(words), *fresh])


def _without_fresh(words: Sequence[str]) -> Iterator[str]:
    given = iter(words)
    for word in given:
        if word == "--fresh":
            next(given, None)
        elif not word.startswith("--fresh="):
            yield word


def _said(error: Exception) -> str:
    """What the error says; of one that is no user's fault, its class too."""
    if isinstance(error, RunnerError):
        return str(error)
    return (
        f"{type(error).__name__}: {error}\n  This should not happen: it is no fault of the recipe."
    )


def _that_matter(planned: Planned, found: Sequence[Cause]) -> Iterator[tuple[str, Any]]:
    """The options that a cause speaks of, then those that are not as they are by default."""
    every = plain(planned.step.options)
    names = [name for cause in found for name in cause.options if name in every]
    for name in [*dict.fromkeys([*names, *_changed(planned.step.options)])][:MOST_OPTIONS]:
        yield name, presentable(every[name])


def _changed(given: Any) -> Iterator[str]:
    """The names of the options that are not as they are by default."""
    for field in fields(given):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if getattr(given, field.name) != default:
            yield field.name


def _traceback(error: Exception) -> Iterator[str]:
    for part in traceback.format_exception(error):
        yield from part.rstrip("\n").split("\n")


def _code(lines: Iterable[str]) -> Iterator[str]:
    """Lines as Markdown shows them to the letter."""
    for line in lines:
        yield f"    {line}".rstrip()
