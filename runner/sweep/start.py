"""A sweep from its words to its end: found or planned, written down, launched, collected."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import files, launch, running, upkeep
from runner import lock as locks
from runner.changes import Axis
from runner.compose import compose
from runner.errors import Problem, RecipeError, Stopped, did_you_mean, listing, writing
from runner.launch import Order, local, ray, seat, slurm
from runner.lease import lease
from runner.origins import short
from runner.overriding import as_word, axes
from runner.recipe import Recipe
from runner.stage import Facts
from runner.stages import known
from runner.sweep import manifest as manifests
from runner.sweep import standing
from runner.sweep.checks import OF_ALL
from runner.sweep.expand import expand
from runner.sweep.graph import Graph
from runner.sweep.manifest import Manifest
from runner.sweep.settings import Sweep

if TYPE_CHECKING:
    from runner.sweep.search import Search

LAUNCHERS: Mapping[str, launch.Launcher] = {"local": local, "ray": ray, "slurm": slurm}


@dataclass(frozen=True)
class Sweeping:
    """A sweep and the folder that it has, or will have once it starts."""

    manifest: Manifest
    folder: Path


def prepare(
    name: str, words: Sequence[str], root: Path, *, extend: bool = False, locked: bool = False
) -> Sweeping:
    """Plan a sweep of a recipe, or find the one that has its jobs already.

    `name` may also be a sweep, which then goes on as it was written down. With `extend`, the words
    add values to a sweep: to the recipe's newest, where `name` is a recipe. With `locked`, a lock
    file that is missing or does not fit every job is a RecipeError.
    """
    sweeping = _prepared(name, words, root, extend)
    if locked:
        _insist_on_lock(name, sweeping.manifest)
    return sweeping


def _prepared(name: str, words: Sequence[str], root: Path, extend: bool) -> Sweeping:
    old = find(name, root, also_recipes=extend)
    if old is None:
        planned = _planned(name, words)
        there = _newest(root.glob(f"{planned.recipe}/*-{planned.id}"))
        if there is None:
            stamp = time.strftime("%Y-%m-%dT%H-%M-%S")
            return Sweeping(planned, root / planned.recipe / f"{stamp}-{planned.id}")
        return Sweeping(manifests.joined(_loaded(there), planned), there)
    manifest = _loaded(old)
    if extend and manifest.settings.search != "grid":
        fact = "--extend adds values to a grid, and this is a search."
        guess = "Give the same command with more sweep.trials: what is done is done."
        raise RecipeError([Problem(short(old), fact, guess)])
    if extend:
        more = _planned(str(manifest.path), _with_more(manifest, words))
        return Sweeping(manifests.joined(manifest, more), old)
    if words:
        fact = f"{short(old)} is a sweep, and its jobs are written down."
        guess = "Add values with --extend, or start a new sweep by its recipe's name."
        raise RecipeError([Problem(f'override "{words[0]}"', fact, guess)])
    return Sweeping(manifest, old)


def _insist_on_lock(name: str, manifest: Manifest) -> None:
    """RecipeError where a job's sources are not those of the lock file."""
    lock, stages = locks.read(manifest.path), known()
    pinned = [
        locks.rows(Recipe(manifest.recipe, manifest.path, (row.step(stages),), {}))
        for row in manifest.rows
    ]
    moved: dict[str, None] = {}
    for job in manifest.jobs:
        now = {step: pins for number in job.rows for step, pins in pinned[number].items()}
        moved |= dict.fromkeys(locks.drift(lock, now) if lock else ())
    if moved or not lock:
        raise RecipeError(running.unlocked(name, locks.path_of(manifest.path), [*moved]))


def _planned(name: str, words: Sequence[str]) -> Manifest:
    expansion = expand(name, words, known())
    return manifests.plan(expansion, words, _locked(expansion.jobs[0].recipe.path))


def _locked(recipe: Path) -> Mapping[str, Facts]:
    """What the lock file says of every step."""
    return locks.locked(locks.read(recipe))


def _loaded(folder: Path) -> Manifest:
    found = manifests.load(folder)
    if found is None:
        raise RecipeError([Problem(short(folder), "its manifest cannot be read.")])
    return found


def find(name: str, root: Path, *, also_recipes: bool = True) -> Path | None:
    """The folder of a sweep: named by its path, by (the beginning of) its id, by its recipe."""
    given = Path(name)
    if (given / manifests.NAME).is_file():
        return given
    every = [path.parent for path in root.glob(f"*/*/{manifests.NAME}")]
    by_id = [each for each in every if _id(each).startswith(name)]
    if len({_id(each) for each in by_id}) == 1 and len(name) >= 4:
        return _newest(by_id)
    return _newest(each for each in every if also_recipes and each.parent.name == given.stem)


