"""A process of its own for each piece of work on a model: what libraries change in it goes with it.

It can be killed at any moment, gives its memory back whole, and reads a result as a user would.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory
from typing import Any

from runner import secrets
from runner.errors import StepError
from runner.stage import Context

PERIOD = 0.1
"""Seconds between two looks at whether the run is to stop."""
LINES_SHOWN = 12


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
        open(log, "ab") as errors,
        open(told, encoding="utf-8") as events,
        TemporaryDirectory(dir=context.draft) as aside,  # libraries leave logs where they work
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "runner.quantizing.worker", str(telling)],
            env={
                **os.environ,
                **dict(environment),
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                "TMPDIR": os.path.abspath(aside),
            },
            cwd=aside,
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=subprocess.STDOUT,
            pass_fds=[telling],
            start_new_session=True,
            text=True,
        )
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
        raise _death(what, code, log)
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


def _death(what: str, code: int, log: Path) -> StepError:
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    text = secrets.mask(log.read_text(encoding="utf-8", errors="replace"))
    log.write_text(text, encoding="utf-8")
    lines = "\n".join(f"  | {line}" for line in text.splitlines()[-LINES_SHOWN:])
    return StepError(f"the process to {what} ended ({how}); its log: {log}.\n{lines}")
