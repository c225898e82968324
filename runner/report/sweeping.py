"""What a sweep shows while it runs: a live table in a terminal, lines elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from runner.launch import Added, Begun, Broke, Came, Event, GivenUp, Made, Said, Tell
from runner.report.terminal import LINE_EVERY, amount, shown
from runner.sweep.manifest import Manifest

NOTES = 5


@contextmanager
def screen(manifest: Manifest, done: Mapping[str, int], stream: TextIO) -> Iterator[Tell]:
    """Follow a sweep on a stream while the block runs; `done` counts what is done by name."""
    if not stream.isatty():
        yield Lines(manifest, sum(done.values()), stream).hear
        return
    from rich.console import Console
    from rich.live import Live

    from runner.report.sweep_table import SweepTable

    table = SweepTable(manifest, done)
    with Live(
        table,
        console=Console(file=stream),
        refresh_per_second=4,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield table.hear


class Lines:
    """One line for each step that is done or fails."""

    def __init__(self, manifest: Manifest, done: int, stream: TextIO) -> None:
        self.stream, self.done, self.all = stream, done, len(manifest.keys)
        self.names: dict[int, str] = {}
        self.last_line = time.monotonic()

    def hear(self, event: Event) -> None:
        """Print what an event says."""
        match event:
            case Begun(worker, row):
                self.names[worker] = row.name
            case Came(worker, done, total, unit, figures):
                if time.monotonic() - self.last_line > LINE_EVERY:
                    self._line(worker, f"{amount(done, total, unit)} {shown(figures)}".rstrip())
            case Said(worker, text):
                self._line(worker, text)
            case Made(worker, row, seconds, by_others):
                self.done += 1
                self.names.setdefault(worker, row.name)
                said = "made by another process" if by_others else f"done in {seconds:.1f} s"
                self._say(f"[{self.done}/{self.all}] {row.name} {row.key[:8]}: {said}")
            case Added(manifest, done):
                self.done, self.all = sum(done.values()), len(manifest.keys)
            case GivenUp(_, row):
                self._say(f"{row.name} {row.key[:8]}: given up, worse than others by then")
            case Broke(_, failure, again):
                more = "; trying again" if again else ""
                self._say(
                    f"{failure.step} {failure.key[:8]}: {failure.cause}: {failure.fact}{more}"
                )

    def _line(self, worker: int, text: str) -> None:
        name = self.names.get(worker, "")
        self._say(f"worker {worker}  {name}  {text}" if worker else text)

    def _say(self, text: str) -> None:
        self.last_line = time.monotonic()
        print(text, file=self.stream, flush=True)
