"""What figures must be: `require: {exact_match: ">= 0.8"}` ends a run with exit code 1.

A gate is no part of a key: what was measured stays, and is compared at the end of each run.
"""

import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from runner.errors import Problem, RunnerError, did_you_mean, listing
from runner.options import Fault
from runner.recipe import Step
from runner.scoring.addresses import addresses

OPTION = "require"
"""An option of this name, of any stage, is a gate on what the step's record says."""
CONDITION = re.compile(r"\s*(>=|<=|==|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*", re.I)
COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}


class Unmet(RunnerError):  # noqa: N818  nothing failed: the result is not what was asked for
    """A run was done and kept, and its figures are not what the recipe requires."""

    def __init__(self, problems: Iterable[Problem], outcomes: Iterable[Any] = ()) -> None:
        self.problems, self.outcomes = tuple(problems), list(outcomes)
        super().__init__("\n".join(map(str, self.problems)))


def faults(require: Mapping[str, str], known: Collection[str]) -> Iterator[Fault]:
    """What is wrong with a gate before anything is measured; `known` are the step's figures."""
    for name, condition in require.items():
        where = (OPTION, name)
        if not CONDITION.fullmatch(condition):
            yield Fault(where, f'"{condition}" is no condition.', 'Write ">= 0.8" or "< 12".')
        if name not in known:
            guess = did_you_mean(name, known) or f"There will be: {listing(sorted(known))}."
            fact = f'{OPTION}: nothing here measures "{name}".'
            yield Fault(where, fact, guess)


def unmet(step: Step, facts: Mapping[str, Any]) -> list[Problem]:
    """Each figure of a step that is not what the step's options require; its facts may be old."""
    require: Mapping[str, str] = getattr(step.options, OPTION, None) or {}
    found = addresses(step.name, facts)
    problems = []
    for name, condition in require.items():
        value = found.get(f"{step.name}.{name}")
        if value is None or not holds(value, condition):
            said = "was not measured" if value is None else f"is {value:.4g}"
            fact = f"{name} {said}, and {OPTION} says {condition.strip()}. Everything is kept."
            problems.append(Problem(step.name, fact))
    return problems


def holds(value: float, condition: str) -> bool:
    """Whether a figure is as a condition wants it; what is not a number never is."""
    found = CONDITION.fullmatch(condition)
    if found is None:
        return False
    compare, limit = found.groups()
    return COMPARE[compare](value, float(limit))
