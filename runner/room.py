"""Whether there is room on disk for what a plan will write, asked before it writes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from runner import upkeep
from runner.errors import Problem, StepError, StoreError, failing_as
from runner.files import shortage
from runner.plan import Plan, Planned, Verdict, needed
from runner.stage import Facts, Room
from runner.store import Store

if TYPE_CHECKING:
    from runner.memory.preflight import Claim


Refused = Callable[[StepError], None]
"""What is done with the reason for which a step cannot be."""


def at_once(error: StepError) -> None:
    """End at the first such reason."""
    raise error


def rooms(
    plan: Plan,
    store: Store,
    begin: int = 0,
    refused: Refused = at_once,
    seen: Mapping[str, Facts] = MappingProxyType({}),
) -> Iterator[tuple[Planned, Room]]:
    """The room that each step takes; one that is done takes none.

    Those before number `begin` are done. `seen` is what else is known of the results of steps.
    """
    known: dict[str, Facts] = {}
    for number, planned in enumerate(plan.steps):
        step = planned.step
        inputs = {
            role: _together([known[giver] for giver in names])
            for role, names in step.inputs.items()
        }
        room = Room()
        with told(step.name, refused):
            room = step.stage.room(step.options, inputs)
        done = store.entry(planned.key) or store.remains(planned.key)
        found = done.record["facts"] if done else seen.get(step.name, {})
        known[step.name] = {**room.gives, **found}
        if number < begin or planned.verdict is Verdict.REUSE:
            room = Room()
        elif there := store.draft_size(planned.key):
            room = replace(room, work=max(0, room.work - there))
        yield planned, room


@contextmanager
def told(step: str, refused: Refused) -> Iterator[None]:
    """Pass the reason for which a step cannot be on, with the step's name."""
    try:
        with failing_as(step):
            yield
    except StepError as error:
        refused(error)


@dataclass(frozen=True)
class Outlook:
    """The most bytes that the store will grow by, as far as is known, and who lacks the room."""

    peak: int
    shortages: tuple[Problem, ...]
    steps: Mapping[str, int] = field(default_factory=dict)
    """What each step takes beside what is there: its result, and its draft while it works."""

    def insist(self) -> None:
        """StoreError where a step cannot have the room it takes, with the figures of all these."""
        if self.shortages:
            raise StoreError("\n".join(map(str, self.shortages)))


def _together(givers: Sequence[Facts]) -> Facts:
    """What is known of all steps in one role; their bytes add up."""
    found = {name: fact for giver in givers for name, fact in giver.items()}
    sizes = [giver["bytes"] for giver in givers if "bytes" in giver]
    return {**found, "bytes": sum(sizes)} if sizes else found


def outlook(
    plan: Plan,
    store: Store,
    begin: int = 0,
    refused: Refused = at_once,
    seen: Mapping[str, Facts] = MappingProxyType({}),
) -> Outlook:
    """What the steps from number `begin` on take; nothing is looked at where nothing is to run."""
    found = rooms(plan, store, begin, refused, seen) if plan.work else iter(())
    growth = [*_growth(plan, found)]
    shortages = []
    for name, room, size in growth:
        if room.kept or room.work:
            shortages += _shortage(name, store.root, size)
        if room.outside:
            shortages += _shortage(name, *room.outside)
    taken = {name: room.kept + room.work for name, room, _ in growth if room.kept or room.work}
    return Outlook(max((size for _, _, size in growth), default=0), tuple(shortages), taken)


def _growth(plan: Plan, found: Iterator[tuple[Planned, Room]]) -> Iterator[tuple[str, Room, int]]:
    """Each step, the room it takes, and by how much the store has grown at its peak.

    What the recipe does not keep is counted for as long as a step to come needs it.
    """
    kept: dict[str, int] = {}
    for number, (planned, room) in enumerate(found):
        name = planned.step.name
        yield name, room, sum(kept.values()) + room.kept + room.work
        kept[name] = room.kept
        wanted = needed(plan.steps, begin=number + 1)
        for each, size in [*kept.items()]:
            if size >= upkeep.LARGE and each not in wanted and not plan.recipe.keeps(each):
                del kept[each]


def check_leave(plan: Plan, store: Store) -> None:
    """StepError for the first step to run that others would not let do its work."""
    for planned, room in rooms(plan, store):
        if room.leave:
            with failing_as(planned.step.name):
                room.leave()


def check_memory(plan: Plan, store: Store) -> None:
    """StepError for the first step that cannot have the memory it takes.

    Asked once, before anything runs: what runs holds memory itself, which would count twice.
    """
    for planned, room in rooms(plan, store):
        with failing_as(planned.step.name):
            check_claim(room)


def check_claim(room: Room) -> "Claim | None":
    """What a step takes of memory, where that can be told; StepError where it cannot have it."""
    claim = room.memory() if room.memory else None
    if claim is not None:
        from runner.memory import preflight

        preflight.refuse(claim)
    return claim


def _shortage(step: str, folder: Path, wanted: int) -> list[Problem]:
    fact = shortage(folder, wanted)
    return [Problem(step, fact, command="See what can go: runner store gc")] if fact else []
