"""A run as another terminal sees it, which reads the run's folder alone."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from runner import files, metrics
from runner.lease import is_held
from runner.report.folder import ALIVE, LOG, Run, RunStep, presentable, read
from runner.report.terminal import shown
from runner.secrets import masked

EVERY = 0.5
"""Seconds between two looks."""
TAIL = 1 << 16
"""Bytes of the figures, or of the log, that are read of what is there already."""
FIGURES = ("step", "loss", "held_out_loss", "learning_rate", "tokens_per_second")
CODES = {"finished": 0, "stopped": 75}
"""What `runner watch` exits with; 1 where the run failed or was killed."""


def follow(folder: Path, stream: TextIO) -> Run:
    """Show a run until it ends: a live table in a terminal, the lines of its log elsewhere."""
    if stream.isatty():
        return _live(folder, stream)
    position = 0
    while True:
        run = read(folder)  # before the log, whose last line is written before the run has ended
        position = _copy(folder / LOG, position, stream)
        if not _goes_on(run):
            return run
        time.sleep(EVERY)


def _live(folder: Path, stream: TextIO) -> Run:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=stream)

    def drawn(run: Run) -> Text:
        return Text("\n".join(table(run)), overflow="ellipsis", no_wrap=True)

    run = read(folder)
    with Live(drawn(run), console=console, auto_refresh=False) as live:
        while _goes_on(run):
            time.sleep(EVERY)
            run = read(folder)
            live.update(drawn(run), refresh=True)
    return run


def _goes_on(run: Run) -> bool:
    """Whether somebody is still at it, if only to write down how it ended."""
    return is_held(run.folder / ALIVE)


def table(run: Run) -> Iterator[str]:
    """The run in a line, and a line for each of its steps."""
    done = len(run.keys)
    name = f"{run.folder.parent.name}/{run.folder.name}"
    yield f"{name}: {run.ending}, {done} of {len(run.steps)} steps, {_seconds(run):.0f} s"
    width = max((len(step.name) for step in run.steps), default=0)
    for step in run.steps:
        state = "waiting" if (step.said, run.ending) == ("not reached", "running") else step.said
        yield f"  {step.name:<{width}}  {state:<11}  {_said(run, step)}".rstrip()


def _seconds(run: Run) -> float:
    """How long it took, or has taken until now."""
    begun = str(run.record.get("begun", ""))
    if run.ending != "running" or not begun:
        return run.seconds
    from calendar import timegm

    return time.time() - timegm(time.strptime(begun, "%Y-%m-%dT%H:%M:%SZ"))


def _said(run: Run, step: RunStep) -> str:
    """Of a step that is done how long it took, of a running one its last figures."""
    if step.done:
        worked = step.done["verdict"] != "reuse"
        return f"{step.done['seconds']:.1f} s" if worked else step.reason
    row = _last_row(run.folder / metrics.NAME, step.name) if step.said == "running" else {}
    figures = {name: row[name] for name in FIGURES if name in row}
    return shown({n: round(v, 5) if isinstance(v, float) else v for n, v in figures.items()})


def _last_row(path: Path, step: str) -> Mapping[str, Any]:
    """The newest whole row of a step's figures."""
    for line in reversed(_tail(path).splitlines()):
        try:
            row = json.loads(line)
        except ValueError:  # it is being written, or cut
            continue
        if isinstance(row, dict) and row.get("of") == step:
            return dict(presentable(row))
    return {}


def _tail(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read().decode("utf-8", errors="replace")
    except files.ABSENT:
        return ""


def _copy(log: Path, position: int, stream: TextIO) -> int:
    """Write the whole lines of the log that are new since `position`; where they end."""
    try:
        with open(log, "rb") as file:
            file.seek(position)
            text, end, _ = file.read().rpartition(b"\n")
    except files.ABSENT:
        return position
    stream.write(masked((text + end).decode("utf-8", errors="replace")))
    stream.flush()
    return position + len(text) + len(end)
