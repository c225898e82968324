"""Where the jobs of a sweep run. A launcher is a module with the one function of `Launcher`.

It makes every distinct step of the graph that is not done yet, in an order that the graph allows,
each by `runner.execute.execute_last` on the first job that has it. The store alone says what is
done: a launcher may die at any moment, and is started again with the graph of what is left.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runner.stage import Stage
from runner.store import Store
from runner.sweep.graph import Graph
from runner.sweep.manifest import Manifest, Row


@dataclass(frozen=True)
class Failure:
    """Why a step was not made: in a word, in a sentence, and by the last lines of its log."""

    key: str
    step: str
    cause: str
    fact: str
    lines: tuple[str, ...] = ()
    attempts: int = 1


@dataclass(frozen=True)
class Begun:
    """A worker has begun to make a step."""

    worker: int
    row: Row


@dataclass(frozen=True)
class Came:
    """A worker's step has come this far."""

    worker: int
    done: float
    total: float
    unit: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A worker (or the launcher, where it is 0) has something to say."""

    worker: int
    text: str


@dataclass(frozen=True)
class Made:
    """A step is done, by this worker or by somebody else meanwhile."""

    worker: int
    row: Row
    seconds: float
    by_others: bool = False


@dataclass(frozen=True)
class Broke:
    """A step has failed; `again` where it is tried once more."""

    worker: int
    failure: Failure
    again: bool


@dataclass(frozen=True)
class GivenUp:
    """A step is not made to its end: its job is worse than others by then."""

    worker: int
    row: Row


@dataclass(frozen=True)
class Added:
    """A search has added a job; `done` counts by name which steps of all need not be made."""

    manifest: Manifest
    done: Mapping[str, int]


Event = Begun | Came | Said | Made | Broke | GivenUp | Added
Tell = Callable[[Event], None]


class Search(Protocol):
    """What decides on further jobs while others run."""

    def go_on(self) -> None:
        """Take in what is done, and add jobs to the graph as long as there is place for some."""

    def watched(self, key: str) -> str | None:
        """The figure that is to be told as this step measures it; None where nobody asks."""

    def measured(self, key: str, step: int, value: float) -> bool:
        """Take a figure of a step in, and say whether to give the step up."""


@dataclass(frozen=True)
class Order:
    """What a launcher is given. With a `search`, the graph grows while it is worked on."""

    manifest: Manifest
    folder: Path
    graph: Graph
    store: Store
    stages: Mapping[str, Stage]
    tell: Tell
    stop_signal: Callable[[], str | None]
    workers: int
    search: Search | None = None
    follow: bool = True
    failures: list[Failure] = field(default_factory=list)


class Launcher(Protocol):
    """A kind of place for jobs."""

    KEEPS: bool
    """Whether jobs that were given out go on when the program ends."""

    def check(self) -> None:
        """RunnerError where it lacks something."""

    def launch(self, order: Order) -> None:
        """Make what is not done; `order.failures` names what could not be made.

        Stopped where a signal asked for the end, with the checkpoints of all that ran kept.
        """
