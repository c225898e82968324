"""Remote functions of Ray: every distinct step is one call, with resources of its own.

Any cluster will do that runs this version of runner and sees the store and the sweep's folder.
Ray tries a call again whose machine has died (`sweep.retries`); the step goes on from its
checkpoint. The calls end with the program: `ray job submit -- runner sweep ...` keeps it.
"""

import signal
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from runner import extras
from runner.errors import RunnerError, Stopped
from runner.launch import Failure, Order, Said, single
from runner.launch.following import Following
from runner.launch.single import Single
from runner.resources import Resources
from runner.surroundings import SIGNALS

KEEPS = False
POLL = 0.2
"""Seconds between two looks at the store and at Ray."""
SETTLE = 10.0
"""Seconds after a call's end in which what it has left must be seen."""
KNOCK = 10.0
"""Seconds in which a cluster must answer."""
GIB = 1 << 30


def check() -> None:
    """Ray is there."""
    if lacking := extras.missing("ray"):
        raise RunnerError(f"launch=ray: {lacking}")


def launch(order: Order) -> None:
    """Make what is not done; `order.failures` names what could not be made."""
    with _connected(order.manifest.launch.address):
        _Ray(order).run()


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    import ray

    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        fact = f"launch=ray: cannot reach {address or 'a cluster'}: {str(error).splitlines()[0]}"
        raise RunnerError(f"{fact}\n  See: ray status --address={address}") from error
    for number, handler in handlers.items():  # Ray has put its own in their place
        signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """OSError where nobody answers at HOST:PORT; Ray itself would ask for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK).close()


def make(what: Single, stop: Path) -> None:
    """Make a step in a worker of Ray; the file `stop` asks for a checkpoint and the end."""
    with suppress(Stopped):
        what.make(lambda: "SIGTERM" if stop.exists() else None)


class _Ray:
    """The calls of one sweep."""

    def __init__(self, order: Order) -> None:
        import ray

        self.order, self.graph, self.ray = order, order.graph, ray
        self.settings = order.manifest.settings
        self.following = Following(order)
        self.stop = order.folder.resolve() / f"stop-{uuid4().hex[:8]}"
        self.calls: dict[Any, str] = {}
        self.warned: set[str] = set()

    def run(self) -> None:
        """Until every step is done or lost; Stopped where a signal asked for the end."""
        self.following.forget_failures(self.graph.open)
        try:
            while self.graph.open and not self.order.stop_signal():
                self._call()
                self._hear()
                if self.order.failures and self.following.is_enough():
                    break
        finally:
            self._end()
        if self.graph.open and (signal_name := self.order.stop_signal()):
            raise Stopped(signal_name)

    def _call(self) -> None:
        """Call every step that may be made now; Ray waits for the machines."""
        at_most = self.settings.workers if isinstance(self.settings.workers, int) else None
        while (at_most is None or len(self.calls) < at_most) and (key := self.graph.choose(())):
            row = self.graph.rows[key]
            asked = single.asked(self.order, row)
            self._warn(row.name, asked)
            function = self.ray.remote(make).options(
                name=f"{row.name} {key[:8]}",
                max_retries=self.settings.retries,
                **_as_options(asked),
            )
            self.calls[function.remote(single.of(self.order, key), self.stop)] = key

    def _warn(self, step: str, asked: Resources) -> None:
        """Say where no machine that is there can ever take a step; one may still come."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        wanted = {names[name]: count for name, count in _as_options(asked).items() if count}
        machines = [each["Resources"] for each in self.ray.nodes() if each["Alive"]]
        fits = any(all(has.get(n, 0) >= count for n, count in wanted.items()) for has in machines)
        if not fits and step not in self.warned:
            self.warned.add(step)
            said = ", ".join(f"{name} {count}" for name, count in wanted.items())
            text = f"{step} waits for a machine with {said}; none has it (launch.resources.{step})"
            self.order.tell(Said(0, text))

    def _hear(self) -> None:
        """What is done, what has failed, and which call has ended and left nothing."""
        if not self.calls:
            time.sleep(POLL)
        ended, _ = self.ray.wait([*self.calls], timeout=POLL) if self.calls else ([], [])
        errors = {self.calls.pop(call): self._error_of(call) for call in ended}
        self._settle({key for key, error in errors.items() if not error})
        for key, error in errors.items():
            if key in self.graph.open:
                cause, fact = error or ("lost", "its call has ended without a result.")
                failure = Failure(key, self.graph.rows[key].name, cause, fact)
                if self.following.lose(failure, again=error is None):
                    self.graph.give_back(key)

    def _settle(self, keys: Collection[str]) -> None:
        """See what calls have left; a file system may need a while to show it."""
        until = time.monotonic() + SETTLE
        self.following.look()
        while self.graph.open & {*keys} and not self.order.stop_signal():
            if time.monotonic() > until:
                return
            time.sleep(POLL)
            self.following.look()

    def _error_of(self, call: Any) -> tuple[str, str] | None:
        """Why Ray has given a call up, after its retries."""
        errors = self.ray.exceptions
        try:
            self.ray.get(call)
        except errors.RayError as error:
            said = str(error).strip().splitlines()[0]
            causes = {
                errors.NodeDiedError: "lost machine",
                errors.OutOfMemoryError: "out of memory",
                errors.WorkerCrashedError: "killed",
            }
            cause = next(
                (word for kind, word in causes.items() if isinstance(error, kind)), "error"
            )
            return cause, said
        return None

    def _end(self) -> None:
        """Ask what still runs for a checkpoint, and end what does not heed it."""
        if not self.calls:
            return
        self.stop.touch()
        try:
            most, grace = len(self.calls), self.settings.grace
            _, left = self.ray.wait([*self.calls], num_returns=most, timeout=grace)
            for call in left:
                self.ray.cancel(call, force=True)
        finally:
            self.stop.unlink(missing_ok=True)


def _as_options(asked: Resources) -> dict[str, Any]:
    """Resources as Ray names them; memory in bytes."""
    found: dict[str, Any] = {"num_cpus": asked.cpus or 1, "num_gpus": asked.gpus or 0}
    return found | ({"memory": int(asked.memory * GIB)} if asked.memory else {})
