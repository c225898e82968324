"""What a run's folder says of the run, for those who show it and those who ask in Python."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from runner import files, metrics
from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.lease import is_held
from runner.metrics import Row
from runner.secrets import masked

RECORD, RECIPE, LOG, REPORT = "record.json", "recipe.yaml", "log.txt", "report.html"
ALIVE = "running.lease"
"""Held by the process that carries a run out, for as long as it lives."""


@dataclass(frozen=True)
class RunStep:
    """What became of one step: `said` is its verdict, or why it has none.

    `done` is its row in the run's record; None where it was not done.
    """

    name: str
    stage: str
    gives: str
    inputs: Mapping[str, list[str]]
    said: str
    reason: str
    done: Mapping[str, Any] | None
    run: "Run" = field(repr=False, compare=False)

    @property
    def verdict(self) -> str:
        """`run`, `resume` or `reuse`; of a step that was not done, why it was not."""
        return self.said

    @property
    def record(self) -> Mapping[str, Any]:
        """What the run's record says of it: key, digest, facts, versions; empty if not done."""
        return self.done or {}

    @property
    def facts(self) -> Mapping[str, Any]:
        """The figures of its record; none where it was not done."""
        return self.done["facts"] if self.done else {}

    @property
    def seconds(self) -> float:
        """How long it took in this run: next to nothing where it was reused."""
        return float(self.record.get("seconds", 0.0))

    @property
    def metrics(self) -> list[Row]:
        """What it has measured over time: a row for each training step, with `loss` and others."""
        return self.run.metrics(self.name)


@dataclass(frozen=True)
class Run:
    """One run as its folder has it, presentable: secrets hidden, paths short."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.record.get("recipe", self.folder.parent.name))

    @property
    def ending(self) -> str:
        """How it ended: `finished`, `failed`, or `stopped` by a signal.

        It has not where it is `running`; where nobody is at it any more, it is `unfinished`.
        """
        text = str(self.record.get("ending", "unfinished"))
        if text == "unfinished" and is_held(self.folder / ALIVE):
            return "running"
        if text in ("finished", "unfinished"):
            return text
        return "stopped" if "Stopped:" in text or "KeyboardInterrupt" in text else "failed"

    @property
    def error(self) -> str:
        """What ended it, where that was no good end."""
        text = str(self.record.get("ending", ""))
        return text.removeprefix("ended by ") if self.ending in ("failed", "stopped") else ""

    @cached_property
    def steps(self) -> tuple[RunStep, ...]:
        """Every step of the plan, in order."""
        planned = self.record.get("plan") or [{"step": name} for name in self._done]
        return tuple(map(self._step, planned))

    def step(self, name: str) -> RunStep:
        """The step of that name; RecipeError where there is none."""
        names = [step.name for step in self.steps]
        if name not in names:
            guess = did_you_mean(name, names) or f"The steps are: {listing(names)}."
            raise RecipeError([Problem("", f'the run has no step "{name}".', guess)])
        return self.steps[names.index(name)]

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """By step, the figures of those that score: `{"evaluate": {"exact_match": {...}}}`."""
        return {
            step.name: {name: value for name, value in step.facts.items() if name != "samples"}
            for step in self.steps
            if step.gives == "scores" and step.facts
        }

    @property
    def worked(self) -> int:
        """How many steps it did; the others were reused, or never reached."""
        return sum(row["verdict"] != "reuse" for row in self._done.values())

    @property
    def seconds(self) -> float:
        """How long it took."""
        steps = sum(row["seconds"] for row in self._done.values())
        return float(self.record.get("seconds", steps))

    @property
    def keys(self) -> dict[str, str]:
        """The key of every step that was done or reused."""
        return {name: row["key"] for name, row in self._done.items()}

    def text(self, name: str) -> str:
        """A text file of the folder; empty where it is not there."""
        try:
            found = (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except files.ABSENT:
            return ""
        return str(presentable(found, _here(self.folder)))

    def product(self, step: str) -> Path | None:
        """The folder with a step's product, while the store has it."""
        path = self.folder / "products" / step
        return path.resolve() if path.is_dir() else None

    def metrics(self, step: str) -> list[Row]:
        """What a step has measured, in this run or in the one that made its result."""
        own = [row for row in self._own_rows if row.get("of") == step]
        kept = self.folder / "metrics" / f"{step}.jsonl"
        return metrics.current(_presentable_names(metrics.read(kept)) or own)

    @cached_property
    def _own_rows(self) -> list[Row]:
        return _presentable_names(metrics.read(self.folder / metrics.NAME))

    @property
    def _done(self) -> dict[str, Any]:
        return dict(self.record.get("steps", {}))

    def _step(self, row: Mapping[str, Any]) -> RunStep:
        name = row["step"]
        done = self._done.get(name)
        if done:
            said, reason = done["verdict"], done["reason"]
        else:
            running = name in self.record.get("running", ())
            said, reason = (self.ending if running else "not reached"), row.get("reason", "")
        return RunStep(
            name=name,
            stage=row.get("stage", ""),
            gives=row.get("gives", ""),
            inputs=row.get("inputs", {}),
            said=said,
            reason=reason,
            done=done,
            run=self,
        )


def read(folder: Path) -> Run:
    """The run of a folder, also of one that was killed before it wrote a record."""
    folder = folder.absolute()
    return Run(folder, presentable(files.read_json(folder / RECORD) or {}, _here(folder)))


def _here(folder: Path) -> Path:
    """Where the command was most likely typed: above runs/<recipe>/<time>."""
    return [*folder.parents][:3][-1]


def below(root: Path, name: str | None = None) -> Iterator[Run]:
    """The runs under `runs/`, the newest first; of one recipe where it is named."""
    folders = [path.parent for path in root.glob(f"{name or '*'}/*/{RECIPE}")]
    for folder in sorted(folders, key=lambda path: (path.name, path.parent.name), reverse=True):
        yield read(folder)


def find(name: str, root: Path) -> Path:
    """A run's folder by its path or id, or a recipe's newest; RecipeError where there is none."""
    if exact := exactly(name, root):
        return exact
    newest = next(below(root, Path(name).name), None)
    if newest is None:
        fact = f"{name} is no run's folder, and {root} has no run of such a recipe."
        raise RecipeError([Problem("", fact, command="See: runner runs")])
    return newest.folder


def exactly(name: str, root: Path) -> Path | None:
    """The folder of one run: by its path, or as `runner runs` names it below `root`."""
    places = (Path(name), root / name)
    return next((each for each in places if (each / RECIPE).is_file()), None)


def presentable(value: Any, here: Path | None = None) -> Any:
    """A value for people's eyes: secrets hidden, paths from `here` on or from the user's home."""
    shorter = {f"{here}/": "", str(Path.home()): "~"} if here else {str(Path.home()): "~"}
    return _shortened(masked(value), {old: new for old, new in shorter.items() if len(old) > 2})


def _presentable_names(rows: Iterable[Row]) -> list[Row]:
    """Rows of figures, thousands with a few names; of their values only numbers are shown."""
    shown = cache(presentable)
    return [{shown(name): value for name, value in row.items()} for row in rows]


def _shortened(value: Any, shorter: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for old, new in shorter.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, Mapping):
        return {_shortened(k, shorter): _shortened(v, shorter) for k, v in value.items()}
    return [_shortened(each, shorter) for each in value] if isinstance(value, list) else value
