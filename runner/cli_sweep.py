"""`runner sweep`, `runner status` and `runner best`: one recipe with many values."""

import shlex
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.launch import Failure
    from runner.sweep.settings import Direction, Sweep
    from runner.sweep.standing import Standing, Work
    from runner.sweep.start import Sweeping

SHOWN_FAILURES = 20


def _parser(command: str, description: str) -> ArgumentParser:
    parser = ArgumentParser(f"runner {command}", description=description)
    parser.add_argument(
        "--sweeps", default="sweeps", type=Path, help="where the sweeps' folders are (sweeps)"
    )
    return parser


def sweep(words: Sequence[str]) -> int:
    """Run a recipe with many values."""
    from runner import network
    from runner.sweep import start

    parser = _parser("sweep", "Run a recipe with many values; every step that jobs share once.")
    parser.add_argument("recipe", help="a recipe, or a sweep that is to go on")
    parser.add_argument("overrides", nargs="*", help="adapt.rank=4,8 quantize=nf4,int8 seed=1")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--extend", action="store_true", help="add these values to the sweep")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--detach", action="store_true", help="give jobs to Slurm, and leave")
    ending.add_argument("--collect", action="store_true", help="start nothing: what is done now")
    parser.add_argument("--locked", action="store_true", help="only as the lock file says")
    parser.add_argument("--offline", action="store_true", help="use no network at all")
    given = parser.parse_intermixed_args(words)
    if given.offline:
        network.forbid()
    how = {"extend": given.extend, "locked": given.locked}
    sweeping = start.prepare(given.recipe, given.overrides, given.sweeps, **how)
    if given.dry_run:
        print("\n".join(_dry(sweeping)))
        return 0
    if given.collect:
        return _collected(sweeping)
    return _carry_out(sweeping, follow=not given.detach)


def _dry(sweeping: "Sweeping") -> Iterator[str]:
    """The jobs, the distinct steps, and what sharing saves."""
    from runner.stages import known
    from runner.sweep import standing

    manifest, store = sweeping.manifest, standing.store_of(sweeping.manifest)
    entries = standing.done(manifest, store, known())
    for job in manifest.jobs:
        left = sum(row.key not in entries for row in manifest.steps(job))
        said = f"{left} steps to run" if left else "done"
        yield f"{job.id}  {shlex.join(job.overrides)}  ({said})"
    every = standing.names(manifest, manifest.keys)
    done = standing.names(manifest, entries)
    width = max(map(len, every), default=0)
    yield from _search(sweeping)
    yield ""
    yield from (f"{name:<{width}}  {n} distinct, {done[name]} done" for name, n in every.items())
    yield from _left_out(sweeping)
    yield from _sharing(len(manifest.jobs), standing.work(manifest, entries, store))


def _search(sweeping: "Sweeping") -> Iterator[str]:
    """What a search is to do; its jobs are known as they begin."""
    manifest = sweeping.manifest
    if manifest.frozen:
        looked_for = ", ".join(f"{d} {n}" for n, d in manifest.settings.objectives.items())
        yield f"Optuna proposes {manifest.settings.trials} trials: {looked_for}"
        yield from (f"  {name}={value}" for name, value in (manifest.settings.params or {}).items())
        yield from (f"  {word}" for word in manifest.words)


def _left_out(sweeping: "Sweeping") -> Iterator[str]:
    for name in sweeping.manifest.left_out:
        yield f"{name} is left out: jobs would write over one another (see: runner best --help)"


def _sharing(jobs: int, work: "Work") -> Iterator[str]:
    """What there is to do, in steps and as far as known in time."""
    yield f"{jobs} jobs of {work.steps} steps, {work.distinct} of them distinct:"
    yield f"  {work.done} are done, {work.distinct - work.done} to run"
    yield f"  sharing saves {work.shared} steps"
    if work.seconds:
        known = "" if work.is_whole else ", as far as such steps have been timed"
        yield f"  {_time(work.seconds - work.distinct_seconds)} of {_time(work.seconds)}{known}"
        yield f"  left: {_time(work.seconds_left)} of one worker's time"


