"""What `store.keep` lets go while a plan runs: large results, and the parts of their making."""

from collections.abc import Iterator, Mapping

from runner import upkeep
from runner.events import Outcome
from runner.plan import Plan, Planned, Verdict, needed
from runner.store import Entry, Store


def spare(
    plan: Plan, store: Store, outcomes: Mapping[str, Outcome], after: Planned
) -> Iterator[tuple[str, list[Entry]]]:
    """Each step up to `after` with what of it may go: first its parts, last its own files.

    A step is not looked at before those of the step before it are gone.
    """
    begin = plan.steps.index(after) + 1
    wanted = needed(plan.steps, begin)
    to_come = {p.step.stage_name for p in plan.steps[begin:] if p.verdict is not Verdict.REUSE}
    for planned in plan.steps[:begin]:
        name, recipe = planned.step.name, plan.recipe
        if recipe.keeps(name) or name in wanted:
            continue
        entry = upkeep.spare(store, recipe.name, planned.key)
        if entry is None and store.entry(planned.key):
            continue  # its files stay, so its parts do
        keys = set() if planned.step.stage_name in to_come else _parts(name, store, outcomes)
        found = [upkeep.spare(store, recipe.name, key) for key in sorted(keys)]
        if gone := [each for each in (*found, entry) if each]:
            yield name, gone


def _parts(name: str, store: Store, outcomes: Mapping[str, Outcome]) -> set[str]:
    """The parts that only this step has used, of the steps whose files are there."""
    own = set(outcomes[name].entry.record.get("part_keys", ()))
    for other, outcome in outcomes.items():
        if other != name and store.entry(outcome.planned.key):
            own -= set(outcome.entry.record.get("part_keys", ()))
    return own
