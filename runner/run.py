"""One execution of a recipe: compose, plan, execute, and the folder that it leaves under runs/."""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import yaml

from runner import files, hardware, lineage, products, provenance, room, upkeep
from runner import lock as locks
from runner.compose import compose
from runner.errors import (
    EXPLAINED,
    Problem,
    RecipeError,
    RunnerError,
    Stopped,
    did_you_mean,
    listing,
    writing,
)
from runner.events import Dropped, Event, Finished, Measured, Noted, Outcome, Started, Tell
from runner.execute import execute
from runner.lease import lease
from runner.origins import short
from runner.plan import Plan, Verdict, plan
from runner.recipe import Recipe
from runner.report.folder import ALIVE
from runner.scoring import gates
from runner.secrets import mask, masked
from runner.stages import known
from runner.store import Store, default_root

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
TRACKERS = "trackers"
"""Beside the folders of a recipe's runs: what experiment trackers keep of all of them."""
QUIET = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare(
    name: str,
    overrides: Sequence[str],
    fresh: Collection[str] = (),
    *,
    locked: bool = False,
    bundle: Path | None = None,
) -> tuple[Plan, Store]:
    """Compose and plan a recipe, with the lock file beside it if there is one.

    `fresh` names steps to run again, or holds "all". With `locked`, a lock file that is missing
    or does not fit is a RecipeError. What a `bundle` carries is put into the store first.
    """
    recipe = compose(name, overrides, known())
    store, lock = store_of(recipe), locks.read(recipe.path)
    steps, rows = _fresh_steps(recipe, fresh), locks.locked(lock)
    planned = plan(recipe, store, steps, rows)
    if bundle:
        from runner import bundle as bundles

        if bundles.take(bundle, planned, store):
            planned = plan(recipe, store, steps, rows)
    moved = tuple(locks.drift(lock, locks.rows(planned.recipe))) if lock else ()
    if locked and (moved or not lock):
        raise RecipeError(unlocked(name, locks.path_of(recipe.path), moved))
    if lock:
        moved = (*moved, *(f"libraries: {each}" for each in locks.library_drift(lock)))
    notes = tuple(f"not as in the lock file: {each}" for each in moved)
    return replace(planned, notes=(*planned.notes, *notes), lock=lock.path if lock else None), store


def unlocked(name: str, path: Path, moved: Sequence[str]) -> list[Problem]:
    """Why --locked refuses."""
    if not moved:
        return [Problem(short(path), "there is no lock file.", command=f"runner lock {name}")]
    see = f"See: runner lock {name} --check"
    return [Problem(short(path), f"{each}.", command=see) for each in moved]


def store_of(recipe: Recipe) -> Store:
    """The store that a recipe uses."""
    return Store(recipe.store or default_root())


def _fresh_steps(recipe: Recipe, fresh: Collection[str]) -> set[str]:
    names = [step.name for step in recipe.steps]
    if "all" in fresh:
        return set(names)
    problems = [
        Problem(
            "--fresh", f'there is no step "{name}".', did_you_mean(name, names) or listing(names)
        )
        for name in fresh
        if name not in names
    ]
    if problems:
        raise RecipeError(problems)
    return set(fresh)


class RunFolder:
    """runs/<recipe>/<time>/: the resolved recipe, a record of every step, figures, a log, links."""

    def __init__(self, planned: Plan, root: Path, words: Sequence[str]) -> None:
        self.plan, self.words, self.begun = planned, words, time.time()
        self.folder = _new_folder(root / planned.recipe.name)
        self.steps: dict[str, dict[str, Any]] = {}
        self.running: list[str] = []
        text = yaml.safe_dump(dict(planned.recipe.plain), sort_keys=False, allow_unicode=True)
        with writing(self.folder):
            (self.folder / "recipe.yaml").write_text(text, encoding="utf-8")
            path = self.folder / "log.txt"
            self.log = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def hear(self, event: Event) -> None:
        """Keep what an event says. Progress is for the screen only."""
        match event:
            case Started(planned):
                self.running.append(planned.step.name)
                self._write("unfinished")  # for those who watch
                self._say(f"{planned.step.name}: {planned.verdict}: {planned.reason}")
            case Noted(step, text):
                self._say(f"{step}: {text}" if step else text)
            case Measured(step, row):
                with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                    file.write(json.dumps(masked({"of": step, **row})) + "\n")
            case Finished(outcome):
                self._keep(outcome)
            case Dropped(step, size):
                (self.folder / "products" / step).unlink(missing_ok=True)
                self._say(f"{step}: {files.human_bytes(size)} dropped")

    def _keep(self, outcome: Outcome) -> None:
        """The record of a step that is done, and a link to its product."""
        name, record = outcome.planned.step.name, outcome.entry.record
        self.running = [each for each in self.running if each != name]
        self.steps[name] = {
            "key": outcome.planned.key,
            "verdict": str(outcome.verdict),
            "reason": outcome.reason,
            "seconds": round(outcome.seconds, 3),
            "peak_memory": hardware.peak_memory(),
            "made_in_seconds": record["seconds"],
            **{part: record[part] for part in ("digest", "made", "facts", "versions")},
        }
        links = self.folder / "products"
        links.mkdir(exist_ok=True)
        if not outcome.planned.dropped:
            with suppress(FileExistsError):
                (links / name).symlink_to(outcome.entry.product)
        if outcome.verdict is not Verdict.REUSE:  # so that a kill leaves what was done so far
            self._write("unfinished")
        elif outcome.entry.metrics.exists():
            products.place(outcome.entry.metrics, self.folder / "metrics" / f"{name}.jsonl")
        self._say(f"{name}: {outcome.verdict} ({outcome.seconds:.2f} s): {outcome.reason}")

    def close(self, ending: str) -> None:
        """Write how the run ended; the last thing that is written."""
        self._write(ending)
        self._say(f"run: {ending}")
        self.log.close()
        self._clean_log()

    def _clean_log(self) -> None:
        """Hide secrets in what libraries have printed into the log."""
        path = self.folder / "log.txt"
        text = path.read_text(encoding="utf-8", errors="replace")
        if mask(text) != text:
            path.write_text(mask(text), encoding="utf-8")

    def _write(self, ending: str) -> None:
        record = {
            "recipe": self.plan.recipe.name,
            "ending": ending,
            **provenance.of_run(self.words, self.begun),
            "peak_memory": hardware.peak_memory(),
            "plan": provenance.of_plan(self.plan),
            "running": self.running,
            "sources": locks.rows(self.plan.recipe),
            "steps": self.steps,
        }
        with writing(self.folder):
            files.write_json(self.folder / "record.json", masked(record))

    def _say(self, text: str) -> None:
        self.log.write(f"{time.strftime('%H:%M:%S')} {mask(text)}\n")


