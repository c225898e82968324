"""Answers judged by the user's own function, whose source is part of the key."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from runner import functions
from runner.errors import StepError
from runner.options import option


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A function of yours that scores answers."""

    path: str = option(
        help="File and function, `judge.py:polite`; it takes lists of prompts, answers and expected"
        " answers (None where there is none), and gives a number for each",
        keyed=False,
    )
    source: str | None = option(None, "The function and blake3 of its file, found where left out")

    @property
    def name(self) -> str:
        """What its score is called: the function's name."""
        return functions.parted(self.path)[1]


def source(judge: Judge) -> str:
    """What a key says of a judge: the function's name and the digest of its file."""
    return f"{judge.name} {functions.source_digest(judge.path)}"


def judged(judge: Judge, of: str, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The number that a judge gives each row; StepError where it gives anything else."""
    if judge.source != source(judge):
        raise StepError(f"{judge.path} changed while it was read; run again.")
    place = f"{functions.parted(judge.path)[0].name}:{judge.name}"
    given = [[row.get(name) for row in rows] for name in ("prompt", "answer", "expected")]
    found = functions.load(judge.path)(*given, place=of)
    try:
        numbers = list(found)
    except TypeError:
        raise StepError(f"{place} gave {type(found).__name__}, not a list of numbers.") from None
    if len(numbers) != len(rows):
        raise StepError(f"{place} gave {len(numbers)} numbers for {len(rows)} answers of {of}.")
    for each in numbers:
        if not isinstance(each, Real) or not math.isfinite(each):
            raise StepError(f"{place} gave {each!r} for an answer of {of}, which is no number.")
    return [float(each) for each in numbers]
