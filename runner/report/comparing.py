"""Two runs side by side: what explains their difference first, then what came of it."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import Any

import yaml

from runner.files import human_bytes
from runner.report.folder import RECIPE, Run, RunStep

Flat = Mapping[str, Any]
MACHINE = ("python", "platform", "cores", "gpus")
UNSAID = ("samples",)
"""Figures of a record that are no figures: whole answers."""


@dataclass(frozen=True)
class Change:
    """One thing that is not the same: `step` is empty where it is of the whole run."""

    step: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Comparison:
    """All that differs between two runs, by kind; what can explain the rest comes first.

    `options` change results, `settings` do not (workers, paths whose content is digested).
    `steps` are those whose results have other bytes, `first` is the first of them.
    """

    first: str
    options: tuple[Change, ...]
    sources: tuple[Change, ...]
    versions: tuple[Change, ...]
    machine: tuple[Change, ...]
    settings: tuple[Change, ...]
    steps: tuple[Change, ...]
    scores: tuple[Change, ...]
    sizes: tuple[Change, ...]
    seconds: tuple[Change, ...]

    @property
    def explanation(self) -> str:
        """In one sentence, why the results are not the same."""
        if not self.first:
            return "the results are the same, byte for byte"
        if None in (self.steps[0].before, self.steps[0].after):
            return f"{self.first} was done in one of them only"
        own = [each for each in (*self.options, *self.sources) if each.step == self.first]
        of_all = [each for each in self.versions if each.step in ("", self.first)]
        why = own or [*of_all, *self.machine]
        if not why:
            return f"{self.first} is the first step that differs, for no reason that is recorded"
        more = f" (and {len(why) - 1} more)" if len(why) > 1 else ""
        return f"{self.first} is the first step that differs: {said(why[0])}{more}"

    def plain(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return {"explanation": self.explanation, **asdict(self)}


def compare(before: Run, after: Run) -> Comparison:
    """What differs between two runs, as their folders have it."""
    changed = list(_options(before, after))
    inert = [each for each in changed if _changes_nothing(each, after)]
    sources = _by_step(before.record, after.record, "sources")
    steps = tuple(_steps(before, after))
    return Comparison(
        first=steps[0].step if steps else "",
        options=tuple(each for each in changed if each not in inert),
        sources=tuple(each for each in sources if each not in changed),
        versions=tuple(_versions(before, after)),
        machine=tuple(_differences("", _of_machine(before), _of_machine(after))),
        settings=tuple(inert),
        steps=steps,
        scores=tuple(_figures(before, after, _scores)),
        sizes=tuple(_figures(before, after, _sizes)),
        seconds=tuple(_seconds(before, after)),
    )


TITLES = {
    "options": "options",
    "sources": "sources",
    "versions": "versions",
    "machine": "machine",
    "settings": "settings that change no result",
    "steps": "steps with other results",
    "scores": "scores",
    "sizes": "sizes",
    "seconds": "seconds",
}
OF_STEPS = ("steps", "seconds")
"""Kinds of which each step has one."""


def lines(found: Comparison) -> Iterator[str]:
    """A comparison for a terminal; what is the same is left out."""
    yield found.explanation
    for kind, title in TITLES.items():
        changes: tuple[Change, ...] = getattr(found, kind)
        if changes:
            yield f"\n{title}"
            names = [each.step if kind in OF_STEPS else _name(each) for each in changes]
            width = max(map(len, names))
            for name, change in zip(names, changes, strict=True):
                yield f"  {name:<{width}}  {_move(kind, change)}"


def said(change: Change) -> str:
    """A change in words: `adapt.rank 8 -> 16`."""
    return f"{_name(change)} {_move('', change)}"


def _name(change: Change) -> str:
    return ".".join(filter(None, (change.step, change.name)))


def _move(kind: str, change: Change) -> str:
    """From what to what; of sizes in words, and of numbers by how much."""
    was, now = change.before, change.after
    if kind == "steps":
        was, now = (each[:12] if each else "not done" for each in (was, now))
    text = f"{_shown(was)} -> {_shown(now)}"
    if kind == "sizes" and isinstance(was, int) and isinstance(now, int):
        text = f"{human_bytes(was)} -> {human_bytes(now)}"
    numbers = all(isinstance(each, int | float) for each in (was, now))
    return f"{text} ({now - was:+.4g})" if kind == "scores" and numbers else text


def _options(before: Run, after: Run) -> Iterator[Change]:
    """Every value of the resolved recipes that is not the same."""
    names = {step.name for run in (before, after) for step in run.steps}
    for change in _differences("", _recipe(before), _recipe(after)):
        parts = change.name.split(".")
        step = next((n for n in (".".join(parts[:2]), parts[0]) if n in names), "")
        name = change.name.removeprefix(f"{step}.") if step else change.name
        yield Change(step, name, change.before, change.after)


def _recipe(run: Run) -> Flat:
    try:
        found = yaml.safe_load(run.text(RECIPE))
    except yaml.YAMLError:
        return {}
    return dict(_flat(found)) if isinstance(found, dict) else {}


def _changes_nothing(change: Change, run: Run) -> bool:
    """Whether it is of an option that stays out of the key, or of the recipe's name and place."""
    if not change.step:
        return change.name.split(".")[0] in ("name", "store", "versions")
    stage = next((step.stage for step in run.steps if step.name == change.step), "")
    return change.name.split(".")[0] in _unkeyed(stage)


