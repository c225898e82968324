"""What a result came from: the records of every step that it builds on, in short."""

from collections.abc import Iterable, Mapping
from typing import Any

from runner.errors import Problem
from runner.events import Outcome
from runner.plan import Plan, Planned
from runner.scoring import gates

RECORDED = ("digest", "made", "seconds", "facts", "versions")


def of_step(plan: Plan, outcomes: Mapping[str, Outcome], name: str) -> list[dict[str, Any]]:
    """Each step that this one builds on, in the recipe's order, with what its record says."""
    wanted = _before(plan, name)
    return [
        _row(planned, outcomes[planned.step.name])
        for planned in plan.steps
        if planned.step.name in wanted and planned.step.name in outcomes
    ]


def sources(plan: Plan) -> dict[str, dict[str, Any]]:
    """What each step that brings something from outside was pinned to; paths are whole."""
    found = {p.step.name: dict(p.step.stage.pins(p.step.options, find=False)) for p in plan.steps}
    return {name: row for name, row in found.items() if row}


def unmet(outcomes: Iterable[Outcome]) -> list[Problem]:
    """Each figure that is not what its step requires by now, whenever it was measured."""
    return [
        problem
        for outcome in outcomes
        for problem in gates.unmet(outcome.planned.step, outcome.entry.record["facts"])
    ]


def _before(plan: Plan, name: str) -> set[str]:
    """The names of all steps that a step builds on, directly or not."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        for names in plan.step(ahead.pop()).step.inputs.values():
            ahead += [each for each in names if each not in found]
            found.update(names)
    return found


def _row(planned: Planned, outcome: Outcome) -> dict[str, Any]:
    step, record = planned.step, outcome.entry.record
    return {
        "step": step.name,
        "stage": step.stage_name,
        "key": planned.key,
        "inputs": {role: list(names) for role, names in step.inputs.items()},
        **{name: record[name] for name in RECORDED if name in record},
    }
