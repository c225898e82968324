"""The manifest of a sweep: its jobs and their distinct steps, written down before the first runs.

    sweeps/<recipe>/<id>/manifest.json   what is to be done; nothing that is edited later changes it
    sweeps/<recipe>/<id>/failures/       why a step failed, by key, until it is done
    sweeps/<recipe>/<id>/logs/           what libraries print while workers work

What is done is in the store, and nowhere else.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import Problem, RecipeError, writing
from runner.options import build, plain, revived
from runner.plan import KEY_LENGTH, key_parts
from runner.recipe import Step
from runner.stage import Facts, Stage
from runner.sweep.expand import Composed, Expansion
from runner.sweep.settings import Sweep
from runner.sweep.where import Launch

SCHEMA = 1
NAME = "manifest.json"
PLAN_AGAIN = "Start the sweep again by its recipe; what is done is reused as far as it counts."


@dataclass(frozen=True)
class Row:
    """One distinct step, as plain values: what it is, what it takes in by role, its key."""

    name: str
    stage: str
    options: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, ...]]
    key: str

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells it from other rows: two steps of one key may have other names."""
        return (self.name, self.key, *self.inputs.items())

    def step(self, stages: Mapping[str, Stage]) -> Step:
        """The step itself; RecipeError where this runner does not know it any more."""
        try:
            stage = stages[self.stage]
            options = revived(stage.Options, self.options)
        except (KeyError, TypeError) as error:
            fact = f"this runner has no stage {self.stage} with the options of this sweep."
            raise RecipeError([Problem(self.name, fact, PLAN_AGAIN)]) from error
        return Step(self.name, self.stage, stage, options, self.inputs)


