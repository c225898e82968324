"""The user's own functions that score what a model writes, and what they may answer."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from runner import functions
from runner.errors import StepError
from runner.training.settings import Reward


def source(path: str) -> str:
    """What a key says of a function: its name, and the digest of its file."""
    return f"{functions.parted(path)[1]} {functions.source_digest(path)}"


def scored(reward: Reward) -> Callable[..., list[float]]:
    """A user's function as trl calls it; StepError where it answers anything but numbers."""
    if (
        reward.source
        != f"{functions.parted(reward.path)[1]} {functions.source_digest(reward.path)}"
    ):
        raise StepError(f"{reward.path} changed while it was read; run again.")
    file, name = functions.parted(reward.path)
    function = functions.load(reward.path)

    def score(
        prompts: list[str], completions: list[str], expected: list[str], **about: Any
    ) -> list[float]:
        place = f"step {about['trainer_state'].global_step + 1}"
        given = (list(prompts), list(completions), list(expected))
        return _numbers(
            function(*given, place=place), len(completions), f"{place}: {file.name}:{name}"
        )

    score.__name__ = name
    return score


def _numbers(found: Any, count: int, where: str) -> list[float]:
    """One finite number for each answer."""
    try:
        rewards = list(found)
    except TypeError:
        raise StepError(
            f"{where}: gave {type(found).__name__}; it must give a list of numbers."
        ) from None
    if len(rewards) != count:
        raise StepError(f"{where}: gave {len(rewards)} numbers for {count} answers.")
    for each in rewards:
        if not isinstance(each, Real) or not math.isfinite(each):
            raise StepError(f"{where}: gave {each!r} for an answer; it must give a number.")
    return [float(each) for each in rewards]
