"""The folder in which something is made again: a recipe, its lock file, an empty store.

recipe.yaml   the recipe as it was run; what it writes goes into this folder, and nowhere else
recipe.lock   what its sources were: a run here refuses others
store/        empty to begin with, so that no step is reused
runs/, saved/ what the run leaves
"""

import copy
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from runner import files, places
from runner import lock as locks
from runner.errors import Problem, RecipeError, writing
from runner.origins import short
from runner.plan import versions
from runner.reproducing.original import Original
from runner.saving.papers import RECIPE
from runner.stage import Stage
from runner.stages import known

NOBODY_ELSE: Mapping[str, Any] = {"push": None, "track": []}
"""Options that would tell others of it: a repetition concerns who asks for it alone."""


def lay_out(original: Original, folder: Path, overrides: Sequence[str] = ()) -> Path:
    """Write the recipe and its lock file into a folder, and give the recipe's path.

    RecipeError where the folder holds something else. `overrides` name files that lie elsewhere
    now: the lock file holds no path that they replace.
    """
    folder = folder.resolve()
    recipe = copy.deepcopy(dict(original.recipe))
    recipe["store"] = {"path": str(folder / "store"), "keep": "all"}
    recipe.pop("sweep", None)
    rows = {name: dict(row) for name, row in original.sources.items()}
    for name, stage, options in steps_of(recipe, known()):
        options |= {each: NOBODY_ELSE[each] for each in NOBODY_ELSE if each in options}
        _keep_inside(options, stage, folder / "saved" / name)
        _find_files(options, stage, _roots(original))
        if "path" in rows.get(name, {}):
            moved = _moved(name, overrides) or str(options["path"])
            rows[name]["path"] = Path(os.path.relpath(moved, folder)).as_posix()
    _write(folder / RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    locks.write(locks.Lock(locks.path_of(folder / RECIPE), rows, versions()))
    return folder / RECIPE


def steps_of(
    recipe: Mapping[str, Any], stages: Mapping[str, Stage]
) -> Iterator[tuple[str, Stage, dict[str, Any]]]:
    """Name, stage and options of every step of a resolved recipe; each part of fetch is one."""
    for name in recipe["steps"]:
        told = recipe.get(name) or {}
        stage = stages.get(str(told.get("stage", name)))
        if stage is None:  # composing says that there is none, and what is near
            continue
        if not stage.PARTS:
            yield name, stage, told
            continue
        for part, options in told.items():
            if isinstance(options, dict):
                yield f"{name}.{part}", stage, options


def _write(path: Path, text: str) -> None:
    """Write a recipe where there is none; one that is there must be the same."""
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            fact = "another recipe was made again here; name an empty folder."
            raise RecipeError([Problem(short(path.parent), fact)])
        return
    if files.names_in(path.parent):
        raise RecipeError([Problem(short(path.parent), "is not empty; name another folder.")])
    with writing(path.parent):
        files.make_folder(path.parent)
        files.write_text(path, text)


def _keep_inside(options: dict[str, Any], stage: Stage, folder: Path) -> None:
    """What the step writes outside the store goes into a folder of its own here."""
    for field in fields(stage.Options):
        if field.metadata.get("from_cwd"):
            options[field.name] = str(folder)


def _roots(original: Original) -> list[Path]:
    """Where files that a published recipe names are looked for; not in the model's folder.

    Functions are files too, and nobody who downloads a model has read those that lie in it.
    """
    return [Path.cwd(), *places.recipe_folders(), *original.place.absolute().parents]


def _find_files(options: dict[str, Any], stage: Stage, roots: Sequence[Path]) -> None:
    """Give each file that the step reads its whole path, where it is found."""
    hints = typing.get_type_hints(stage.Options)
    for field in fields(stage.Options):
        value, beside = options.get(field.name), field.metadata.get("beside")
        if value is None or field.metadata.get("from_cwd"):
            continue
        if beside:
            for row in value:
                if isinstance(row, dict) and row.get(beside):
                    row[beside] = _found(str(row[beside]), roots)
        elif hints[field.name] is Path or Path in typing.get_args(hints[field.name]):
            options[field.name] = _found(str(value), roots)


def _found(text: str, roots: Sequence[Path]) -> str:
    """`data/rows.jsonl` or `judge.py:polite`, whole; as it stands where it is found nowhere."""
    name = text.partition(":")[0]
    there = (root for root in roots if (root / name).exists())
    return str(next(there, Path()) / text) if not Path(name).is_absolute() else text


def _moved(step: str, overrides: Sequence[str]) -> str | None:
    """The path that an override gives a step."""
    found = [text.split("=", 1)[1] for text in overrides if text.startswith(f"{step}.path=")]
    return str(Path(found[-1]).absolute()) if found else None