@dataclass(frozen=True)
class Job:
    """One recipe of a sweep: its id is the digest of its steps' keys, `rows` are their numbers."""

    id: str
    overrides: tuple[str, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """All that a sweep is to do, with the settings of its last start.

    `path` is the recipe's file, `words` what was typed, `varied` the options with many values,
    `left_out` the steps that jobs do without, for they would write over one another. Where Optuna
    proposes the jobs, they are added one by one: `frozen` is the digest of all that they are made
    of, and `trials` the ids of the jobs in the order of the trials, empty for one that was none.
    """

    recipe: str
    path: Path
    words: tuple[str, ...]
    settings: Sweep
    varied: tuple[str, ...]
    store: Path | None
    versions: str
    rows: tuple[Row, ...]
    jobs: tuple[Job, ...]
    left_out: tuple[str, ...] = ()
    frozen: str = ""
    trials: tuple[str, ...] = ()
    launch: Launch = field(default_factory=Launch)

    @property
    def id(self) -> str:
        """What it is called at first: the digest of its jobs, or of what a search is made of."""
        if self.frozen:
            return self.frozen[:12]
        return files.digest_json(sorted(job.id for job in self.jobs))[:12]

    @cached_property
    def keys(self) -> dict[str, Row]:
        """The distinct steps by key, in the order of the jobs."""
        found: dict[str, Row] = {}
        for row in self.rows:
            found.setdefault(row.key, row)
        return found

    def tidied(self) -> "Manifest":
        """The same with every distinct row once, and none that no job has."""
        numbers: dict[tuple[Any, ...], int] = {}
        rows: list[Row] = []
        jobs = []
        moved: dict[int, int] = {}
        for job in self.jobs:
            for old in job.rows:
                if old not in moved:
                    row = self.rows[old]
                    moved[old] = numbers.setdefault(row.identity, len(rows))
                    rows += [row] if moved[old] == len(rows) else []
            jobs.append(replace(job, rows=tuple(moved[old] for old in job.rows)))
        return replace(self, rows=tuple(rows), jobs=tuple(jobs))

    def steps(self, job: Job) -> list[Row]:
        """The steps of a job, in order."""
        return [self.rows[number] for number in job.rows]


def plan(expansion: Expansion, words: Sequence[str], locked: Mapping[str, Facts]) -> Manifest:
    """Make the keys of every job, each distinct step once.

    `locked` holds what the lock file says of a step.
    """
    keying, is_searched = _Keying(locked), expansion.settings.search == "optuna"
    left_out = _left_out(expansion.jobs, keying, all_of_them=is_searched)
    whole = _manifest(expansion, words, expansion.jobs, keying, left_out)
    if not is_searched:
        return whole
    frozen = files.digest_json([*sorted(job.id for job in whole.jobs), expansion.describe()])
    return replace(whole, rows=(), jobs=(), frozen=frozen)


def plan_one(
    expansion: Expansion, old: Manifest, job: Composed, locked: Mapping[str, Facts]
) -> Manifest:
    """The manifest of one more job of a search."""
    return _manifest(expansion, old.words, [job], _Keying(locked), old.left_out)


def _manifest(
    expansion: Expansion,
    words: Sequence[str],
    every: Sequence[Composed],
    keying: "_Keying",
    left_out: Sequence[str],
) -> Manifest:
    first, jobs = every[0].recipe, dict[str, Job]()
    for composed in every:
        steps = [step for step in composed.recipe.steps if step.name not in left_out]
        rows = tuple(keying.rows_of(steps))
        what = {keying.rows[number].name: keying.rows[number].key for number in rows}
        identity = files.digest_json(what)[:16]
        jobs.setdefault(identity, Job(identity, composed.overrides, rows))
    return Manifest(
        recipe=first.name,
        path=first.path,
        words=tuple(words),
        settings=expansion.settings,
        launch=expansion.launch,
        varied=expansion.varied,
        store=first.store,
        versions=first.versions,
        rows=tuple(keying.rows),
        jobs=tuple(jobs.values()),
        left_out=tuple(left_out),
    ).tidied()


class _Keying:
    """Keys of steps, each made once: a step that recipes share is one object."""

    def __init__(self, locked: Mapping[str, Facts]) -> None:
        self.locked = locked
        self.rows: list[Row] = []
        self.numbers: dict[tuple[Any, ...], int] = {}
        self.known: dict[tuple[int, tuple[str, ...]], tuple[Step, int]] = {}

    def rows_of(self, steps: Iterable[Step]) -> Iterator[int]:
        """The number of each step's row."""
        keys: dict[str, str] = {}
        for step in steps:
            given = tuple(keys[name] for names in step.inputs.values() for name in names)
            same = id(step), given
            if same not in self.known:
                self.known[same] = step, self._row(step, keys)
            number = self.known[same][1]
            keys[step.name] = self.rows[number].key
            yield number

    def _row(self, step: Step, keys: Mapping[str, str]) -> int:
        options = step.stage.resolve(step.options, self.locked.get(step.name, {}))
        key = files.digest_json(key_parts(replace(step, options=options), keys))[:KEY_LENGTH]
        row = Row(step.name, step.stage_name, plain(options), step.inputs, key)
        number = self.numbers.setdefault(row.identity, len(self.rows))
        self.rows += [row] if number == len(self.rows) else []
        return number


def _left_out(jobs: Sequence[Composed], keying: _Keying, *, all_of_them: bool) -> list[str]:
    """The steps of which several would write one folder of the user's with different results.

    Or `all_of_them` that write there: where jobs are not known beforehand, none can be sure.
    """
    writers: dict[Path, set[str]] = {}
    names: dict[Path, str] = {}
    outside: dict[int, list[Path]] = {}
    for composed in jobs:
        steps = composed.recipe.steps
        for step, number in zip(steps, keying.rows_of(steps), strict=True):
            for path in outside.setdefault(id(step), _outside(step)):
                writers.setdefault(path, set()).add(keying.rows[number].key)
                names[path] = step.name
    clash = (path for path, keys in writers.items() if all_of_them or len(keys) > 1)
    found = sorted({names[path] for path in clash})
    for step in jobs[0].recipe.steps:
        for taken in {each for given in step.inputs.values() for each in given} & {*found}:
            fact = f"jobs would write over one another, and {step.name} reads it."
            guess = "Give each a folder of its own: out-${adapt.rank}, with what they differ in."
            raise RecipeError([Problem(taken, fact, guess)])
    return found


def _outside(step: Step) -> list[Path]:
    """The folders outside the store that a step writes."""
    values = [
        getattr(step.options, f.name) for f in fields(step.options) if f.metadata.get("from_cwd")
    ]
    return [value for value in values if isinstance(value, Path)]


def save(manifest: Manifest, folder: Path) -> None:
    """Write a manifest, whole or not at all."""
    named = {f.name: getattr(manifest, f.name) for f in fields(manifest)}
    whole = {
        "schema": SCHEMA,
        **named,
        "settings": plain(manifest.settings),
        "launch": plain(manifest.launch),
        "rows": [vars(row) for row in manifest.rows],
        "jobs": [vars(job) for job in manifest.jobs],
    }
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"), default=str)
    with writing(folder):
        files.make_folder(folder)
        files.write_text(folder / NAME, text + "\n")


def load(folder: Path) -> Manifest | None:
    """The manifest in a folder, as it was written; None where there is none."""
    value = files.read_json(folder / NAME)
    if not isinstance(value, dict):
        return None
    if value.pop("schema", None) != SCHEMA:
        fact = "was written by another version of runner."
        raise RecipeError([Problem(str(folder / NAME), fact, PLAN_AGAIN)])
    settings, faults = build(Sweep, value["settings"])
    launch, more = build(Launch, value.get("launch") or {})
    assert not [*faults, *more], [*faults, *more]
    return Manifest(
        **value
        | {
            "path": Path(value["path"]),
            "words": tuple(value["words"]),
            "settings": settings,
            "launch": launch,
            "varied": tuple(value["varied"]),
            "store": Path(value["store"]) if value["store"] else None,
            "rows": tuple(_row(each) for each in value["rows"]),
            "jobs": tuple(
                Job(each["id"], tuple(each["overrides"]), tuple(each["rows"]))
                for each in value["jobs"]
            ),
            "left_out": tuple(value["left_out"]),
            "trials": tuple(value.get("trials", ())),
        }
    )


def _row(value: Mapping[str, Any]) -> Row:
    inputs = {role: tuple(names) for role, names in value["inputs"].items()}
    return Row(**{**value, "inputs": inputs})


def joined(old: Manifest, new: Manifest) -> Manifest:
    """The jobs of both, the old ones as they are; the settings of the new one."""
    there, begin = {job.id for job in old.jobs}, len(old.rows)
    more = [
        replace(job, rows=tuple(number + begin for number in job.rows))
        for job in new.jobs
        if job.id not in there
    ]
    whole = replace(
        old,
        words=new.words if more else old.words,
        settings=new.settings,
        launch=new.launch,
        varied=tuple(dict.fromkeys((*old.varied, *new.varied))),
        rows=(*old.rows, *new.rows),
        jobs=(*old.jobs, *more),
    )
    return whole.tidied()