def _id(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def _newest(folders: Iterable[Path]) -> Path | None:
    """A sweep's folder begins with the time of its first start."""
    return max(folders, key=lambda each: each.name, default=None)


def found(name: str, root: Path) -> tuple[Manifest, Path]:
    """A sweep that must be there; RecipeError where it is not."""
    folder = find(name, root)
    if folder is None:
        names = sorted({path.parent.parent.name for path in root.glob(f"*/*/{manifests.NAME}")})
        guess = did_you_mean(name, names) or f"There are sweeps of: {listing(names)}."
        raise RecipeError([Problem("", f'there is no sweep "{name}" in {root}.', guess)])
    return _loaded(folder), folder


def _with_more(manifest: Manifest, words: Sequence[str]) -> list[str]:
    """The words of a sweep with the values that others add to them."""
    name = str(manifest.path)
    old = {axis.key: axis for axis in axes(name, manifest.words)}
    settings = compose(name, [axis.changes[0].text for axis in old.values()], known()).sweep
    for key, value in ((settings or Sweep()).params or {}).items():
        for axis in axes(name, [as_word(key, value)]) if key not in old else ():
            old[key] = axis
    for axis in axes(name, words):
        before = old[axis.key].changes if axis.key in old else ()
        if axis.key.split(".")[0] in OF_ALL:
            before = ()
        added = (each for each in axis.changes if each not in before)
        old[axis.key] = Axis(axis.key, (*before, *added))
    return [_word(axis) for axis in old.values()]


def _word(axis: Axis) -> str:
    first, *others = (change.text for change in axis.changes)
    return ",".join([first, *(text.partition("=")[2] for text in others)])


def carry_out(
    sweeping: Sweeping,
    done: Collection[str],
    tell: launch.Tell,
    stop_signal: Callable[[], str | None],
    *,
    follow: bool = True,
) -> list[launch.Failure]:
    """Make what is not done of a sweep, and give what could not be made.

    `done` are the keys of what need not be made. Where it is not to `follow`, a cluster that keeps
    jobs is given them, and that is all.
    Stopped where a signal asked for the end.
    """
    manifest, folder, kind = sweeping.manifest, sweeping.folder, sweeping.manifest.launch.kind
    if manifest.frozen and not follow:
        fact = "a search proposes jobs as scores come in, and cannot be left alone."
        raise RecipeError(
            [Problem("--detach", fact, "Leave it out; a search goes on after a kill.")]
        )
    if not (follow or LAUNCHERS[kind].KEEPS):
        fact = f"jobs of launch={kind} end with the program that gives them out."
        raise RecipeError([Problem("--detach", fact, "Those of launch=slurm go on.")])
    LAUNCHERS[kind].check()
    if manifest.frozen:
        return _search(sweeping, tell, stop_signal)
    if manifests.load(folder) != manifest:
        manifests.save(manifest, folder)
    store, keys = standing.store_of(manifest), [*manifest.keys]
    upkeep.keep_for_lock(store, folder / manifests.NAME, keys)
    if len(done) == len(keys):
        return []
    graph = Graph(manifest, known(), done)
    with upkeep.using(store, keys):
        return _launch(manifest, folder, graph, tell, stop_signal, follow=follow)


def _launch(
    manifest: Manifest,
    folder: Path,
    graph: Graph,
    tell: launch.Tell,
    stop_signal: Callable[[], str | None],
    search: launch.Search | None = None,
    *,
    follow: bool = True,
) -> list[launch.Failure]:
    order = Order(
        manifest=manifest,
        folder=folder,
        graph=graph,
        store=standing.store_of(manifest),
        stages=known(),
        tell=tell,
        stop_signal=stop_signal,
        workers=_workers(manifest.settings),
        search=search,
        follow=follow,
    )
    LAUNCHERS[manifest.launch.kind].launch(order)
    return order.failures


def _search(
    sweeping: Sweeping, tell: launch.Tell, stop_signal: Callable[[], str | None]
) -> list[launch.Failure]:
    """Go on with a search until it has all its trials; no two processes do so at a time."""
    from runner.sweep.search import LEASE, Search

    folder, settings = sweeping.folder, sweeping.manifest.settings

    def stop_here() -> None:
        if signal_name := stop_signal():
            raise Stopped(signal_name)

    with writing(folder):
        files.make_folder(folder)
    with lease(folder / LEASE, lambda text: tell(launch.Said(0, text)), stop_here):
        manifest = replace(now(sweeping).manifest, settings=settings)
        manifests.save(manifest, folder)
        locked = _locked(manifest.path)
        with Search(manifest, folder, known(), locked, tell, _workers(settings)) as search:
            return _rounds(
                search,
                lambda: _launch(search.manifest, folder, search.graph, tell, stop_signal, search),
            )


def _rounds(search: "Search", launched: Callable[[], list[launch.Failure]]) -> list[launch.Failure]:
    """Launch what a search has asked for until it asks for nothing more.

    A launcher that asks the search itself needs one round, any other a round for each few trials.
    """
    failed: list[launch.Failure] = []
    search.go_on()
    while search.open or search.graph.ready:
        before = [*search.open]
        failed += launched()
        if search.manifest.settings.is_enough(len(failed)):
            break
        search.go_on()
        if search.open == before:
            break
    return failed


def now(sweeping: Sweeping) -> Sweeping:
    """A sweep as its folder has it: a search has added jobs since it was prepared."""
    written = manifests.load(sweeping.folder)
    return replace(sweeping, manifest=written) if written else sweeping


def _workers(settings: Sweep) -> int:
    return seat.places(settings.gpus) if settings.workers == "auto" else settings.workers
