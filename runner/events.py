"""What is said while a plan runs: to the screen, to the run's folder, to whoever listens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.plan import Planned, Verdict
from runner.store import Entry


@dataclass(frozen=True)
class Outcome:
    """What became of one step."""

    planned: Planned
    verdict: Verdict
    reason: str
    seconds: float
    entry: Entry


@dataclass(frozen=True)
class Started:
    """A step begins to run."""

    planned: Planned


@dataclass(frozen=True)
class Progressed:
    """A step has come this far; `figures` are what the moment looks like (loss, rate)."""

    step: str
    done: float
    total: float
    unit: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Noted:
    """A step (or the run, where the name is empty) has something to say."""

    step: str
    text: str


@dataclass(frozen=True)
class Dropped:
    """A step's files were let go, for the recipe does not keep them and nothing needs them."""

    step: str
    size: int


@dataclass(frozen=True)
class Measured:
    """A row of figures over time."""

    step: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A step is done."""

    outcome: Outcome


Event = Started | Progressed | Noted | Measured | Finished | Dropped
Tell = Callable[[Event], None]
