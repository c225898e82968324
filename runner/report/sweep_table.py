"""The live table of a sweep in a terminal, drawn with rich."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.launch import Added, Begun, Broke, Came, Event, GivenUp, Made, Said
from runner.report.terminal import amount, shown
from runner.sweep.manifest import Manifest, Row

BAR_WIDTH = 20
NOTES = 5


@dataclass
class At:
    """What a worker is at."""

    row: Row
    begun: float
    said: str = ""


class SweepTable:
    """A line for each name of a step with how many are done, and one for each worker."""

    def __init__(self, manifest: Manifest, done: Mapping[str, int]) -> None:
        self.failed: Counter[str] = Counter()
        self._count(manifest, done)
        self.workers: dict[int, At] = {}
        self.notes: list[str] = []

    def _count(self, manifest: Manifest, done: Mapping[str, int]) -> None:
        names = [row.name for row in manifest.keys.values()]
        self.all = {name: names.count(name) for name in dict.fromkeys(names)}
        self.done = {name: done.get(name, 0) for name in self.all}

    def hear(self, event: Event) -> None:
        """Take in what an event says; the next refresh shows it."""
        match event:
            case Begun(worker, row):
                self.workers[worker] = At(row, time.monotonic())
            case Came(worker, done, total, unit, figures) if worker in self.workers:
                self.workers[worker].said = f"{amount(done, total, unit)}  {shown(figures)}"
            case Said(worker, text) if worker in self.workers:
                self.workers[worker].said = text
            case Said(_, text):
                self._note(text)
            case Made(worker, row):
                self.done[row.name] += 1
                self.workers.pop(worker, None)
            case Added(manifest, done):
                self._count(manifest, done)
            case GivenUp(worker, row):
                self.workers.pop(worker, None)
                self._note(f"{row.name} {row.key[:8]}: given up, worse than others by then")
            case Broke(worker, failure, again):
                self.failed[failure.step] += not again
                self.workers.pop(worker, None)
                self._note(f"{failure.step}: {failure.cause}: {failure.fact}")

    def _note(self, text: str) -> None:
        self.notes = [*self.notes, text][-NOTES:]

    def __rich__(self) -> RenderableType:
        return Group(*(Text(note, style="dim") for note in self.notes), self._steps(), self._at())

    def _steps(self) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
        for name, count in self.all.items():
            bar = ProgressBar(count, self.done[name], width=BAR_WIDTH)
            failed = Text(f"{self.failed[name]} failed" if self.failed[name] else "", style="red")
            table.add_row(name, bar, f"{self.done[name]}/{count}", failed)
        return table

    def _at(self) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False)
        for worker, at in sorted(self.workers.items()):
            seconds = f"{time.monotonic() - at.begun:.0f} s"
            table.add_row(f"worker {worker}", at.row.name, seconds, Text(at.said, style="dim"))
        return table
