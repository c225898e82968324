"""A process of its own that answers batch after batch, asked by JSON lines.

What a library sets in it (threads, seeds, handlers, a GPU's memory) goes with it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner import child

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
        self._process = child.begin(module, telling, log, environment)
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
            who = f"the process of {self._module}"
            raise child.death(who, self._process.returncode, self._log)
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
