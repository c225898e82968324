"""What a run shares with the process around it: its signals and its output."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextmanager
def signals() -> Iterator[Callable[[], str | None]]:
    """Note the first signal, for the running step to see; a second Ctrl-C stops at once.

    In another thread than the main one Python hears of no signal, and none is noted.
    """
    seen: list[str] = []

    def note(number: int, _: FrameType | None) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(signal.Signals(number).name)

    hears = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, note) for number in (SIGNALS if hears else ())}
    try:
        yield lambda: seen[0] if seen else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def output_into(log: TextIO, *, active: bool) -> Iterator[None]:
    """Send what libraries print, from Python or C, to the log; the screen keeps its own handle."""
    if not active:
        yield
        return
    logging.captureWarnings(True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        os.close(kept[0])
        os.close(kept[1])
        logging.captureWarnings(False)


def call(command: Sequence[str]) -> int:
    """Run a command to its end, and give its exit code; signals to this process go to it.

    It writes where this process does, in a group of its own, so that each Ctrl-C reaches it once.
    """
    process = subprocess.Popen(command, process_group=0)

    def hand_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
