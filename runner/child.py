"""A process of ours that another one starts: how it begins, lives and is mourned.

It leaves signals to the one that started it, and ends with that one.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from runner import secrets
from runner.errors import StepError

PR_SET_PDEATHSIG = 1
LINES_SHOWN = 12


def begin(
    module: str, telling: int, log: Path, environment: Mapping[str, str], cwd: str | None = None
) -> "subprocess.Popen[str]":
    """Start a module with the file descriptor that it tells on; what it prints goes into the log.

    It is asked on its standard input, and leads a session of its own.
    """
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    with open(log, "ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(telling)],
            env={**os.environ, **environment, "PYTHONPATH": path},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            pass_fds=[telling],
            start_new_session=True,
            text=True,
        )


def death(who: str, code: int, log: Path) -> StepError:
    """How it ended, with the last lines of its log, in which no secret stays."""
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    text = secrets.mask(log.read_text(encoding="utf-8", errors="replace"))
    log.write_text(text, encoding="utf-8")
    lines = "\n".join(f"  | {line}" for line in text.splitlines()[-LINES_SHOWN:])
    return StepError(f"{who} ended ({how}); its log: {log}.\n{lines}")


def serve(parent: int) -> None:
    """Leave signals to the process `parent`, and end with it, however that ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
