"""A process of its own that answers batch after batch, asked by JSON lines.

What a library sets in it (threads, seeds, handlers, a GPU's memory) goes with it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import secrets
from runner.errors import StepError

LINES_SHOWN = 12
PATIENCE = 10
"""Seconds that it has for ending by itself."""


class Served:
    """A module's process, that dies with this one. What it says beside its answers is in `log`.

    `told` is its answer to the first line, `job` with the id of this process as `parent`.
    """

    def __init__(
        self, module: str, job: Mapping[str, Any], log: Path, environment: Mapping[str, str]
    ) -> None:
        self._module, self._log = module, log
        told, telling = os.pipe()
        self._answers = open(told, encoding="utf-8")  # noqa: SIM115  open until `close`
        with open(log, "ab") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(telling)],
                env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(_path())},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                pass_fds=[telling],
                start_new_session=True,
                text=True,
            )
        os.close(telling)
        try:
            self.told = self.ask({"parent": os.getpid(), **job})
        except BaseException:
            self.close()
            raise

    def ask(self, what: Any) -> Any:
        """Its answer; RuntimeError with what went wrong in it, StepError where it is dead."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        line = self._answers.readline()
        if not line.endswith("\n"):
            self._process.wait()
            raise StepError(self._death())
        said = json.loads(line)
        if "error" in said:
            raise RuntimeError(said["error"])
        return said["answer"]

    def close(self) -> None:
        """End it, with whatever it has started."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._answers.close()

    def _death(self) -> str:
        code = self._process.returncode
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        text = secrets.mask(self._log.read_text(encoding="utf-8", errors="replace"))
        self._log.write_text(text, encoding="utf-8")
        lines = "\n".join(f"  | {line}" for line in text.splitlines()[-LINES_SHOWN:])
        return f"the process of {self._module} ended ({how}); its log: {self._log}.\n{lines}"


def _path() -> list[str]:
    return [os.path.abspath(each) for each in sys.path]
