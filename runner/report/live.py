"""The live table of a run in a terminal, drawn with rich."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from runner.events import Dropped, Event, Finished, Noted, Progressed, Started, Tell
from runner.files import human_bytes
from runner.plan import Plan, Planned, Verdict
from runner.report.terminal import amount, shown

BAR_WIDTH = 20
NOTES = 3
WIDE = 80
"""Columns from which there is room for bars."""


@dataclass
class Line:
    """What the table says of one step."""

    planned: Planned
    state: str = "waiting"
    begun: float = 0.0
    seconds: float = 0.0
    said: str = ""
    progress: Progressed | None = None


@contextmanager
def live(plan: Plan, stream: TextIO) -> Iterator[Tell]:
    """A table that follows the run while the block runs."""
    console = Console(file=stream, width=_width(stream))
    table = LiveTable(plan, console.width)
    with Live(
        table, console=console, refresh_per_second=8, redirect_stdout=False, redirect_stderr=False
    ):
        yield table.hear


def _width(stream: TextIO) -> int | None:
    """The columns of this very terminal; rich would ask standard input's."""
    if "COLUMNS" in os.environ:
        return None
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return None


class LiveTable:
    """Every step of a plan, a line each, as the events have it."""

    def __init__(self, plan: Plan, width: int) -> None:
        self.wide = width >= WIDE
        self.lines = {planned.step.name: Line(planned) for planned in plan.steps}
        self.notes: list[str] = []
        self.spinner = Spinner("dots")

    def hear(self, event: Event) -> None:
        """Take in what an event says; the next refresh shows it."""
        match event:
            case Started(planned):
                line = self.lines[planned.step.name]
                line.state, line.begun, line.said = "running", time.monotonic(), planned.reason
            case Progressed(step):
                self.lines[step].progress = event
            case Noted("", text):
                self.notes = [*self.notes, text][-NOTES:]
            case Noted(step, text):
                self.lines[step].said = text
            case Finished(outcome):
                line = self.lines[outcome.planned.step.name]
                reused = outcome.verdict is Verdict.REUSE
                line.state, line.seconds = "reused" if reused else "done", outcome.seconds
                line.said = outcome.reason if reused else ""

            case Dropped(step, size):
                self.lines[step].said = f"{human_bytes(size)} dropped"

    def __rich__(self) -> RenderableType:
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=False, expand=True)
        table.add_column(no_wrap=True, min_width=max(map(len, self.lines)))
        table.add_column(no_wrap=True, min_width=len("running"))
        if self.wide:
            table.add_column(width=BAR_WIDTH)
        table.add_column(justify="right", no_wrap=True, min_width=len("1000.0 s"))
        table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        for name, line in self.lines.items():
            state, bar, *rest = self._cells(line)
            table.add_row(name, state, *([bar] if self.wide else []), *rest)
        return Group(*(Text(note, style="dim") for note in self.notes), table)

    def _cells(self, line: Line) -> tuple[RenderableType, ...]:
        progress, state = line.progress, line.state
        if state == "running":
            seconds = time.monotonic() - line.begun
            said = line.said
            bar: RenderableType = self.spinner
            if progress:
                bar = ProgressBar(progress.total, progress.done, width=BAR_WIDTH)
                far = amount(progress.done, progress.total, progress.unit)
                said = f"{far}  {shown(progress.figures)}"
            return Text(state, style="yellow"), bar, f"{seconds:.0f} s", Text(said)
        style = {"done": "green", "reused": "cyan", "waiting": "dim"}[state]
        bar = ProgressBar(1, 1, width=BAR_WIDTH) if state == "done" else Text("")
        said = line.said or (shown(progress.figures) if progress else "")
        seconds_shown = f"{line.seconds:.1f} s" if state == "done" else ""
        return Text(state, style=style), bar, seconds_shown, Text(said, style="dim")
