"""`runner runs`, `diff`, `report` and `rm`: what has been run, and what can be asked of it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from runner.errors import Problem
    from runner.report.folder import Run

HEAD = {
    "run": "run",
    "ending": "ending",
    "steps_run": "steps run",
    "reused": "reused",
    "seconds": "seconds",
    "scores": "",
}
NUMBERS = ("steps_run", "reused", "seconds")


def _runs(words: Sequence[str]) -> int:
    from itertools import islice

    from runner.report import folder

    parser = _parser("runs", "What has been run, the newest first.")
    parser.add_argument("recipe", nargs="?", help="only runs of this recipe")
    parser.add_argument("--last", type=int, metavar="N", help="only so many")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(words)
    rows = [_row(run) for run in islice(folder.below(given.runs, given.recipe), given.last)]
    if given.json:
        import json

        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print("\n".join(_table(rows)) if rows else f"{given.runs} has no runs")
    return 0


def _report(words: Sequence[str]) -> int:
    from runner.report import folder, html

    parser = _parser("report", "Make the report of a run again, from its folder.")
    parser.add_argument("run", help="a run's folder, or a recipe's name for its newest run")
    given = parser.parse_args(words)
    print(html.write(folder.find(given.run, given.runs)))
    return 0


def _diff(words: Sequence[str]) -> int:
    from runner.report import comparing, folder

    parser = _parser("diff", "What differs between two runs; what explains it comes first.")
    for name in ("before", "after"):
        parser.add_argument(name, help="a run, as in `runner runs`, or a recipe for its newest run")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(words)
    runs = [folder.read(folder.find(name, given.runs)) for name in (given.before, given.after)]
    found = comparing.compare(*runs)
    if given.json:
        import json

        print(json.dumps(found.plain(), indent=1, ensure_ascii=False))
    else:
        print("\n".join(comparing.lines(found)))
    return 0


def _rm(words: Sequence[str]) -> int:
    from runner import files
    from runner.errors import RecipeError
    from runner.report import folder

    parser = _parser(
        "rm", "Remove runs' folders; the results stay in the store, and what is pinned."
    )
    parser.add_argument("run", nargs="+", help="a run's folder, or its name in `runner runs`")
    given = parser.parse_args(words)
    found = {name: folder.exactly(name, given.runs) for name in dict.fromkeys(given.run)}
    problems = [_not_removable(name, path) for name, path in found.items()]
    if any(problems):
        raise RecipeError(filter(None, problems))
    for path in filter(None, found.values()):
        files.remove(path)
        print(path)
    return 0


def _not_removable(name: str, path: Path | None) -> "Problem | None":
    """Why a run cannot be removed."""
    from runner.errors import Problem
    from runner.report import folder

    if path is None:
        return Problem("", f"{name} is no run.", command="See: runner runs")
    if folder.read(path).ending == "running":
        return Problem("", f"{name} is going on; stop it first.")
    return None


def _parser(command: str, description: str) -> "ArgumentParser":
    from argparse import ArgumentParser

    parser = ArgumentParser(f"runner {command}", description=description)
    parser.add_argument("--runs", default="runs", type=Path, help="where the runs are (runs)")
    return parser


def _row(run: "Run") -> dict[str, Any]:
    """What one line says of a run."""
    return {
        "run": f"{run.folder.parent.name}/{run.folder.name}",
        "recipe": run.name,
        "begun": run.record.get("begun"),
        "ending": run.ending,
        "steps_run": run.worked,
        "reused": len(run.keys) - run.worked,
        "seconds": round(run.seconds, 1),
        "scores": run.scores,
    }


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    lines = [HEAD, *({**row, "scores": _scores(row["scores"])} for row in rows)]
    width = {name: max(len(str(line[name])) for line in lines) for name in HEAD}
    for line in lines:
        cells = (
            f"{line[name]!s:>{width[name]}}" if name in NUMBERS else f"{line[name]:<{width[name]}}"
            for name in HEAD
        )
        yield "  ".join(cells).rstrip()


def _scores(scores: dict[str, Any]) -> str:
    """The first figures of each kind, the last of each first: those of the finished model."""
    found = []
    for facts in scores.values():
        for name, value in facts.items():
            if isinstance(value, dict):
                value = next((each for each in reversed(value.values())), None)
            if isinstance(value, (int, float)):
                found.append(f"{name.replace('_', ' ')} {value:.4g}")
    return ", ".join(found[:2])


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "runs": _runs,
    "diff": _diff,
    "report": _report,
    "rm": _rm,
}