@cache
def _unkeyed(stage_name: str) -> frozenset[str]:
    from runner.stages import known

    stage = known().get(stage_name)
    if stage is None:
        return frozenset()
    return frozenset(f.name for f in fields(stage.Options) if not f.metadata.get("keyed", True))


def _versions(before: Run, after: Run) -> Iterator[Change]:
    """Libraries by step where a result was made with others; those of the runs where all was."""
    of_runs = [*_differences("", _libraries(before), _libraries(after))]
    yield from of_runs
    told = {(each.name, each.before, each.after) for each in of_runs}
    for change in _by_step(before.record, after.record, "steps", "versions"):
        if (change.name, change.before, change.after) not in told:
            yield change


def _libraries(run: Run) -> Flat:
    return {"runner": run.record.get("runner"), **run.record.get("libraries", {})}


def _of_machine(run: Run) -> Flat:
    found = {name: run.record[name] for name in MACHINE if name in run.record}
    return {**found, "gpus": ", ".join(map(str, found.get("gpus", ()))) or None}


def _steps(before: Run, after: Run) -> Iterator[Change]:
    """The steps whose results have other bytes, or that one of the runs has not done."""
    was, now = ({step.name: _digest(step) for step in run.steps} for run in (before, after))
    for name in dict.fromkeys([*was, *now]):
        if was.get(name) != now.get(name):
            yield Change(name, "digest", was.get(name), now.get(name))


def _digest(step: RunStep) -> str | None:
    return str(step.done["digest"]) if step.done else None


def _figures(before: Run, after: Run, of: Callable[[RunStep], Flat]) -> Iterator[Change]:
    """The figures of each step that are not the same."""
    was, now = ({step.name: of(step) for step in run.steps} for run in (before, after))
    for name in dict.fromkeys([*was, *now]):
        yield from _differences(name, was.get(name, {}), now.get(name, {}))


def _scores(step: RunStep) -> Flat:
    found = step.facts if step.gives == "scores" else {}
    return dict(_flat({name: value for name, value in found.items() if name not in UNSAID}))


def _sizes(step: RunStep) -> Flat:
    return {name: value for name, value in step.facts.items() if name.startswith("bytes")}


def _seconds(before: Run, after: Run) -> Iterator[Change]:
    """How long each step took to make, whichever run made it."""
    for change in _by_step(before.record, after.record, "steps", "made_in_seconds"):
        yield Change(change.step, "seconds", change.before, change.after)


def _by_step(before: Flat, after: Flat, *path: str) -> Iterator[Change]:
    first, *rest = path
    was, now = before.get(first) or {}, after.get(first) or {}
    for step in dict.fromkeys([*was, *now]):
        values = [_under(each.get(step) or {}, rest) for each in (was, now)]
        yield from _differences(step, *(dict(_flat(value)) for value in values))


def _under(value: Any, path: list[str]) -> Any:
    for name in path:
        value = value.get(name)
        if value is None:
            return {}
    return value


def _differences(step: str, before: Flat, after: Flat) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        if was != now or type(was) is not type(now):
            yield Change(step, name, was, now)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as one, `a.b: 1`; lists are values."""
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for name, each in value.items():
        yield from _flat(each, f"{prefix}.{name}" if prefix else str(name))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:28]}...{text[-28:]}"
