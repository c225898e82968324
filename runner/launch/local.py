"""Jobs on this machine: warm worker processes, one for each GPU or as many as are asked for."""

import selectors
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import RunnerError, Stopped
from runner.launch import Begun, Broke, Came, Failure, GivenUp, Made, Order, Said
from runner.launch.seat import Seat, ended, environments
from runner.lease import Watch
from runner.running import TRACKERS
from runner.sweep.manifest import Row

POLL = 0.2
"""Seconds between two looks at signals, time limits and what others are at."""
GRACE = 10.0
"""Seconds that idle workers have to end."""
FAILURES = "failures"
KEEPS = False


def check() -> None:
    """Nothing is lacking on one's own machine."""


def launch(order: Order) -> None:
    """Make what is not done; `order.failures` names what could not be made."""
    _Dispatch(order).run()


class _Dispatch:
    """Gives work to workers until none is left that can be done."""

    def __init__(self, order: Order) -> None:
        self.order, self.graph, self.settings = order, order.graph, order.manifest.settings
        shared = environments(order.workers, self.settings.gpus, order.folder)
        self.seats = [
            Seat(number + 1, order.folder, shared[number]) for number in range(order.workers)
        ]
        self.attempts: dict[str, int] = {}
        self.elsewhere: dict[str, Watch] = {}
        self.take_over: set[str] = set()
        self.looked = 0.0
        self.stopping: str | None = None

    def run(self) -> None:
        """Until every step is done or lost; Stopped where a signal asked for the end."""
        try:
            with selectors.DefaultSelector() as selector:
                while True:
                    self._look_around()
                    if self.order.search and not self.stopping:
                        self.order.search.go_on()
                    self._give_work(selector)
                    if not any(seat.row for seat in self.seats) and self._is_over():
                        break
                    self._hear(selector)
                self._dismiss(selector)
        finally:
            self._kill_all()
        if signal_name := self.order.stop_signal():
            raise Stopped(signal_name)

    def _is_over(self) -> bool:
        nothing_left = not self.graph.ready and not self.elsewhere
        return self.stopping is not None or nothing_left

    # What is going on

    def _look_around(self) -> None:
        """Signals, steps over their time, and what other processes were making."""
        if time.monotonic() - self.looked < POLL:
            return
        self.looked = time.monotonic()
        if (signal_name := self.order.stop_signal()) and not self.stopping:
            self._stop(signal_name)
        for seat in self.seats:
            self._check_time(seat)
        for key, watch in [*self.elsewhere.items()]:
            if (is_dead := watch.look()) is not None:
                del self.elsewhere[key]
                self.take_over |= {key} if is_dead else set()
                self._made_elsewhere(key)

    def _made_elsewhere(self, key: str) -> None:
        """Somebody else has ended: with the result, or without it, and then it is our turn."""
        if self.order.store.entry(key):
            self._finished(0, self.graph.rows[key], 0.0, by_others=True)
        else:
            self.graph.give_back(key)

    def _stop(self, signal_name: str) -> None:
        """Give out nothing more, and ask every worker for a checkpoint."""
        self.stopping = signal_name
        for seat in self.seats:
            if seat.process is not None:
                seat.stop(signal_name)

    def _check_time(self, seat: Seat) -> None:
        """A step over its time is asked for a checkpoint, and soon after that killed."""
        if seat.row is None or seat.begun is None:
            return
        limit = self._limit(seat.row)
        if limit is not None and not seat.late and time.monotonic() - seat.begun > limit:
            seat.late = True
            seat.stop("SIGTERM")
        if seat.late and time.monotonic() - seat.asked_to_end > self.settings.grace:
            seat.kill()

    def _limit(self, row: Row) -> float | None:
        limit = self.settings.timeout
        return limit.get(row.name) if isinstance(limit, dict) else limit

    # Giving work

    def _give_work(self, selector: selectors.BaseSelector) -> None:
        for seat in self.seats:
            if self.stopping or not seat.is_free:
                continue
            held = {key for other in self.seats if other is not seat for key in other.holds}
            if key := self.graph.choose(seat.holds, held):
                self._give(seat, key, selector)

    def _give(self, seat: Seat, key: str, selector: selectors.BaseSelector) -> None:
        manifest, job = self.graph.manifest, self.graph.jobs[key]
        search = self.order.search
        steps = manifest.steps(job)
        upto = next(number for number, row in enumerate(steps) if row.key == key)
        is_new = seat.process is None
        order = {
            "recipe": manifest.recipe,
            "path": str(manifest.path),
            "versions": manifest.versions,
            "store": str(self.order.store.root),
            "beside": str(self.order.folder / TRACKERS),
            "rows": [vars(row) for row in steps[: upto + 1]],
            "wanted": sorted(self.graph.wanted(key)),
            "watched": search.watched(key) if search else None,
        }
        seat.make(steps[upto], order, waits=key in self.take_over)
        if is_new:
            selector.register(seat.channel, selectors.EVENT_READ, seat)
        self.order.tell(Begun(seat.number, steps[upto]))

    # Hearing of it

    def _hear(self, selector: selectors.BaseSelector) -> None:
        for found, _ in selector.select(POLL):
            seat: Seat = found.data
            for answer in seat.answers():
                if answer["kind"] == "gone":
                    selector.unregister(found.fileobj)
                    self._gone(seat, seat.end())
                else:
                    self._answered(seat, answer)

    def _answered(self, seat: Seat, answer: Mapping[str, Any]) -> None:
        match answer["kind"]:
            case "ready":
                seat.is_ready = True
            case "begun":
                seat.begun = time.monotonic()
            case "made":
                row, seat.row, seat.holds = seat.row, None, {*answer["holds"]}
                assert row is not None
                by_others = bool(answer["by_others"])
                self._finished(seat.number, row, answer["seconds"], by_others=by_others)
            case "busy":
                row, seat.row = seat.row, None
                assert row is not None
                self.elsewhere[row.key] = self.order.store.watch(row.key)
            case "failed":
                seat.asked_to_end = time.monotonic() if answer["ends"] else seat.asked_to_end
                self._failed(seat, answer["cause"], answer["fact"], again=answer["again"])
            case "stopped":
                self._stopped(seat)
            case "measured":
                self._measured(seat, answer["step"], answer["value"])
            case "given up":
                self._given_up(seat)
            case "progress":
                far = answer["done"], answer["total"], answer["unit"], answer["figures"]
                self.order.tell(Came(seat.number, *far))
            case "note":
                self.order.tell(Said(seat.number, answer["text"]))

    def _measured(self, seat: Seat, step: int, value: float) -> None:
        """The worker waits to hear whether to go on."""
        assert seat.row is not None
        assert self.order.search is not None
        ends = not self.stopping and self.order.search.measured(seat.row.key, step, value)
        seat.send({"kind": "verdict", "ends": ends})

    def _given_up(self, seat: Seat) -> None:
        """A search does not want the step any more, so that it is nobody's failure."""
        row, seat.row, seat.holds = seat.row, None, set()
        assert row is not None
        self.graph.give_back(row.key)
        self.order.tell(GivenUp(seat.number, row))

    def _finished(self, worker: int, row: Row, seconds: float, *, by_others: bool) -> None:
        self.graph.finish(row.key)
        with suppress(FileNotFoundError):
            (self.order.folder / FAILURES / f"{row.key}.json").unlink()
        self.order.tell(Made(worker, row, seconds, by_others))

    def _stopped(self, seat: Seat) -> None:
        """It has kept a checkpoint and ends: for a signal, or for its time."""
        seat.asked_to_end = time.monotonic()
        if seat.late and not self.stopping:
            self._out_of_time(seat)
        elif seat.row is not None:
            self.graph.give_back(seat.row.key)
            seat.row = None

    def _out_of_time(self, seat: Seat) -> None:
        assert seat.row is not None
        fact = f"it took longer than {self._limit(seat.row):g} s (sweep.timeout); its work is kept."
        self._failed(seat, "timeout", fact, again=False)

    def _gone(self, seat: Seat, code: int) -> None:
        """A worker's process has ended, maybe with a step in its hands."""
        if code > 0 and not seat.is_ready:
            lines = "\n  ".join(seat.last_lines())
            raise RunnerError(f"a worker's process cannot start: exit code {code}.\n  {lines}")
        if seat.row is not None:
            if self.stopping and code == 0:
                self._stopped(seat)
            elif seat.late:
                self._out_of_time(seat)
            else:
                cause, fact, again = seat.death(code)
                self._failed(seat, cause, fact, again=again)
        seat.holds = set()

    def _failed(self, seat: Seat, cause: str, fact: str, *, again: bool) -> None:
        if seat.row is not None and seat.row.key in self.graph.given_up:
            self._given_up(seat)
            return
        row, seat.row, seat.holds = seat.row, None, set()
        assert row is not None
        attempts = self.attempts[row.key] = self.attempts.get(row.key, 0) + 1
        failure = Failure(row.key, row.name, cause, fact, seat.last_lines(), attempts)
        again = again and attempts <= self.settings.retries
        self.order.tell(Broke(seat.number, failure, again))
        if again:
            self.graph.give_back(row.key)
            return
        self.graph.fail(row.key)
        self.order.failures.append(failure)
        write_failure(self.order.folder, failure)
        if not self.stopping and self.settings.is_enough(len(self.order.failures)):
            self.order.tell(Said(0, "stopping: sweep.on_failure says so; what runs is kept"))
            self._stop("SIGTERM")

    # The end

    def _dismiss(self, selector: selectors.BaseSelector) -> None:
        """Let idle workers end."""
        for seat in self.seats:
            if seat.process is not None:
                seat.stop("SIGTERM")
        until = time.monotonic() + GRACE
        while not ended(self.seats) and time.monotonic() < until:
            self._hear(selector)

    def _kill_all(self) -> None:
        for seat in self.seats:
            if seat.process is not None:
                seat.kill()
                seat.end()


def write_failure(folder: Path, failure: Failure) -> None:
    """Keep why a step failed, for `runner status` and for the report."""
    files.make_folder(folder / FAILURES)
    files.write_json(folder / FAILURES / f"{failure.key}.json", vars(failure))


def failures(folder: Path) -> Iterator[Failure]:
    """What has failed and is not done yet."""
    for path in sorted((folder / FAILURES).glob("*.json")):
        value = files.read_json(path)
        if isinstance(value, dict):
            yield Failure(**value | {"lines": tuple(value["lines"])})
