"""What a run would do, and why: a key, a verdict and a reason for every step. Runs nothing."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

from runner.files import digest_json
from runner.options import keyed
from runner.recipe import Recipe, Step
from runner.stage import Facts, version
from runner.store import Entry, Store

KEY_SCHEMA = 1
"""Raised when keys are made in another way; every step then runs once more, and says so."""

KEY_LENGTH = 32
"""Hexadecimal digits of a key."""

LIBRARIES = ("torch", "transformers", "datasets", "peft", "accelerate", "bitsandbytes")
"""Libraries that can change a result: recorded with every entry, not part of its key."""

Parts = Mapping[str, Any]


class Verdict(StrEnum):
    """What a run would do with a step."""

    REUSE = "reuse"
    RESUME = "resume"
    RUN = "run"


@dataclass(frozen=True)
class Planned:
    """One step of a plan.

    `parts` is what the key is the digest of; `replaces` the id of a kept result that no longer
    counts and must be made again; `fresh` says that unfinished work is not to be gone on with;
    `dropped` that the result is known but its files were not kept, since nothing needs them.
    """

    step: Step
    key: str
    parts: Parts
    verdict: Verdict
    reason: str
    replaces: str | None = None
    fresh: bool = False
    dropped: bool = False


@dataclass(frozen=True)
class Plan:
    """The verdicts of a whole recipe, in its order, and what is to be said of the whole."""

    recipe: Recipe
    steps: tuple[Planned, ...]
    notes: tuple[str, ...] = ()
    lock: Path | None = None

    def step(self, name: str) -> Planned:
        """The planned step of that name."""
        return next(planned for planned in self.steps if planned.step.name == name)

    @property
    def work(self) -> tuple[Planned, ...]:
        """The steps that are not reused."""
        return tuple(p for p in self.steps if p.verdict is not Verdict.REUSE)


def plan(
    recipe: Recipe,
    store: Store,
    fresh: Collection[str] = (),
    locked: Mapping[str, Facts] = MappingProxyType({}),
) -> Plan:
    """Decide for every step; the names in `fresh` run even if they are done.

    `locked` holds what the lock file says of a step.
    """
    keys: dict[str, str] = {}
    steps, notes = [], []
    for step in recipe.steps:
        options = step.stage.resolve(step.options, locked.get(step.name, {}))
        notes += _renamed(step, options)
        step = replace(step, options=options)
        parts = key_parts(step, keys)
        key = keys[step.name] = digest_json(parts)[:KEY_LENGTH]
        steps.append(_decide(recipe, step, key, parts, store, step.name in fresh))
    resolved = replace(recipe, steps=tuple(each.step for each in steps))
    return Plan(resolved, tuple(_with_files_that_are_needed(steps)), tuple(notes))


def _renamed(step: Step, resolved: Any) -> list[str]:
    """A choice that was said by another name than its own."""
    said = {f.name: getattr(step.options, f.name) for f in fields(step.options)}
    return [
        f"{step.name}.{name}: {said[name]} is another name for {value}"
        for name in said
        if isinstance(value := getattr(resolved, name), str)
        and isinstance(said[name], str)
        and said[name] not in ("auto", value)
    ]


def plan_last(recipe: Recipe, store: Store) -> Plan:
    """The plan that makes the last step of a recipe whose earlier ones are done.

    Its options are resolved already.
    """
    keys: dict[str, str] = {}
    steps = []
    for step in recipe.steps:
        parts = key_parts(step, keys)
        keys[step.name] = digest_json(parts)[:KEY_LENGTH]
        steps.append(Planned(step, keys[step.name], parts, Verdict.REUSE, "done"))
    last = steps.pop()
    return Plan(recipe, (*steps, _decide(recipe, last.step, last.key, last.parts, store, False)))


def finished(recipe: Recipe, step: Step, key: str, store: Store) -> Entry | None:
    """The result that a plan would reuse for a step; None where it would be made."""
    found = store.entry(key)
    if found is None or step.stage.stale(step.options, found.product, found.record["facts"]):
        return None
    return found if _reuse(found, recipe)[0] is Verdict.REUSE else None


def needed(steps: Sequence[Planned], begin: int = 0) -> set[str]:
    """The steps whose results are asked for by those that run, from number `begin` on.

    A result that must be read back asks for others in turn (an adapter for its base).
    """
    found: set[str] = set()
    for index, planned in reversed([*enumerate(steps)]):
        step = planned.step
        runs = index >= begin and planned.verdict is not Verdict.REUSE
        for role, names in step.inputs.items():
            if runs or (step.name in found and step.stage.NEEDS[role].restores):
                found.update(names)
    return found


def _with_files_that_are_needed(steps: list[Planned]) -> list[Planned]:
    """Make dropped results again that a step to run builds on, and what these build on."""
    while lacking := needed(steps) & {p.step.name for p in steps if p.dropped}:
        reason = "its files were dropped (store.keep) and are needed again"
        steps = [
            replace(p, verdict=Verdict.RUN, reason=reason, dropped=False)
            if p.step.name in lacking
            else p
            for p in steps
        ]
    return steps


def key_parts(step: Step, keys: Mapping[str, str]) -> Parts:
    """Everything that decides a step's result; `keys` holds the earlier steps'.

    Inputs are told apart by role, and by their steps' names and order where a role takes many.
    """
    return {
        "schema": KEY_SCHEMA,
        "stage": step.stage_name,
        "version": version(step.stage),
        "options": keyed(step.options),
        "inputs": {
            role: [[name, keys[name]] for name in names]
            if step.stage.NEEDS[role].many
            else keys[names[0]]
            for role, names in step.inputs.items()
        },
    }


def _decide(
    recipe: Recipe, step: Step, key: str, parts: Parts, store: Store, fresh: bool
) -> Planned:
    found = store.look(key)
    verdict, reason = Verdict.RUN, ""
    if fresh:
        reason = "asked for by --fresh"
    elif isinstance(found, str):
        reason = f"the kept result is damaged: {found}"
    elif found and (gone := step.stage.stale(step.options, found.product, found.record["facts"])):
        reason = gone
    elif found:
        verdict, reason = _reuse(found, recipe)
    elif store.has_draft(key):
        verdict, reason = Verdict.RESUME, "begun before and not finished"
    elif (remains := store.remains(key)) and not recipe.keeps(step.name):
        verdict, reason = _reuse(remains, recipe)
        reason += "; its files were dropped (store.keep)"
        return Planned(step, key, parts, verdict, reason, dropped=verdict is Verdict.REUSE)
    else:
        reason = _why_new(recipe, step, key, parts, store)
    outdated = found if isinstance(found, Entry) and verdict is Verdict.RUN else None
    replaces = str(outdated.record["id"]) if outdated else None
    return Planned(step, key, parts, verdict, reason, replaces, fresh)


def _reuse(entry: Entry, recipe: Recipe) -> tuple[Verdict, str]:
    now, then = versions(), entry.record.get("versions", {})
    moved = [
        f"{name} {then[name]} -> {now[name]}"
        for name in now
        if name in then and then[name] != now[name]
    ]
    if moved and recipe.versions == "strict":
        return Verdict.RUN, f"libraries changed: {', '.join(moved)}"
    made = str(entry.record.get("made", "")).replace("T", " ").rstrip("Z")
    said = f"done {made} UTC"
    return Verdict.REUSE, f"{said}, with other libraries: {', '.join(moved)}" if moved else said


def _why_new(recipe: Recipe, step: Step, key: str, parts: Parts, store: Store) -> str:
    """The reason that a step has no entry, by the closest of its earlier keys."""
    rows = store.recent(recipe.name, step.name)
    if not rows:
        return "not done before"
    if any(row["key"] == key for row in rows):
        return "done before, but no longer in the store"
    closest = min((differences(row["parts"], parts, step.inputs) for row in rows), key=len)
    more = f" (and {len(closest) - 1} more)" if len(closest) > 1 else ""
    return closest[0] + more if closest else "not done before"


def differences(
    old: Parts, new: Parts, inputs: Mapping[str, Collection[str]] | None = None
) -> list[str]:
    """Each part of a key that differs, in words: `options changed: rank 8 -> 16`.

    `inputs` names the steps that fill each role now.
    """
    found = [
        f"{name} changed: {old.get(name)} -> {new.get(name)}"
        for name in ("schema", "stage", "version")
        if old.get(name) != new.get(name)
    ]
    before, after = _flat(old.get("options", {})), _flat(new.get("options", {}))
    for name in sorted({*before, *after}):
        was, now = _show(before, name), _show(after, name)
        if was != now:
            change = f"{_cut(was)} -> {_cut(now)}"
            found.append(f"options changed: {name} {change}")
    for role in sorted({*old.get("inputs", {}), *new.get("inputs", {})}):
        earlier, current = old.get("inputs", {}).get(role), new.get("inputs", {}).get(role)
        if earlier != current:
            names = list((inputs or {}).get(role, ()))
            if isinstance(earlier, list) and isinstance(current, list):
                was_of, now_of = dict(earlier), dict(current)
                changed = [n for n in {**was_of, **now_of} if was_of.get(n) != now_of.get(n)]
                names = changed or ["the order"]
            found.append(f"input {role} changed: {', '.join(names)}".removesuffix(": "))
    return found


@cache
def versions() -> dict[str, str]:
    """The installed version of each library that can change a result."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _flat(options: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(options, Mapping):
        return {prefix: options}
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def _show(options: Mapping[str, Any], name: str) -> str:
    """A value as a key tells it from others: true is not 1, and null is not left out."""
    if name not in options:
        return "unset"
    value = options[name]
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:18] + "..." + text[-18:]
