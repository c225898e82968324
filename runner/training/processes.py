"""The processes that train together: started, followed, and ended whatever happens.

They are given what torchrun gives its workers (RANK, WORLD_SIZE, the address of a store that their
parent keeps), but are started from here: torchrun's agent ends its workers when it is asked to end,
where these must first agree on a step and write a checkpoint.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files, hardware, secrets
from runner.errors import StepError
from runner.stage import Context
from runner.training import handing, health

PERIOD = 0.05
"""Seconds between two looks at the processes."""
LINES_SHOWN = 12
HERE = "127.0.0.1"


@dataclass(frozen=True)
class Death:
    """How the process that died first died; `code` is as subprocess gives it."""

    rank: int
    devices: int
    code: int
    log: Path

    def __str__(self) -> str:
        how = f"exit code {self.code}" if self.code > 0 else signal.Signals(-self.code).name
        return f"worker {self.rank} of {self.devices} died ({how}); its log: {self.log}."

    def last_lines(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  | {line}" for line in lines[-LINES_SHOWN:])


class Group:
    """So many processes of worker.py over one folder; what they say goes to the step's context."""

    def __init__(self, folder: Path, devices: int, context: Context) -> None:
        self.folder, self.devices, self.context = folder, devices, context
        self.heard = [0] * devices
        self.failed: dict[int, float] = {}
        self.starved: health.StarvedError | None = None

    def run(self) -> Death | None:
        """Start them and see them to their end, or until one of them dies."""
        self.failed, self.starved = {}, None
        try:
            with _store() as port, self._started(port) as running:
                return self._follow(running)
        finally:
            for rank in range(self.devices):
                _clean(self._log(rank))

    @contextmanager
    def _started(self, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
        running: list[subprocess.Popen[bytes]] = []
        try:
            running.extend(self._start(rank, port) for rank in range(self.devices))
            yield running
        finally:
            for process in running:
                process.kill()
            for process in running:
                process.wait()

    def _start(self, rank: int, port: int) -> subprocess.Popen[bytes]:
        """One process, in a session of its own: Ctrl-C in a terminal is for the parent alone."""
        command = [sys.executable, "-m", "runner.training.worker", str(self.folder.resolve())]
        with open(self._log(rank), "ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **_environment(rank, self.devices, port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _follow(self, running: list[subprocess.Popen[bytes]]) -> Death | None:
        while True:
            codes = [process.poll() for process in running]
            for rank in range(self.devices):
                self._hear(rank)
            if any(codes):
                return self._first_death({rank: code for rank, code in enumerate(codes) if code})
            if None not in codes:
                return None
            if (name := self.context.stop_signal()) and not self._stop.exists():
                files.write_text(self._stop, name)
            time.sleep(PERIOD)

    def _first_death(self, codes: Mapping[int, int]) -> Death:
        """A signal came from outside; of those that failed by themselves the first one counts."""
        rank = min(codes, key=lambda rank: (codes[rank] > 0, self.failed.get(rank, 0.0)))
        return Death(rank, self.devices, codes[rank], self._log(rank))

    def _hear(self, rank: int) -> None:
        """Pass on the whole lines that a process has written since the last time."""
        path = self.folder / handing.EVENTS.format(rank)
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(self.heard[rank])
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.heard[rank] += len(whole)
        for line in whole.splitlines():
            self._tell(rank, json.loads(line))

    def _tell(self, rank: int, event: dict[str, Any]) -> None:
        match event.pop("kind"):
            case "progress":
                figures = event.pop("figures")
                self.context.progress(**event, **figures)
            case "note":
                self.context.note(event["text"])
            case "metrics":
                self.context.metrics(event["row"])
            case "facts":
                self.context.facts |= event["facts"]
            case "failed":
                self.failed[rank] = event["at"]
            case "starved":
                self.starved = health.StarvedError(**event)
            case "refused":
                raise StepError(event["fact"], event["command"])

    def _log(self, rank: int) -> Path:
        return self.context.draft / f"worker-{rank}.log"

    @property
    def _stop(self) -> Path:
        return self.folder / handing.STOP


@contextmanager
def _store() -> Iterator[int]:
    """The port of a store where the processes find one another; this machine alone reaches it."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is public

    with socket.create_server((HERE, 0)) as listening:
        port = listening.getsockname()[1]
        store = TCPStore(
            HERE,
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=os.dup(listening.fileno()),
        )
        yield port
        del store


def _environment(rank: int, devices: int, port: int) -> dict[str, str]:
    """What torchrun would say to a worker, and what this process has found or been given."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or hardware.cores())
    # accelerate would say "cpu:0", which torch.load takes for no device at all
    on_cpu = {} if hardware.gpus() else {"ACCELERATE_TORCH_DEVICE": "cpu"}
    return {
        **on_cpu,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "MASTER_ADDR": HERE,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": str(True),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
        "OMP_NUM_THREADS": str(max(1, threads // devices)),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONUNBUFFERED": "1",
        "RUNNER_PARENT": str(os.getpid()),
    }


def _clean(log: Path) -> None:
    """Hide secrets in what libraries have printed."""
    if log.exists():
        text = log.read_text(encoding="utf-8", errors="replace")
        if secrets.mask(text) != text:
            log.write_text(secrets.mask(text), encoding="utf-8")
