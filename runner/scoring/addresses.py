"""Where a figure is found: `evaluate.exact_match`, of one of several `evaluate.after.exact_match`.

A sweep takes such an address as its objective, and a gate says what the figure there must be.
"""

from collections.abc import Iterator, Mapping
from typing import Any

MAIN = "model"
"""Of a figure measured of several, the one that its short address means: the finished model's."""


def addresses(step: str, facts: Mapping[str, Any]) -> dict[str, float]:
    """Every figure of a step's record by its address.

    A figure of the whole step is at `step.figure`; one measured of several (texts, models, data
    sets) is at `step.of.figure` for each, and also at `step.figure` where there is only one or
    where one of them is the model.
    """
    found: dict[str, float] = {}
    for name, value in facts.items():
        if _is_number(value):
            found[f"{step}.{name}"] = value
        elif isinstance(value, Mapping):
            figures = dict(_numbers(value))
            found |= {f"{step}.{of}.{name}": each for of, each in figures.items()}
            if (main := main_of(figures)) is not None:
                found[f"{step}.{name}"] = figures[main]
    return found


def main_of(names: Mapping[str, Any]) -> str | None:
    """Which of those that were measured the short address means; None where none stands out."""
    return MAIN if MAIN in names else next(iter(names)) if len(names) == 1 else None


def _numbers(figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in figures.items() if _is_number(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
