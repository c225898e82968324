"""`runner watch`: how far a run is, from another terminal."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def _watch(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner.report import failure, folder, watching

    parser = ArgumentParser(
        "runner watch", description="Follow a run until it ends, by its folder alone."
    )
    parser.add_argument("run", nargs="?", help="as in `runner runs`; the newest where left out")
    parser.add_argument("--runs", default="runs", type=Path, help="where the runs are (runs)")
    parser.add_argument("--once", action="store_true", help="say how far it is, and end")
    given = parser.parse_args(words)
    place = folder.find(given.run, given.runs) if given.run else _newest(given.runs)
    run = folder.read(place) if given.once else watching.follow(place, sys.stdout)
    if given.once or not sys.stdout.isatty():
        print("\n".join(watching.table(run)))
    if given.once and run.ending == "running":
        return 0
    if (place / failure.NAME).is_file():
        print(f"\n{failure.for_terminal(place / failure.NAME)}")
    return watching.CODES.get(run.ending, 1)


def _newest(runs: Path) -> Path:
    from runner.errors import Problem, RecipeError
    from runner.report import folder

    newest = next(folder.below(runs), None)
    if newest is None:
        raise RecipeError([Problem("", f"{runs} has no runs.", command="See: runner run --help")])
    return newest.folder


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"watch": _watch}
