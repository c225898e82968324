"""All that can be known of a recipe without a GPU and before any work, every finding with its cure.

What one finding hides is looked at all the same: steps that are at fault, and those that build on
them, are left aside, and the others go on to the next look.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from runner import lock as locks
from runner import room as rooms
from runner import running
from runner.composing import compose
from runner.errors import Finding, Problem, RecipeError, RunnerError, Severity
from runner.files import human_bytes
from runner.looking import Looking, Refusals, errors, of_step, problem
from runner.plan import Plan, Planned
from runner.recipe import Recipe
from runner.stage import Room
from runner.stages import known
from runner.store import Store

if TYPE_CHECKING:
    from runner.memory.preflight import Claim


def check(
    name: str, overrides: Sequence[str], *, locked: bool = False, bundle: Path | None = None
) -> Iterator[Finding]:
    """Every finding, as soon as it is there; nothing is downloaded, and no model is loaded.

    Of what is done already, nothing is asked; nor is a network that may not be used.
    """
    said = set()
    for finding in _found(name, overrides, locked=locked, bundle=bundle):
        if finding not in said:
            yield finding
        said.add(finding)


def _found(
    name: str, overrides: Sequence[str], *, locked: bool, bundle: Path | None
) -> Iterator[Finding]:
    found, problems = _composed(name, overrides)
    yield from errors(problems)
    if found is None:
        return
    recipe, refused = _resolved(found)
    yield from errors(refused)
    whole = not (problems or refused)
    try:
        planned, store = running.settle(recipe, name, locked=locked and whole, bundle=bundle)
    except RecipeError as error:
        yield from errors(error.problems)
        return
    except RunnerError as error:
        yield from errors((problem(error),))
        return
    yield from (_note("", text) for text in planned.notes if whole)
    yield from _planned(planned, store)


def _composed(name: str, overrides: Sequence[str]) -> tuple[Recipe | None, tuple[Problem, ...]]:
    """The recipe, or what is sound of it and what is not."""
    try:
        return compose(name, overrides, known()), ()
    except RecipeError as error:
        sound = error.sound if error.sound and error.sound.steps else None
        return sound, error.problems


def _resolved(recipe: Recipe) -> tuple[Recipe, tuple[Problem, ...]]:
    """The recipe with everything pinned, without the steps where that cannot be done, and why."""
    try:
        rows = locks.locked(locks.read(recipe.path))
    except RecipeError as error:
        return recipe.without([step.name for step in recipe.steps]), error.problems
    steps, refused = [], Refusals()
    for step in recipe.steps:
        options = step.options
        with rooms.told(step.name, refused):
            options = step.stage.resolve(options, rows.get(step.name, {}))
        steps.append(replace(step, options=options))
    sound = replace(recipe, steps=tuple(steps)).without(refused.names)
    return sound, tuple(refused.problems)


def _planned(planned: Plan, store: Store) -> Iterator[Finding]:
    """What is found of the steps that would run."""
    with TemporaryDirectory(prefix="runner-check-") as scratch:
        looking = Looking(planned, store, Path(scratch))
        yield from _leaves(planned, store)
        yield from looking.sources()
        yield from looking.rows()
    refused = Refusals()
    outlook = rooms.outlook(planned, store, refused=refused, seen=looking.seen)
    yield from refused.findings()
    yield from errors(outlook.shortages)
    if outlook.peak:
        yield _note("", f"the store grows by at least {human_bytes(outlook.peak)}.")
    for each, room in rooms.rooms(planned, store, refused=lambda _: None, seen=looking.seen):
        yield from _room(each, room)


def _leaves(planned: Plan, store: Store) -> Iterator[Finding]:
    """Whether others let the steps do their work."""
    refused = Refusals()
    for each, room in rooms.rooms(planned, store, refused=lambda _: None):
        if room.leave:
            with rooms.told(each.step.name, refused):
                room.leave()
    yield from refused.findings()


def _room(planned: Planned, room: Room) -> Iterator[Finding]:
    """Whether a step has the memory that it needs; what may be meant otherwise."""
    name, refused = planned.step.name, Refusals()
    with rooms.told(name, refused):
        if claim := rooms.check_claim(room):
            yield _note(name, _claimed(claim))
    yield from refused.findings()
    yield from (of_step(name, hint) for hint in room.hints)


def _claimed(claim: "Claim") -> str:
    from runner import hardware

    free = hardware.free_memory(claim.device)
    there = f", and {human_bytes(free)} are free" if free is not None else ""
    return f"takes about {human_bytes(claim.estimate.needed)} of memory on {claim.device}{there}."


def _note(where: str, text: str) -> Finding:
    return Finding(Severity.NOTE, Problem(where, text))
