"""One execution of a recipe: compose and plan it, then do all that the plan says."""

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from runner import hardware, lineage, room, upkeep
from runner import lock as locks
from runner.composing import compose
from runner.errors import (
    EXPLAINED,
    Problem,
    RecipeError,
    RunnerError,
    Stopped,
    did_you_mean,
    listing,
)
from runner.events import Event, Noted, Outcome, Tell
from runner.execute import execute
from runner.lease import lease
from runner.looking import insist as insist_on_sources
from runner.origins import short
from runner.plan import Plan, plan
from runner.recipe import Recipe
from runner.report.folder import ALIVE
from runner.run_folder import RunFolder
from runner.scoring import gates
from runner.secrets import mask
from runner.stages import known
from runner.store import Store, default_root
from runner.surroundings import output_into, signals

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
    return settle(recipe, name, fresh, locked=locked, bundle=bundle)


def settle(
    recipe: Recipe,
    name: str,
    fresh: Collection[str] = (),
    *,
    locked: bool = False,
    bundle: Path | None = None,
) -> tuple[Plan, Store]:
    """Plan a composed recipe, called by that name, likewise."""
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


def carry_out(
    planned: Plan, store: Store, screen: Tell, root: Path, words: Sequence[str] = ()
) -> list[Outcome]:
    """Run a plan and leave its folder under `root`; `words` is the command that asked for it.

    Unmet, once all is done and kept, where a figure is not what a step requires.
    """
    insist_on_means(planned, store)
    return carry_out_in(RunFolder(planned, root, words), store, screen)


def insist_on_means(planned: Plan, store: Store) -> None:
    """StoreError or StepError where disk, memory, others or sources do not let a plan be done."""
    room.outlook(planned, store).insist()
    room.check_leave(planned, store)
    insist_on_sources(planned, store)
    room.check_memory(planned, store)


def carry_out_in(folder: RunFolder, store: Store, screen: Tell) -> list[Outcome]:
    """Run the plan of a run's folder, likewise."""
    planned = folder.plan
    if planned.lock:
        upkeep.keep_for_lock(store, planned.lock, [each.key for each in planned.steps])

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
            tell(Noted("", _prepared(folder)))
        for note in planned.notes:
            tell(Noted("", note))
        with (
            signals() as stop_signal,
            output_into(folder.log, active=bool(planned.work)),
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


def _prepared(folder: RunFolder) -> str:
    """Make the process ready for libraries; gives the hardware in words."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    # libraries of the first step may import trackio, which reads this then and never again
    place = (folder.folder.parent / TRACKERS / "trackio").resolve()
    os.environ.setdefault("TRACKIO_DIR", str(place))
    if any(getattr(p.step.options, "deterministic", False) for p in folder.plan.work):
        # torch reads it where a GPU is first used, be that in a step before the training
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
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
