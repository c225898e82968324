"""`runner reproduce`: make a run or a published model again from nothing, and compare."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from runner.report.folder import Run
    from runner.reproducing.original import Original
    from runner.reproducing.results import Repeated


def _reproduce(words: Sequence[str]) -> int:
    from runner.reproducing import original as originals
    from runner.reproducing import place, results

    given = _parser().parse_intermixed_args(words)
    original = originals.find(given.original, given.runs)
    to = given.to or Path("reproduced") / original.name / time.strftime("%Y-%m-%dT%H-%M-%S")
    made: list[Run] = []
    for folder in [to / "1", to / "2"] if given.verify else [to]:
        recipe = place.lay_out(original, folder, given.overrides)
        code, run = _carry_out(recipe, given.overrides)
        if run is None:
            print(f"to go on: runner reproduce {' '.join([*words, *_to(words, to)])}")
            return code
        made.append(run)
    found = [(each, results.repeated(original, each, given.tolerance)) for each in made]
    for each, rows in found:
        print(f"\n{original.place.name} and {each.folder}")
        print("\n".join(_lines(original, each, rows)))
    faults = [row for _, rows in found for row in rows if row.verdict is results.Verdict.DIFFERS]
    if given.verify:
        faults += _twice(made, given.tolerance)
    return 1 if faults else 0


def _to(words: Sequence[str], to: Path) -> list[str]:
    return [] if "--to" in words else ["--to", str(to)]


def _carry_out(recipe: Path, overrides: Sequence[str]) -> "tuple[int, Run | None]":
    """Run the recipe in a process of its own; its exit code, and the run where all was done."""
    import sys

    from runner import surroundings
    from runner.report import folder as folders

    runs = recipe.parent / "runs"
    command = ["-m", "runner", "run", str(recipe), *overrides, "--locked", "--runs", str(runs)]
    code = surroundings.call([sys.executable, *command])
    newest = next(folders.below(runs), None)
    is_done = newest is not None and all(step.done for step in newest.steps)
    return code, newest if is_done else None


def _lines(original: "Original", run: "Run", rows: "list[Repeated]") -> list[str]:
    from runner.reproducing import results

    width = max(len(row.step) for row in rows)
    table = [f"  {row.step:<{width}}  {row.verdict:<7}  {row.said}".rstrip() for row in rows]
    return [*table, *results.explained(original, run, rows)]


def _twice(made: "Sequence[Run]", tolerance: float) -> "list[Repeated]":
    """Whether both runs of this machine gave the same."""
    from runner.reproducing import original as originals
    from runner.reproducing import results

    first, second = made
    rows = results.repeated(originals.find(str(first.folder), Path()), second, tolerance)
    other = [row for row in rows if row.verdict is not results.Verdict.EQUAL]
    print("\ntwice on this machine")
    if not other:
        print("  equal, byte for byte")
        return []
    for row in other:
        print(f"  {row.step}  {row.verdict}  {row.said}")
    print(
        "  Say `deterministic: true` at the top of the recipe: training takes no other algorithms"
    )
    return [row for row in other if row.verdict is results.Verdict.DIFFERS]


def _parser() -> "ArgumentParser":
    from argparse import ArgumentParser

    from runner.reproducing.results import TOLERANCE

    parser = ArgumentParser(
        "runner reproduce",
        description="Make a run or a saved model again, from the same sources, options and seeds,"
        " in an empty store, and compare each step's result; exit 1 where one differs.",
    )
    parser.add_argument(
        "original",
        help="a run's folder or name, a recipe for its newest run, a saved model's folder, or the"
        " lineage.json in it",
    )
    parser.add_argument(
        "overrides", nargs="*", help="where its files are now: fetch.data.path=rows.jsonl"
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="an empty folder for all of it")
    parser.add_argument("--verify", action="store_true", help="do it twice, and compare these too")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help=f"what numbers may differ by, of the largest beside them ({TOLERANCE})",
    )
    parser.add_argument("--runs", default="runs", type=Path, help="where the runs are (runs)")
    return parser


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"reproduce": _reproduce}
