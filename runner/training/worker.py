"""One of the processes that train together: `python -m runner.training.worker FOLDER`.

It does what one process alone would do (single.py), on its share of every step's rows. What it has
to say goes as JSON lines into a file that the process which started it (workers.py) follows.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from runner import child, files, hardware, products
from runner.checkpoint import Checkpoints
from runner.errors import StepError, Stopped
from runner.products import Model
from runner.stage import Context
from runner.training import handing, health

Tell = Callable[..., None]


def main() -> None:
    """Train as the folder's spec says; exit code 0 where that ended as it should."""
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    child.serve(int(os.environ["RUNNER_PARENT"]))
    hardware.prepare()
    with open(folder / handing.EVENTS.format(rank), "a", encoding="utf-8", buffering=1) as file:
        try:
            _work(folder, _teller(file))
        except BaseException as error:
            _teller(file)(**_last_words(error))
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # a library's own end would wait for the other processes


def _last_words(error: BaseException) -> dict[str, Any]:
    if isinstance(error, health.StarvedError):
        return {"kind": "starved", "rows": error.rows, "step": error.step_number}
    if isinstance(error, StepError):
        return {"kind": "refused", "fact": error.fact, "command": error.command}
    return {"kind": "failed", "at": time.monotonic(), "text": f"{type(error).__name__}: {error}"}


def _work(folder: Path, tell: Tell) -> None:
    from runner.training import single, world

    spec = handing.spec_of(folder)
    world.join()
    context = _context(folder, spec, tell if world.rank() == 0 else _silent)
    dataset = products.restore_dataset(folder / handing.DATASET, {})
    with suppress(Stopped):  # the process that started this one says so
        given = Path(spec["adapter"]) if spec["adapter"] else None
        source, options = handing.open_model(folder), spec["options"]
        learned = single.train(source, dataset, options, context, given)
        if world.rank() == 0:
            _write(learned, folder / handing.RESULT)
            tell("facts", facts=context.facts)
    world.wait()
    world.leave()


def _context(folder: Path, spec: dict[str, Any], tell: Tell) -> Context:
    """The context of a step, whose every word goes to the process that started this one."""

    def note(text: str) -> None:
        tell("note", text=text)

    def stop_signal() -> str | None:
        with suppress(FileNotFoundError):
            return (folder / handing.STOP).read_text(encoding="utf-8")
        return None

    return Context(
        draft=folder,
        checkpoint=Checkpoints(Path(spec["checkpoints"]), note),
        progress=lambda done, total, unit, **figures: tell(
            "progress", done=done, total=total, unit=unit, figures=figures
        ),
        note=note,
        metrics=lambda row: tell("metrics", row=dict(row)),
        stop_signal=stop_signal,
        measured=spec["measured"],
        about=spec["about"],
    )


def _write(learned: Model, target: Path) -> None:
    """Write what was trained into a folder that is whole or not there."""
    from runner.training import taught

    unfinished = target.with_name(f"{target.name}.unfinished")
    files.remove(unfinished)
    files.remove(target)
    unfinished.mkdir()
    taught.write(learned, unfinished)
    unfinished.rename(target)


def _teller(file: TextIO) -> Tell:
    def tell(kind: str, **what: Any) -> None:
        file.write(json.dumps({"kind": kind, **what}) + "\n")

    return tell


def _silent(kind: str, **what: Any) -> None:
    """What only the first process says."""


if __name__ == "__main__":
    main()
