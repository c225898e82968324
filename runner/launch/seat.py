"""One place for a worker on this machine: its process, what it is at and what it holds."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import hardware
from runner.running import QUIET, TRACKERS
from runner.secrets import mask
from runner.sweep.manifest import Row

LAST_LINES = 8
LOG_END = 8192
"""Bytes at the end of a log in which its last lines are looked for."""


def environments(count: int, each: int, folder: Path) -> list[dict[str, str]]:
    """What `count` workers are told apart by: `each` GPUs of their own, where there are any.

    The number of threads decides the last bits of results, so it is what it is in a single run;
    where workers are more than one, their threads sleep while they wait for one another.
    `folder` is the sweep's, where experiment trackers keep what is of all its jobs.
    """
    common = {name: os.environ.get(name, value) for name, value in QUIET.items()}
    trackio = str((folder / TRACKERS / "trackio").resolve())
    common["TRACKIO_DIR"] = os.environ.get("TRACKIO_DIR", trackio)
    if count > 1 and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & {*os.environ}:
        common["OMP_WAIT_POLICY"] = "PASSIVE"
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = shown.split(",") if shown else [str(n) for n in range(len(hardware.gpus()))]
    if not each:
        common["CUDA_VISIBLE_DEVICES"] = ""
    if not each or not hardware.gpus():
        return [common] * count
    groups = [names[n * each : (n + 1) * each] for n in range(len(names) // each)]
    return [
        common | {"CUDA_VISIBLE_DEVICES": ",".join(groups[n % len(groups)])} for n in range(count)
    ]


def places(gpus: int) -> int:
    """How many workers have a device of their own: one for each share of the GPUs."""
    return max(1, len(hardware.gpus()) // max(1, gpus))


class Seat:
    """A worker's process is started when there is work for it, and again when it has died."""

    def __init__(self, number: int, folder: Path, environment: Mapping[str, str]) -> None:
        self.number, self.environment = number, environment
        self.log = folder / "logs" / f"{socket.gethostname()}-{os.getpid()}-{number}.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self.row: Row | None = None
        self.holds: set[str] = set()
        self.begun: float | None = None
        self.asked_to_end = 0.0
        self.log_begin = 0
        self.kills = 0
        self.late = self.is_ready = False
        self.unread = b""

    @property
    def is_free(self) -> bool:
        """Whether it may be given work: it has none, and is not about to end."""
        return self.row is None and not self.asked_to_end

    def start(self) -> None:
        """Start a process, unless one is there. It is a fresh interpreter, and no fork."""
        if self.process is not None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.unread, self.holds, self.is_ready = b"", set(), False
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runner.launch.worker", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def channel(self) -> int:
        """What its answers are read from."""
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def make(self, row: Row, order: Mapping[str, Any], *, waits: bool) -> None:
        """Have it make a step; it may find that somebody else is at it, unless it `waits`."""
        self.row, self.begun, self.late = row, None, False
        self.log_begin = self.log.stat().st_size if self.log.exists() else 0
        self.kills = kills_by_the_system()
        self.start()
        self.send({"kind": "make", "wait": waits, **order})

    def send(self, order: Mapping[str, Any]) -> None:
        """Give an order; one that has died is found by the end of its answers."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps(order).encode() + b"\n")
                self.process.stdin.flush()

    def stop(self, signal_name: str) -> None:
        """Ask for a checkpoint and the end."""
        self.asked_to_end = time.monotonic()
        self.send({"kind": "stop", "signal": signal_name})

    def answers(self) -> Iterator[dict[str, Any]]:
        """What it has said since; the last one is of kind "gone" where it has ended."""
        ended = False
        while not ended:
            try:
                read = os.read(self.channel, 1 << 16)
            except BlockingIOError:
                break
            ended = not read
            self.unread += read
        *lines, self.unread = self.unread.split(b"\n")
        for line in lines:
            yield json.loads(line)
        if ended:
            yield {"kind": "gone"}

    def end(self) -> int:
        """Wait for a process that has closed its answers, and give its exit code."""
        assert self.process is not None
        process, self.process = self.process, None
        self.asked_to_end = 0.0
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        code = process.wait()
        self._hide_secrets()
        return code

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()

    def _hide_secrets(self) -> None:
        """What libraries have printed may hold some."""
        with suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            if mask(text) != text:
                self.log.write_text(mask(text), encoding="utf-8")

    def last_lines(self) -> tuple[str, ...]:
        """The end of what was printed since the step began."""
        with suppress(OSError), open(self.log, "rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self.log_begin, size - LOG_END))
            text = mask(log.read().decode(errors="replace"))
            return tuple([line for line in text.splitlines() if line.strip()][-LAST_LINES:])
        return ()

    def death(self, code: int) -> tuple[str, str, bool]:
        """Why its process has ended: in a word, in a sentence, and whether to try again."""
        if code >= 0:
            return "exit", f"its process ended with exit code {code}.", True
        name = signal.Signals(-code).name
        if -code == signal.SIGKILL and kills_by_the_system() > self.kills:
            return "out of memory", "the system killed its process: memory was out.", True
        return "killed", f"its process was ended by {name}.", True


def kills_by_the_system() -> int:
    """How many processes the kernel has killed for want of memory since it booted."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("oom_kill ")))
    return 0


def ended(seats: Sequence[Seat]) -> bool:
    """Whether no process is left."""
    return all(seat.process is None for seat in seats)
