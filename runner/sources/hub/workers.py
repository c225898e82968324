"""Threads that bring files side by side, and the one thread that speaks for them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from runner.sources.pace import pace
from runner.stage import Context

MOST = 8
"""Files at a time, as many as huggingface_hub takes."""
TICK = 0.1
"""Seconds between two looks at the threads."""
WINDOW = 5.0
"""Seconds over which the rate is taken."""

Item = TypeVar("Item")


class Halted(Exception):  # noqa: N818  not a failure: another thread ended the work
    """The work is to end here; what was done so far is kept."""


class Workers:
    """Threads at work. They only count, note and ask; the context is for the thread that waits."""

    def __init__(self, context: Context, total: int) -> None:
        self.context, self.total = context, total
        self._done = self._received = 0
        self._notes: deque[str] = deque()
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._lock, self._halt = threading.Lock(), threading.Event()

    def run(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Do `work` for every item; the first failure, or a signal, ends all."""
        todo = deque(items)

        def drain() -> None:
            while not self._halt.is_set():
                try:
                    item = todo.popleft()
                except IndexError:
                    return
                work(item)

        if not todo:
            return
        with ThreadPoolExecutor(MOST, "hub") as pool:
            try:
                self._attend({pool.submit(drain) for _ in range(min(MOST, len(todo)))})
            except BaseException:
                self._halt.set()
                raise
            finally:
                self._tell()

    def count(self, size: int, *, received: bool = True) -> None:
        """So many more bytes are there (or fewer), received or found."""
        with self._lock:
            self._done += size
            self._received += size if received else 0

    def note(self, text: str) -> None:
        """One line for the user."""
        self._notes.append(text)

    def halt_here(self) -> None:
        """Raise Halted if the work is to end."""
        if self._halt.is_set():
            raise Halted

    def sleep(self, seconds: float) -> None:
        """Wait, unless the work is to end."""
        self._halt.wait(seconds)
        self.halt_here()

    def _attend(self, futures: set[Future[None]]) -> None:
        while futures:
            ended, futures = wait(futures, timeout=TICK, return_when="FIRST_COMPLETED")
            for future in ended:
                future.result()
            self._tell()
            self.context.stop_here()

    def _tell(self) -> None:
        """Pass on the notes, and how far it is."""
        while self._notes:
            self.context.note(self._notes.popleft())
        now, received = time.monotonic(), self._received
        self._samples.append((now, received))
        while self._samples[0][0] < now - WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        begun, before = self._samples[0]
        rate = (received - before) / max(now - begun, 1e-9)
        left = self.total - self._done
        self.context.progress(self._done, self.total, "bytes", **pace(left, rate))