def carry_out(
    planned: Plan, store: Store, screen: Tell, root: Path, words: Sequence[str] = ()
) -> list[Outcome]:
    """Run a plan and leave its folder under `root`; `words` is the command that asked for it.

    Unmet, once all is done and kept, where a figure is not what a step requires.
    """
    room.outlook(planned, store).insist()
    room.check_leave(planned, store)
    room.check_memory(planned, store)
    if planned.lock:
        upkeep.keep_for_lock(store, planned.lock, [each.key for each in planned.steps])
    folder = RunFolder(planned, root, words)

    def tell(event: Event) -> None:
        if isinstance(event, Noted):
            event = Noted(event.step, mask(event.text))
        folder.hear(event)
        screen(event)

    ending, failure, alive = "failed", None, ExitStack()
    try:
        if planned.work:
            alive.enter_context(lease(folder.folder / ALIVE, lambda _: None))
            alive.enter_context(upkeep.using(store, [each.key for each in planned.steps]))
            tell(Noted("", _prepared(folder.folder)))
        for note in planned.notes:
            tell(Noted("", note))
        with (
            signals() as stop_signal,
            _into(folder.log, active=bool(planned.work)),
        ):
            outcomes = execute(planned, store, tell, stop_signal, folder.folder.parent / TRACKERS)
        _insist(outcomes)
        ending = "finished"
        return outcomes
    except BaseException as error:
        ending, failure = f"ended by {type(error).__name__}: {error}", error
        raise
    finally:
        folder.close(ending)
        if isinstance(failure, Exception) and not isinstance(failure, Stopped):
            _explain(folder.folder, planned, failure)
        _report(folder.folder, screen, whole=bool(planned.work) or ending != "finished")
        alive.close()


def _prepared(folder: Path) -> str:
    """Make the process ready for libraries; gives the hardware in words."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    # libraries of the first step may import trackio, which reads this then and never again
    os.environ.setdefault("TRACKIO_DIR", str((folder.parent / TRACKERS / "trackio").resolve()))
    return hardware.prepare()


def _insist(outcomes: Sequence[Outcome]) -> None:
    """Unmet where what was measured, now or by an earlier run, is not what is required now."""
    if problems := lineage.unmet(outcomes):
        raise gates.Unmet(problems, outcomes)


def _explain(folder: Path, planned: Plan, error: Exception) -> None:
    """Write the page of a failure, and have the error name it."""
    from runner.report import failure

    with suppress(OSError, RunnerError):  # the error itself is what must be told
        error.add_note(f"{EXPLAINED}{failure.write(folder, planned, error)}")


def _report(folder: Path, screen: Tell, *, whole: bool) -> None:
    """Write the run's report; what goes wrong with it is said, and breaks nothing."""
    said = f"run folder: {short(folder)}"
    try:
        if whole:
            from runner.report import html

            html.write(folder)
        else:
            from runner.report import brief

            brief.write(folder)
        said += ", with report.html"
    except Exception as error:
        said += f"; its report could not be made: {type(error).__name__}: {mask(str(error))}"
    screen(Noted("", said))


@contextmanager
def signals() -> Iterator[Callable[[], str | None]]:
    """Note the first signal, for the running step to see; a second Ctrl-C stops at once."""
    seen: list[str] = []

    def note(number: int, _: FrameType | None) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: seen[0] if seen else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _into(log: TextIO, *, active: bool) -> Iterator[None]:
    """Send what libraries print, from Python or C, to the log; the screen keeps its own handle."""
    if not active:
        yield
        return
    logging.captureWarnings(True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        os.close(kept[0])
        os.close(kept[1])
        logging.captureWarnings(False)


def _new_folder(parent: Path) -> Path:
    """A folder named by the time, that no other run has."""
    stamp, count = time.strftime("%Y-%m-%dT%H-%M-%S"), 1
    while True:
        folder = parent / (stamp if count == 1 else f"{stamp}-{count}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError as error:
            if parent.is_file():
                raise RunnerError(f"{parent} is a file; runs are kept in a folder.") from error
            count += 1
        except OSError as error:
            raise RunnerError(f"{parent}: cannot keep the run: {error.strerror}.") from error
