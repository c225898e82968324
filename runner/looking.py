"""A look at what a plan would bring and at the first rows of what is here, before any work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner import room as rooms
from runner.errors import Finding, Problem, RunnerError, Severity, StepError, failing_as
from runner.plan import Plan, Planned, Verdict
from runner.stage import Facts, Looked, Products, Room
from runner.store import Store


class Refusals:
    """The reasons for which steps cannot be, gathered."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.names: set[str] = set()

    def __call__(self, error: StepError) -> None:
        """One more."""
        self.names.add(error.step)
        self.problems.append(problem(error))

    def findings(self) -> Iterator[Finding]:
        """Each of them as an error."""
        yield from errors(self.problems)


@dataclass(frozen=True)
class Looking:
    """Asks for sources, and looks at rows of those that are here; `seen` gathers what they tell."""

    planned: Plan
    store: Store
    scratch: Path
    seen: dict[str, Facts] = field(default_factory=dict)

    def sources(self) -> Iterator[Finding]:
        """What is wrong with what would be brought: it is not there, or not for this user."""
        for name, room in self._rooms():
            refused = Refusals()
            if room.reach:
                with rooms.told(name, refused):
                    self.seen[name] = room.reach()
            yield from refused.findings()

    def rows(self) -> Iterator[Finding]:
        """What is wrong with the first rows, as far as their files are on this machine."""
        found = dict(self._rooms())
        for planned in self.planned.work:
            if found[planned.step.name].look and planned.verdict is Verdict.RUN:
                yield from self._look(planned, found)

    def _rooms(self) -> Iterator[tuple[str, Room]]:
        for planned, room in rooms.rooms(self.planned, self.store, refused=lambda _: None):
            yield planned.step.name, room

    def _look(self, planned: Planned, found: Mapping[str, Room]) -> Iterator[Finding]:
        refused, looked, name = Refusals(), Looked(), planned.step.name
        look = found[name].look
        assert look
        with rooms.told(name, refused):
            looked = look(self._products(planned, found), self.scratch / name)
        self.seen[name] = looked.facts
        yield from refused.findings()
        yield from (of_step(name, each) for each in looked.findings)

    def _products(self, planned: Planned, found: Mapping[str, Room]) -> Products:
        """The products in each role that are all on this machine."""
        roles = {
            role: {giver: self._product(giver, found[giver]) for giver in names}
            for role, names in planned.step.inputs.items()
        }
        return {role: of for role, of in roles.items() if None not in of.values()}

    def _product(self, name: str, room: Room) -> Any:
        """A product as it lies in the store, else where its files are already; None if nowhere."""
        planned = self.planned.step(name)
        with failing_as(name):
            if planned.verdict is Verdict.REUSE and (entry := self.store.entry(planned.key)):
                return planned.step.stage.restore(entry.product, {})
            return room.there(self.scratch / name) if room.there else None


def insist(planned: Plan, store: Store) -> None:
    """StepError for what is wrong with sources and the first rows, before anything is brought."""
    if not planned.work:
        return
    with TemporaryDirectory(prefix="runner-rows-") as scratch:
        looking = Looking(planned, store, Path(scratch))
        for finding in chain(looking.sources(), looking.rows()):
            if finding.severity is Severity.ERROR:
                error = StepError(finding.problem.fact, finding.problem.command)
                error.step = finding.problem.where
                raise error
    for _ in rooms.rooms(planned, store, seen=looking.seen):
        continue  # what the rows are may show that a later step cannot be


def of_step(step: str, finding: Finding) -> Finding:
    """A finding that says whose it is."""
    return replace(finding, problem=replace(finding.problem, where=step))


def problem(error: RunnerError) -> Problem:
    """What an error says."""
    if isinstance(error, StepError):
        return Problem(error.step, error.fact, command=error.command)
    return Problem("", str(error))


def errors(problems: list[Problem] | tuple[Problem, ...]) -> Iterator[Finding]:
    """Each problem as an error."""
    yield from (Finding(Severity.ERROR, each) for each in problems)
