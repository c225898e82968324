"""A process of a sweep on this machine: `python -m runner.launch.worker PARENT`.

It reads orders as JSON lines from its input, makes one step after another, keeps models in memory
as long as the orders say they are wanted, and answers as JSON lines on its output. What libraries
print goes to its log (the standard error it is given).
"""

import gc
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from runner import child, hardware, room
from runner.errors import RunnerError, StepError, Stopped
from runner.events import Event, Measured, Noted, Progressed
from runner.execute import Memory, execute_last
from runner.plan import Plan, Verdict, plan_last
from runner.recipe import Recipe
from runner.secrets import mask
from runner.stages import known
from runner.store import Store
from runner.sweep.manifest import PLAN_AGAIN, Row

PROGRESS_EVERY = 0.2
"""Seconds between two words on how far a step is."""
NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


def main() -> None:
    """Serve until the input ends."""
    child.serve(int(sys.argv[1]))
    with suppress(OSError):  # where memory runs out, the kernel shall take this process first
        Path("/proc/self/oom_score_adj").write_text("500")
    orders, answers = _channels()
    worker = _Worker(answers)
    threading.Thread(target=worker.listen, args=(orders,), daemon=True).start()
    hardware.prepare()
    gc.collect()
    gc.freeze()  # what is loaded by now stays, and need not be looked through again
    worker.say("ready")
    while (order := worker.orders.get()) is not None:
        if not worker.obey(order):
            break
    answers.flush()
    os._exit(0)  # a library's own end may take seconds, or hang


def _channels() -> tuple[TextIO, TextIO]:
    """The orders and the answers, which nothing else in this process can read or write."""
    orders, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return os.fdopen(orders, encoding="utf-8"), os.fdopen(answers, "w", encoding="utf-8")


class _Worker:
    """One process: what it holds in memory, and the signal that has asked it to stop."""

    def __init__(self, answers: TextIO) -> None:
        self.answers, self.speaking = answers, threading.Lock()
        self.orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.memory, self.stages = Memory(), known()
        self.verdicts: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.stopped: str | None = None
        self.watched: str | None = None
        self.given_up = False
        self.told_at = 0.0

    def listen(self, orders: TextIO) -> None:
        """Take orders in; one to stop is heard at once. The end of them all is the end."""
        for line in orders:
            order = json.loads(line)
            if order["kind"] == "stop":
                self.stopped = order["signal"]
            if order["kind"] == "verdict":
                self.verdicts.put(order["ends"])
            else:
                self.orders.put(order)
        os._exit(1)

    def say(self, kind: str, **what: Any) -> None:
        """Answer."""
        line = json.dumps({"kind": kind, **what}, default=str)
        with self.speaking:
            self.answers.write(line + "\n")
            self.answers.flush()

    def obey(self, order: Mapping[str, Any]) -> bool:
        """Make a step and say what became of it; false where this process is to end."""
        if order["kind"] != "make":
            return False
        try:
            self._make(order)
        except Stopped:
            if self.given_up and not self.stopped:
                self._give_up(order)
                return True
            self.say("stopped")
            return False
        except RunnerError as error:
            self.memory = Memory()
            hardware.release_memory()
            self._failed("refused", _said(error, order), again=False, ends=False)
            return True
        except BaseException as error:
            traceback.print_exc()
            sys.stderr.flush()
            self._failed(*_cause(error), ends=True)
            return False
        return True

    def _give_up(self, order: Mapping[str, Any]) -> None:
        """A search wants the step no more: its unfinished work goes, and this process stays."""
        self.memory = Memory()
        hardware.release_memory()
        store, key = Store(Path(order["store"])), order["rows"][-1]["key"]
        if not store.in_work(key):
            with store.lease(key, lambda _: None):
                store.drop_draft(key)
        self.say("given up")

    def _failed(self, cause: str, fact: str, again: bool, *, ends: bool) -> None:
        self.say("failed", cause=cause, fact=mask(fact), again=again, ends=ends)

    def _make(self, order: Mapping[str, Any]) -> None:
        store = Store(Path(order["store"]))
        key = order["rows"][-1]["key"]
        if not order["wait"] and store.in_work(key):
            self.say("busy")
            return
        planned = self._plan(order, store)
        self.memory.keep(order["wanted"])
        if not self.memory.products:
            room.check_memory(planned, store)
        self.watched, self.given_up = order.get("watched"), False
        self.say("begun")
        hardware.forget_peak_memory()
        begun, beside = time.monotonic(), Path(order["beside"])
        outcome = execute_last(planned, store, self._tell, self._stop_signal, beside, self.memory)
        self.say(
            "made",
            seconds=time.monotonic() - begun,
            by_others=outcome.verdict is Verdict.REUSE,
            holds=[*self.memory.products],
        )

    def _plan(self, order: Mapping[str, Any], store: Store) -> Plan:
        rows = [Row(**row) for row in order["rows"]]
        steps = tuple(row.step(self.stages) for row in rows)
        plain = {"name": order["recipe"], "steps": [row.name for row in rows]}
        plain |= {row.name: {"stage": row.stage, **row.options} for row in rows}
        path = Path(order["path"])
        recipe = Recipe(order["recipe"], path, steps, plain, versions=order["versions"])
        planned = plan_last(recipe, store)
        if planned.steps[-1].key != rows[-1].key:
            fact = f"runner makes {rows[-1].name} otherwise than when the sweep was planned."
            raise StepError(fact, PLAN_AGAIN)
        return planned

    def _stop_signal(self) -> str | None:
        return self.stopped or ("SIGTERM" if self.given_up else None)

    def _measured(self, row: Mapping[str, Any]) -> None:
        """Tell a figure that a search looks at, and wait for what it says."""
        step, value = row.get("step"), row.get(self.watched or "")
        if isinstance(step, int) and step > 0 and isinstance(value, (int, float)):
            self.say("measured", step=step, value=value)
            self.given_up |= self.verdicts.get()

    def _tell(self, event: Event) -> None:
        match event:
            case Measured(_, row) if self.watched and not self.given_up:
                self._measured(row)
            case Noted(_, text):
                self.say("note", text=mask(text))
            case Progressed(_, done, total, unit, figures):
                if time.monotonic() - self.told_at > PROGRESS_EVERY:
                    self.told_at = time.monotonic()
                    self.say("progress", done=done, total=total, unit=unit, figures=dict(figures))


def _said(error: RunnerError, order: Mapping[str, Any]) -> str:
    """What an error says; the step's own name stands before it anyway."""
    if isinstance(error, StepError) and error.step in ("", order["rows"][-1]["name"]):
        return f"{error.fact} {error.command}".rstrip()
    return str(error)


def _cause(error: BaseException) -> tuple[str, str, bool]:
    """What ended a step, in a word and a sentence, and whether trying again may help."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SystemExit):
        return "exit", f"it called exit({error.code}).", False
    if isinstance(error, MemoryError) or any(each in text for each in NO_MEMORY):
        return "out of memory", text, True
    return "error", text, False


if __name__ == "__main__":
    main()
