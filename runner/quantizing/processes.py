"""A process of its own for each piece of work on a model: what libraries change in it goes with it.

It can be killed at any moment, gives its memory back whole, and reads a result as a user would.
"""

import json
import os
from collections.abc import Iterable, Mapping
from select import select
from tempfile import TemporaryDirectory
from typing import Any

from runner import child
from runner.errors import StepError
from runner.stage import Context

PERIOD = 0.1
"""Seconds between two looks at whether the run is to stop."""


def ask(
    what: str,
    about: Mapping[str, Any],
    context: Context,
    environment: Iterable[tuple[str, str]],
) -> Any:
    """What `worker` answers: "quantize" or "measure" and what it is about, as JSON.

    StepError with the last lines of its log where it dies; Stopped where the run is to stop.
    """
    log = context.draft / f"{what}.log"
    told, telling = os.pipe()
    with (
        open(told, encoding="utf-8") as events,
        TemporaryDirectory(dir=context.draft) as aside,  # libraries leave logs where they work
    ):
        beside = {**dict(environment), "TMPDIR": os.path.abspath(aside)}
        process = child.begin("runner.quantizing.worker", telling, log, beside, aside)
        os.close(telling)
        try:
            assert process.stdin
            with process.stdin as asked:
                json.dump({"parent": os.getpid(), "what": what, **about}, asked)
            answer = _follow(events.fileno(), context)
            process.wait()  # it has said all and closed the pipe
        finally:
            process.kill()
            code = process.wait()
    if answer is None:
        raise child.death(f"the process to {what}", code, log)
    log.unlink()
    return answer


def _follow(events: int, context: Context) -> Any:
    """Pass on what the process says, up to its answer; None where it ends without one."""
    left = b""
    while True:
        context.stop_here()
        if not select([events], [], [], PERIOD)[0]:
            continue
        read = os.read(events, 1 << 16)
        if not read:
            return None
        *lines, left = (left + read).split(b"\n")
        for line in lines:
            event = json.loads(line)
            match event.pop("kind"):
                case "progress":
                    context.progress(**event)
                case "note":
                    context.note(event["text"])
                case "refused":
                    raise StepError(event["fact"], event["command"])
                case "answer":
                    return event["answer"]
