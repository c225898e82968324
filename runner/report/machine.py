"""A run as lines of JSON, one for each thing that happens, for programs that start runs."""

import json
import time
from collections.abc import Mapping
from typing import Any, TextIO

from runner.events import Dropped, Event, Finished, Measured, Noted, Progressed, Started
from runner.forecast import Forecast
from runner.plan import Plan
from runner.room import Outlook
from runner.secrets import masked


class JsonLines:
    """Writes each event as a line; `time` is in seconds since the epoch."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def hear(self, event: Event) -> None:
        """Write what an event says."""
        row = {"event": type(event).__name__.lower(), "time": round(time.time(), 3), **said(event)}
        print(json.dumps(masked(row), ensure_ascii=False), file=self.stream, flush=True)


def plan_rows(
    plan: Plan, outlook: Outlook, expected: Mapping[str, Forecast]
) -> list[dict[str, Any]]:
    """A plan as JSON holds it; what is not known is null.

    `seconds` and `memory` (bytes) are what the record of the key `like` says, `disk` the bytes
    that the step takes while it works and leaves.
    """
    rows = []
    for planned in plan.steps:
        name, forecast = planned.step.name, expected.get(planned.step.name)
        rows.append(
            {
                "step": name,
                "key": planned.key,
                "verdict": str(planned.verdict),
                "reason": planned.reason,
                "disk": outlook.steps.get(name),
                "seconds": forecast.seconds if forecast else None,
                "memory": forecast.memory if forecast else None,
                "like": forecast.like if forecast else None,
            }
        )
    return rows


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
