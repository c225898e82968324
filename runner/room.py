"""Whether there is room on disk for what a plan will write, asked before it writes."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from runner import upkeep
from runner.errors import Problem, StepError, StoreError
from runner.files import human_bytes
from runner.plan import Plan, Planned, Verdict, needed
from runner.stage import Facts, Room
from runner.store import Store


def rooms(plan: Plan, store: Store, begin: int = 0) -> Iterator[tuple[Planned, Room]]:
    """The room that each step takes; one that is done takes none.

    Those before number `begin` are done.
    """
    known: dict[str, Facts] = {}
    for number, planned in enumerate(plan.steps):
        step = planned.step
        inputs = {
            role: {name: fact for giver in names for name, fact in known[giver].items()}
            for role, names in step.inputs.items()
        }
        room = step.stage.room(step.options, inputs)
        done = store.entry(planned.key) or store.remains(planned.key)
        known[step.name] = {**room.gives, **(done.record["facts"] if done else {})}
        if number < begin or planned.verdict is Verdict.REUSE:
            room = Room()
        elif there := store.draft_size(planned.key):
            room = replace(room, work=max(0, room.work - there))
        yield planned, room


def peak(plan: Plan, store: Store) -> int:
    """The most bytes that the store will grow by, as far as they can be known."""
    return max((size for _, _, size in _growth(plan, store, 0)), default=0)


def shortages(plan: Plan, store: Store, begin: int = 0) -> list[Problem]:
    """Every step from number `begin` on that cannot have the room it takes, with the figures."""
    problems = []
    for name, room, size in _growth(plan, store, begin):
        if room.kept or room.work:
            problems += _shortage(name, store.root, size)
        if room.outside:
            problems += _shortage(name, *room.outside)
    return problems


def _growth(plan: Plan, store: Store, begin: int) -> Iterator[tuple[str, Room, int]]:
    """Each step, the room it takes, and by how much the store has grown at its peak.

    What the recipe does not keep is counted for as long as a step to come needs it.
    """
    kept: dict[str, int] = {}
    for number, (planned, room) in enumerate(rooms(plan, store, begin)):
        name = planned.step.name
        yield name, room, sum(kept.values()) + room.kept + room.work
        kept[name] = room.kept
        wanted = needed(plan.steps, begin=number + 1)
        for each, size in [*kept.items()]:
            if size >= upkeep.LARGE and each not in wanted and not plan.recipe.keeps(each):
                del kept[each]


def check(plan: Plan, store: Store, begin: int = 0) -> None:
    """StoreError where a step from number `begin` on cannot have the room it takes."""
    if problems := shortages(plan, store, begin):
        raise StoreError("\n".join(map(str, problems)))


def check_memory(plan: Plan, store: Store) -> None:
    """StepError for the first step that cannot have the memory it takes.

    Asked once, before anything runs: what runs holds memory itself, which would count twice.
    """
    for planned, room in rooms(plan, store):
        claim = room.memory() if room.memory else None
        if claim is None:
            continue
        from runner.memory import preflight

        if found := preflight.shortage(claim):
            error = StepError(*found)
            error.step = planned.step.name
            raise error


def _shortage(step: str, folder: Path, wanted: int) -> list[Problem]:
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    if wanted <= free:
        return []
    fact = f"needs {human_bytes(wanted)} on disk, and {folder} has {human_bytes(free)} free."
    return [Problem(step, fact, command="See what can go: runner store gc")]
