"""One step of a sweep on the machine that a cluster gave it: in a job of Slurm, a call of Ray.

The step is made as on one's own machine: in a process of its own, with the sweep's retries and
time limits. What went wrong is left in the sweep's folder; the result is in the store.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from runner import hardware
from runner.errors import RunnerError, Stopped
from runner.launch import Event, Failure, Order, local
from runner.resources import Resources
from runner.stages import known
from runner.store import Store
from runner.sweep import manifest as manifests
from runner.sweep import where
from runner.sweep.graph import Graph
from runner.sweep.manifest import Manifest, Row

PATIENCE = 60.0
"""Seconds in which what another machine has written must be seen here."""
POLL = 0.5


@dataclass(frozen=True)
class Single:
    """What a cluster is given: which step, of which sweep, with which store and GPUs."""

    folder: Path
    key: str
    root: Path
    gpus: int

    def make(self, stop_signal: Callable[[], str | None]) -> bool:
        """Whether the step is done now. Stopped where a signal asked for the end."""
        whole = manifests.load(self.folder)
        assert whole is not None, f"{self.folder} has no manifest"
        order = self._order(_only(whole, self.key), stop_signal)
        try:
            if lacking := _lacking(order, self.key):
                raise RunnerError(lacking)
            local.launch(order)
        except Stopped:
            raise
        except RunnerError as error:  # also: its process cannot start
            failure = Failure(self.key, whole.keys[self.key].name, "refused", str(error))
            local.write_failure(self.folder, failure)
            return False
        return not order.failures

    def _order(self, manifest: Manifest, stop_signal: Callable[[], str | None]) -> Order:
        stages = known()
        hardware.gpus.cache_clear()  # a process of Ray has had other ones before
        return Order(
            manifest=replace(manifest, settings=replace(manifest.settings, gpus=self.gpus)),
            folder=self.folder,
            graph=Graph(manifest, stages, {*manifest.keys} - {self.key}),
            store=Store(self.root),
            stages=stages,
            tell=_keep_quiet,
            stop_signal=stop_signal,
            workers=1,
        )


def _keep_quiet(event: Event) -> None:
    """Nobody looks on; the sweep's folder has the log."""


def of(order: Order, key: str) -> Single:
    """The step of that key, for a machine that sees the same folders."""
    gpus = asked(order, order.graph.rows[key]).gpus or 0
    return Single(order.folder.resolve(), key, order.store.root.resolve(), gpus)


def asked(order: Order, row: Row) -> Resources:
    """What a step asks of a cluster; the GPUs of its stage are as many as `sweep.gpus`."""
    default = order.stages[row.stage].RESOURCES
    default = replace(default, gpus=(default.gpus or 0) * order.manifest.settings.gpus)
    return where.resources(order.manifest.launch, row.name, default)


def _only(manifest: Manifest, key: str) -> Manifest:
    """The first job that has the step, alone."""
    job = next(job for job in manifest.jobs if key in {row.key for row in manifest.steps(job)})
    return replace(manifest, jobs=(job,)).tidied()


def _lacking(order: Order, key: str) -> str:
    """Which input of a step this machine does not find; a file system may need a while."""
    until = time.monotonic() + PATIENCE
    while missing := [each for each in order.graph.inputs[key] if not order.store.entry(each)]:
        if time.monotonic() > until:
            names = ", ".join(order.graph.rows[each].name for each in missing)
            return f"this machine does not find {names} in {order.store.root}."
        time.sleep(POLL)
    return ""
