"""The distinct steps of all jobs as one graph: which may be made now, and which one next."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heappop, heappush

from runner.stage import Stage
from runner.sweep.manifest import Job, Manifest, Row


class Graph:
    """Steps by key. One is ready when all that it builds on is done, and nobody is at it.

    The next one is one that uses what the worker holds in memory: first those that borrow it, then
    the one that changes it. Else it is the first in the order of the jobs that uses nothing
    another worker holds, so that each goes on with what it has.
    """

    def __init__(
        self, manifest: Manifest, stages: Mapping[str, Stage], done: Collection[str]
    ) -> None:
        self.stages = stages
        self.jobs: dict[str, Job] = {}
        self.rows: dict[str, Row] = {}
        self.inputs: dict[str, dict[str, bool]] = {}
        self.users: dict[str, list[str]] = {}
        self.place: dict[str, int] = {}
        self.open: set[str] = set()
        self.taken: set[str] = set()
        self.lost: set[str] = set()
        self.given_up: set[str] = set()
        self.ready: set[str] = set()
        self.line: list[tuple[int, str]] = []
        self.add(manifest, manifest.jobs, done)

    def add(self, manifest: Manifest, jobs: Iterable[Job], done: Collection[str]) -> None:
        """Take jobs in; `manifest` has all jobs, those of before as they were."""
        self.manifest = manifest
        wanted: dict[str, None] = {}
        for job in jobs:
            steps = manifest.steps(job)
            keys = {row.name: row.key for row in steps}
            wanted |= dict.fromkeys(keys.values())
            for row in steps:
                if row.key not in self.rows:
                    self._place(row, job, _inputs(row, keys, self.stages))
        self.open |= {key for key in wanted if key not in done and key not in self.lost}
        self.given_up -= {*wanted}
        self.lacking = self._lacking()
        for key in self.open - self.ready - self.taken:
            if not self.lacking[key]:
                self._add(key)
        for key in [key for key in wanted if key in self.lost]:
            self.fail(key)

    def _place(self, row: Row, job: Job, inputs: dict[str, bool]) -> None:
        """Take a step in that is not known yet; those that it builds on are."""
        self.place[row.key] = len(self.rows)
        self.rows[row.key], self.jobs[row.key], self.inputs[row.key] = row, job, inputs
        for giver in inputs:
            self.users.setdefault(giver, []).append(row.key)

    def _lacking(self) -> dict[str, int]:
        """How many of the inputs of each open step cannot be used yet: open, or built on such."""
        self.usable: set[str] = set()
        found = {}
        for key, inputs in self.inputs.items():
            found[key] = sum(giver not in self.usable for giver in inputs)
            if self.is_done(key) and not found[key]:
                self.usable.add(key)
        return found

    def is_done(self, key: str) -> bool:
        """Whether it need not be made, and is not missing either."""
        return not (key in self.open or key in self.lost or key in self.given_up)

    def _add(self, key: str) -> None:
        self.ready.add(key)
        heappush(self.line, (self.place[key], key))

    def choose(self, held: Collection[str], elsewhere: Collection[str] = ()) -> str | None:
        """The step to make next for a worker that holds these products; None where none is ready.

        It is taken with that; `elsewhere` are products that other workers hold.
        """
        key = self._of_held(held) or self._in_line(elsewhere)
        if key is not None:
            self.ready.discard(key)
            self.taken.add(key)
        return key

    def _of_held(self, held: Collection[str]) -> str | None:
        fitting = {key for giver in held for key in self.users.get(giver, ()) if key in self.ready}

        def order(key: str) -> tuple[bool, int, int]:
            mine = [consumes for giver, consumes in self.inputs[key].items() if giver in held]
            return any(mine), -len(mine), self.place[key]

        return min(fitting, key=order, default=None)

    def _in_line(self, elsewhere: Collection[str]) -> str | None:
        """The first ready step that needs nothing others hold; the first of all, if none does."""
        passed: list[tuple[int, str]] = []
        found = None
        while self.line and found is None:
            place, key = heappop(self.line)
            if key not in self.ready:
                continue
            passed.append((place, key))
            if not any(giver in elsewhere for giver in self.inputs[key]):
                found = key
        for each in passed:
            heappush(self.line, each)
        return found or (passed[0][1] if passed else None)

    def give_back(self, key: str) -> None:
        """It was taken and is not done: it may be taken again, if it is still wanted."""
        self.taken.discard(key)
        if key in self.open:
            self._add(key)

    def finish(self, key: str) -> None:
        """It is done; what waited for it alone is ready now."""
        self.taken.discard(key)
        self.ready.discard(key)
        self.open.discard(key)
        self.given_up.discard(key)
        self._usable(key)

    def _usable(self, key: str) -> None:
        self.usable.add(key)
        for user in self.users.get(key, ()):
            self.lacking[user] -= 1
            if self.lacking[user]:
                continue
            if user in self.open:
                self._add(user)
            elif self.is_done(user):
                self._usable(user)

    def fail(self, key: str) -> None:
        """It cannot be made; neither can what builds on it."""
        self.taken.discard(key)
        for each in (key, *self._built_on(key)):
            self.open.discard(each)
            self.lost.add(each)

    def give_up(self, keys: Iterable[str]) -> None:
        """These are not wanted any more, as far as they are not done; they may be added again."""
        for key in [key for key in keys if key in self.open]:
            self.open.discard(key)
            self.ready.discard(key)
            self.given_up.add(key)

    def _built_on(self, key: str) -> Iterator[str]:
        seen, left = {key}, [key]
        while left:
            for user in self.users.get(left.pop(), ()):
                if user not in seen:
                    seen.add(user)
                    left.append(user)
                    yield user

    def wanted(self, key: str) -> set[str]:
        """The products that this step, and those after it in its job, take in and that are done.

        What one job alone would hold in memory, and no more.
        """
        steps = [row.key for row in self.manifest.steps(self.jobs[key])]
        later = [each for each in steps[steps.index(key) :] if each in self.open]
        return {giver for each in (key, *later) for giver in self.inputs[each]}


def _inputs(row: Row, keys: Mapping[str, str], stages: Mapping[str, Stage]) -> dict[str, bool]:
    """The keys of what a step takes in, and whether it changes it in place."""
    found: dict[str, bool] = {}
    for role, names in row.inputs.items():
        consumes = stages[row.stage].NEEDS[role].consumes
        for name in names:
            found[keys[name]] = consumes or found.get(keys[name], False)
    return found
