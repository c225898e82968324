"""What Python and notebooks call: the command line's work, with the command line's objects."""

import time
from collections.abc import Collection
from pathlib import Path

from runner import hardware, network, opened, running
from runner.errors import Problem, RecipeError
from runner.events import Outcome, Tell
from runner.opened import Run
from runner.plan import Plan
from runner.report import folder as folders
from runner.report import terminal
from runner.run_folder import RunFolder
from runner.scoring.gates import Unmet
from runner.store import Store


def run(
    recipe: str | Path,
    *overrides: str,
    fresh: Collection[str] = (),
    locked: bool = False,
    quiet: bool = False,
    tell: Tell | None = None,
    runs: str | Path = "runs",
) -> Run:
    """Run a recipe as `runner run` does; finished steps are reused.

    A recipe is a name from `runner list` or a YAML file, an override is Hydra's
    (`"adapt.rank=16"`); `fresh` names steps to run again, or holds "all", and `locked` refuses
    what the lock file does not pin. Each line goes to standard output, unless `quiet`; `tell` is
    called with every event (`runner/events.py`) instead.

    RecipeError before any work where the recipe is at fault, StepError where a step cannot do its
    work, Unmet where all is done and a figure is not what the recipe requires (`open_run` then
    opens the run), Stopped by a signal: the same call goes on from there.
    """
    begun, words = time.monotonic(), [str(recipe), *overrides]
    planned, store = _prepared(words, fresh, locked=locked)
    running.insist_on_means(planned, store)
    folder = RunFolder(planned, Path(runs), ["run", *words])
    if tell:
        running.carry_out_in(folder, store, tell)
    else:
        carry_out_shown(folder, store, "quiet" if quiet else "", begun)
    return opened.read(folder.folder)


def plan_of(
    recipe: str | Path, *overrides: str, fresh: Collection[str] = (), locked: bool = False
) -> Plan:
    """What `run` would do, and why: the verdict and the reason of every step.

    RecipeError where the recipe is at fault.
    """
    return _prepared([str(recipe), *overrides], fresh, locked=locked)[0]


def open_run(run: str | Path, runs: str | Path = "runs") -> Run:
    """A run by its folder, by its name in `runner runs`, or a recipe's newest.

    RecipeError where there is none.
    """
    return opened.read(folders.find(str(run), Path(runs)))


def carry_out_shown(
    folder: RunFolder, store: Store, form: str, begun: float, *, summary: bool = True
) -> list[Outcome]:
    """Carry out the plan of a run's folder, shown on standard output in one of `screen`'s forms.

    `begun` is what the monotonic clock said when it was asked for. Unmet, once the summary is
    shown, where a figure is not what a step requires.
    """
    unmet: Unmet | None = None
    with terminal.own_stdout() as stream:
        try:
            with terminal.screen(folder.plan, stream, form) as tell:
                outcomes = running.carry_out_in(folder, store, tell)
        except Unmet as error:  # all was done, so what came out is shown first
            unmet, outcomes = error, error.outcomes
        seconds, peak = time.monotonic() - begun, hardware.peak_memory()
        lines = terminal.summary(outcomes, seconds, peak) if summary and not form else ()
        stream.writelines(f"{line}\n" for line in lines)
    if unmet:
        raise unmet
    return outcomes


def _prepared(words: list[str], fresh: Collection[str], *, locked: bool) -> tuple[Plan, Store]:
    if isinstance(fresh, str):
        fact, guess = f'fresh="{fresh}" is a text, and it takes a list.', f'fresh=["{fresh}"]'
        raise RecipeError([Problem("", fact, f"Write {guess}.")])
    if network.is_forbidden():  # by RUNNER_OFFLINE: libraries are told too
        network.forbid()
    name, *overrides = words
    return running.prepare(name, overrides, fresh, locked=locked)
