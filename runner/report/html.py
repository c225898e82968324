"""The report of a run: one HTML page, made from the run's folder, that loads nothing at all."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files
from runner.report import audit, failure, terminal
from runner.report.curves import Curve, draw
from runner.report.folder import LOG, RECIPE, REPORT, Run, RunStep, presentable, read

TEMPLATE = "run.html.jinja"
LOG_LINES = 25
QUESTIONS = 12
"""Answers that are shown side by side."""
LONGEST = 2000
"""Characters of a text that are shown."""
FACTS = 6000
"""Characters of a step's figures that are shown."""


@dataclass(frozen=True)
class Question:
    """What was asked, what was expected, and what each step answered; `right` to the letter."""

    prompt: str
    expected: str
    answers: Sequence[tuple[str, str, bool]]


@dataclass(frozen=True)
class Score:
    """One figure: what it is, of which step or text, and its value."""

    name: str
    of: str
    value: str


def write(folder: Path) -> Path:
    """Make the report of a run from its folder, and put it there."""
    path = folder / REPORT
    files.write_text(path, render(read(folder)))
    return path


def environment() -> Any:
    """What makes pages of the templates here; whatever it is given is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    place = FileSystemLoader(Path(__file__).parent)
    page = Environment(
        loader=place,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {
        "size": files.human_bytes,
        "span": span,
        "figure": figure,
        "share": lambda part, whole: round(100 * part / whole, 1) if whole else 0,
    }
    return page


def render(run: Run) -> str:
    """The page of a run."""
    template = environment().get_template(TEMPLATE)
    explained = run.text(failure.NAME)
    page: str = template.render(
        run=run,
        record=run.record,
        headline=headline(run),
        curves=curves(run),
        audits=list(audit.audits(run)),
        columns=[step.name for step in run.steps if step.gives == "text"],
        questions=questions(run),
        scores=list(scores(run)),
        sizes=list(sizes(run)),
        facts={step.name: facts_text(step.facts) for step in run.steps if step.facts},
        recipe=run.text(RECIPE),
        log=run.text(LOG).splitlines()[-LOG_LINES:],
        causes=failure.likely(explained),
        going_on=failure.command(explained),
        command=shlex.join(["runner", *run.record.get("command", [])]),
        install=install(run.record),
    )
    return page


def headline(run: Run) -> list[tuple[str, str]]:
    """What a reader wants to know first."""
    found = [("time", span(run.seconds))]
    if run.worked and (peak := run.record.get("peak_memory")):
        found.append(("most memory", files.human_bytes(peak)))
    return [*terminal.figures({step.stage: step.facts for step in run.steps}), *found]


def curves(run: Run) -> dict[str, list[Curve]]:
    """By step, the curves of those that have measured anything over time."""
    from markupsafe import Markup

    found = {step.name: draw(run.metrics(step.name), f"c{n}") for n, step in enumerate(run.steps)}
    return {
        name: [Curve(each.title, each.about, Markup(each.svg)) for each in drawn]  # noqa: S704  ours
        for name, drawn in found.items()
        if drawn
    }


def questions(run: Run) -> list[Question]:
    """The first questions, with the answers of every step that gave some."""
    texts = {step.name: _rows(run, step) for step in run.steps if step.gives == "text"}
    asked: dict[str, dict[str, Any]] = {}
    for name, rows in texts.items():
        for row in rows:
            about = asked.setdefault(str(row["prompt"]), {"expected": row["expected"], "by": {}})
            about["by"].setdefault(name, row["answer"])  # of several samples the first
    asked = asked or _samples(run)
    return [
        Question(
            prompt=cut(prompt),
            expected=cut(str(about["expected"] or "")),
            answers=[
                (name, cut(str(answer)), answer == about["expected"])
                for name, answer in about["by"].items()
            ],
        )
        for prompt, about in [*asked.items()][:QUESTIONS]
    ]


def _rows(run: Run, step: RunStep) -> list[dict[str, Any]]:
    """The first answers of a step, while the store has them."""
    folder, found = run.product(step.name), []
    if folder is None or not (folder / "rows.jsonl").is_file():
        return []
    with open(folder / "rows.jsonl", encoding="utf-8") as lines:
        for line, _ in zip(lines, range(QUESTIONS), strict=False):
            found.append(presentable(json.loads(line)))
    return [row for row in found if {"prompt", "expected", "answer"} <= {*row}]


def _samples(run: Run) -> dict[str, dict[str, Any]]:
    """The few that a record has, where the answers themselves are gone."""
    return {
        sample["prompt"]: {"expected": sample["expected"], "by": sample["answers"]}
        for step in run.steps
        if step.gives == "scores"
        for sample in step.facts.get("samples", ())
    }


def scores(run: Run) -> Iterator[Score]:
    """Every number that a step gave as a score."""
    for step in run.steps:
        if step.gives == "scores":
            roles = {role: ", ".join(names) for role, names in step.inputs.items()}
            facts = {name: value for name, value in step.facts.items() if name != "samples"}
            for path, value in _numbers(facts):
                *above, last = path
                of = roles.get(last, last) if above else step.name
                said = figure(value) + _between(facts, path)
                yield Score(" ".join(above or [last]).replace("_", " "), of, said)


def _between(facts: Mapping[str, Any], path: Sequence[str]) -> str:
    """The ends of a score's interval, where it has one."""
    found: Any = facts.get("intervals")
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, list) or len(found) != 2:
        return ""
    return f" ({figure(found[0])} to {figure(found[1])})"


def _numbers(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _numbers(each, (*path, str(name)))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, value


def sizes(run: Run) -> Iterator[tuple[str, str, str]]:
    """Step, what of it, and how large on disk."""
    for step in run.steps:
        facts = step.facts
        if {"bytes_before", "bytes_after"} <= {*facts}:
            before, after = facts["bytes_before"], facts["bytes_after"]
            yield step.name, "weights before", files.human_bytes(before)
            share = f" ({after / before:.0%})" if before else ""
            yield step.name, "weights after", files.human_bytes(after) + share
        elif isinstance(facts.get("bytes"), int):
            yield step.name, str(facts.get("to", "files")), files.human_bytes(facts["bytes"])


def facts_text(facts: Mapping[str, Any]) -> str:
    """All figures of a step's record, as JSON."""
    return cut(json.dumps(facts, indent=1, ensure_ascii=False), FACTS)


def install(record: Mapping[str, Any]) -> str:
    """The line that installs the libraries that can change a result, as they were."""
    libraries = {"recipe-runner": record.get("runner"), **record.get("libraries", {})}
    pins = {name: str(version).split("+")[0] for name, version in libraries.items() if version}
    return " ".join(f"{name}=={version}" for name, version in pins.items())


def cut(text: str, longest: int = LONGEST) -> str:
    """A text, or its beginning and how much more there is."""
    more = len(text) - longest
    return text if more <= 0 else f"{text[:longest]}… and {more} more characters"


def span(seconds: float) -> str:
    """A time for people: `2 min 54 s`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def figure(value: float) -> str:
    """A number for people: four digits, or all of a whole one."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