def _time(seconds: float) -> str:
    """A duration for people."""
    hours, minutes = divmod(round(seconds) // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {round(seconds) % 60} s" if minutes else f"{seconds:.1f} s"


def _collected(sweeping: "Sweeping") -> int:
    """Write and say what is done, and what has failed; to be run again where more is to come."""
    from runner.errors import EXIT_PREEMPTED, Problem, RecipeError
    from runner.origins import short

    if not sweeping.folder.is_dir():
        fact = "this sweep has not been started."
        raise RecipeError([Problem(short(sweeping.folder), fact, "Leave --collect out.")])
    now = _collect(sweeping)
    print("\n".join(_summary(sweeping, now, [*now.failed.values()], None)))
    if now.failed:
        return 1
    return 0 if len(now.entries) == len(now.manifest.keys) else EXIT_PREEMPTED


def _carry_out(sweeping: "Sweeping", *, follow: bool) -> int:
    from runner import surroundings
    from runner.errors import Stopped
    from runner.origins import short
    from runner.report import sweeping as screens
    from runner.stages import known
    from runner.sweep import standing, start

    manifest, begun = sweeping.manifest, time.monotonic()
    store = standing.store_of(manifest)
    entries = standing.done(manifest, store, known())
    print("\n".join(_opening(sweeping, len(entries))), flush=True)
    try:
        with (
            surroundings.signals() as stop_signal,
            screens.screen(manifest, standing.names(manifest, entries), sys.stdout) as tell,
        ):
            failed = start.carry_out(sweeping, entries, tell, stop_signal, follow=follow)
    except Stopped:
        _collect(sweeping)
        raise
    if not follow:
        name = manifest.id if sweeping.folder.name.endswith(manifest.id) else short(sweeping.folder)
        print(f"See: runner status {name}, runner sweep {name} --collect")
        return 0
    now = _collect(sweeping)
    print("\n".join(_summary(sweeping, now, failed, time.monotonic() - begun)))
    return 1 if failed or now.failed else 0


def _opening(sweeping: "Sweeping", done: int) -> Iterator[str]:
    """What is begun or gone on with."""
    from runner.origins import short

    manifest = sweeping.manifest
    yield f"sweep {short(sweeping.folder)}: {len(manifest.jobs)} jobs, {len(manifest.keys)} steps,"
    yield f"  {done} of them done"
    if manifest.frozen:
        yield f"  Optuna proposes jobs until there are {manifest.settings.trials} trials"


def _collect(sweeping: "Sweeping") -> "Standing":
    """Write the table of the jobs, and the page, as they are now."""
    from runner.report import sweep_page
    from runner.stages import known
    from runner.sweep import results, standing, start

    manifest, folder, stages = start.now(sweeping).manifest, sweeping.folder, known()
    now = standing.look(manifest, folder, standing.store_of(manifest), stages)
    rows = results.table(now, stages)
    results.write(rows, folder)
    sweep_page.write(now, rows, folder)
    return now


def _summary(
    sweeping: "Sweeping", now: "Standing", failed: Sequence["Failure"], seconds: float | None
) -> Iterator[str]:
    from runner.origins import short
    from runner.report.sweep_page import NAME as PAGE
    from runner.sweep import results

    counts = ", ".join(f"{count} {state}" for state, count in now.counts().items() if count)
    took = "" if seconds is None else f", in {_time(seconds)}"
    yield f"{len(now.manifest.jobs)} jobs: {counts}{took}"
    yield from _left_out(sweeping)
    yield f"{short(sweeping.folder / PAGE)}; {results.CSV} and {results.PARQUET} beside it"
    for failure in [*failed][:SHOWN_FAILURES]:
        tried = f" (tried {failure.attempts} times)" if failure.attempts > 1 else ""
        jobs = [job for job in now.manifest.jobs if _has(now, job, failure.key)]
        first = shlex.join(jobs[0].overrides)
        more = f" and {len(jobs) - 1} more jobs" if len(jobs) > 1 else ""
        yield f"\n{failure.step}: {failure.cause}: {failure.fact}{tried}\n  in {first}{more}"
        yield from (f"    {line}" for line in failure.lines)


def _has(now: "Standing", job: Any, key: str) -> bool:
    return any(row.key == key for row in now.manifest.steps(job))


def status(words: Sequence[str]) -> int:
    """Say how far a sweep is."""
    import json

    from runner.origins import short
    from runner.report import sweep_page
    from runner.stages import known
    from runner.sweep import results, standing, start

    parser = _parser("status", "How far a sweep is: every job, from any terminal.")
    parser.add_argument("sweep", help="its id, its folder, or a recipe for its newest sweep")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--page", action="store_true", help="write sweep.html as it is now")
    given = parser.parse_args(words)
    manifest, folder = start.found(given.sweep, given.sweeps)
    stages = known()
    now = standing.look(manifest, folder, standing.store_of(manifest), stages)
    rows = results.table(now, stages)
    if given.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    print("\n".join(_lines(rows, [*manifest.settings.objectives])))
    counts = ", ".join(f"{count} {state}" for state, count in now.counts().items() if count)
    print(f"{len(rows)} jobs: {counts}; {len(now.entries)} of {len(manifest.keys)} steps done")
    if manifest.frozen:
        print(f"{len(manifest.trials)} of {manifest.settings.trials} trials begun")
    if given.page:
        print(short(sweep_page.write(now, rows, folder)))
    return 0


def _lines(rows: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> Iterator[str]:
    """The table of the jobs, as wide as its words."""
    from runner.sweep import results

    left = ("job", "peak_memory", "bytes")
    names = [name for name in rows[0] if name not in left and "." not in name] if rows else []
    names = [*dict.fromkeys(["job", *_varied(rows), *names])]
    shown = [{name: str(row.get(name, "")) for name in names} for row in rows]
    for objective in objectives if shown else ():
        for line, row in zip(shown, rows, strict=True):
            found = results.score(row, objective)
            line[objective] = "" if found is None else f"{found:.4g}"
        names = [*(name for name in names[:-1] if name != objective), objective, names[-1]]
    width = {name: max([len(name), *(len(line[name]) for line in shown)]) for name in names}
    yield "  ".join(f"{name:<{width[name]}}" for name in names).rstrip()
    for line in shown:
        yield "  ".join(f"{line[name]:<{width[name]}}" for name in names).rstrip()


def _varied(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options with many values: what stands before the state."""
    names = [*rows[0]] if rows else []
    return names[1 : names.index("state")] if rows else []


def best(words: Sequence[str]) -> int:
    """Print the best job, and the command that saves it; of several scores, all that are best."""
    from runner.stages import known
    from runner.sweep import results, standing, start

    given = _best_parser().parse_args(words)
    manifest, folder = start.found(given.sweep, given.sweeps)
    stages = known()
    now = standing.look(manifest, folder, standing.store_of(manifest), stages)
    objectives = _objectives(given, manifest.settings)
    found = results.best(results.table(now, stages), objectives)
    if len(objectives) > 1:
        print(f"{len(found)} jobs that no other beats in all of: {', '.join(objectives)}")
    jobs = {job.id: job for job in manifest.jobs}
    for row, scores in found:
        job = jobs[row["job"]]
        said = (f"{name} {value:.6g}" for name, value in zip(objectives, scores, strict=True))
        print("  ".join([job.id, *said]))
        print("".join(f"  {name}={row[name]}\n" for name in manifest.varied), end="")
        words = ["runner", "run", _name(manifest.path), *job.overrides]
        print(f"To save it:\n  {shlex.join(words)}")
    return 0


def _best_parser() -> ArgumentParser:
    parser = _parser("best", "The best job of a sweep, and the command that saves it.")
    parser.add_argument("sweep", help="its id, its folder, or a recipe for its newest sweep")
    parser.add_argument(
        "--objective",
        metavar="STEP.FIGURE",
        action="append",
        help="instead of sweep.objective; given again, all that no other job beats are shown",
    )
    parser.add_argument(
        "--direction",
        choices=["maximize", "minimize"],
        action="append",
        help="one for all objectives, or one for each in their order",
    )
    return parser


def _objectives(given: Any, settings: "Sweep") -> "dict[str, Direction]":
    """What to look for: as it was typed, else as the sweep says."""
    from runner.errors import Problem, RecipeError
    from runner.sweep.settings import directed

    names = tuple(given.objective) if given.objective else settings.objective
    said = tuple(given.direction or ())
    directions = said if len(said) > 1 else said[0] if said else settings.direction
    if given.objective and not said and not isinstance(directions, str):
        directions = "maximize"
    try:
        return directed(names, directions)
    except ValueError as error:
        fact = "takes one direction for all objectives, or one for each."
        raise RecipeError([Problem("--direction", fact)]) from error


def _name(path: Path) -> str:
    """A recipe as it is typed: by its name, where that finds it."""
    from runner import places
    from runner.errors import RecipeError
    from runner.origins import short

    try:
        return path.stem if places.find_recipe(path.stem) == path else short(path)
    except RecipeError:
        return short(path)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "sweep": sweep,
    "status": status,
    "best": best,
}
