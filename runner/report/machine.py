"""A run as lines of JSON, one for each thing that happens, for programs that start runs."""

import json
import time
from typing import Any, TextIO

from runner.events import Dropped, Event, Finished, Measured, Noted, Progressed, Started
from runner.secrets import masked


class JsonLines:
    """Writes each event as a line; `time` is in seconds since the epoch."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def hear(self, event: Event) -> None:
        """Write what an event says."""
        row = {"event": type(event).__name__.lower(), "time": round(time.time(), 3), **said(event)}
        print(json.dumps(masked(row), ensure_ascii=False), file=self.stream, flush=True)


def said(event: Event) -> dict[str, Any]:
    """An event as JSON holds it."""
    match event:
        case Started(planned):
            name, verdict = planned.step.name, str(planned.verdict)
            return {"step": name, "key": planned.key, "verdict": verdict, "reason": planned.reason}
        case Progressed(step, done, total, unit, figures):
            far = {"done": done, "total": total, "unit": unit}
            return {"step": step, **far, "figures": dict(figures)}
        case Noted(step, text):
            return {"step": step, "text": text}
        case Dropped(step, size):
            return {"step": step, "bytes": size}
        case Measured(step, row):
            return {"step": step, "row": dict(row)}
        case Finished(outcome):
            made = {name: outcome.entry.record[name] for name in ("digest", "facts")}
            seconds = round(outcome.seconds, 3)
            told = {"verdict": str(outcome.verdict), "reason": outcome.reason, "seconds": seconds}
            return {"step": outcome.planned.step.name, "key": outcome.planned.key, **told, **made}
