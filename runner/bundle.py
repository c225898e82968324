"""A folder that carries what a recipe fetches to a machine without network, recipe and lock too.

recipe.yaml   the composed recipe; local files are those in the bundle
recipe.lock   what its sources stand for, so that every key is the same there as here
entries/      the fetched results, with all their bytes, as a store holds them
"""

import copy
import os
import shutil
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from runner import files
from runner import lock as locks
from runner.errors import Problem, RecipeError, StoreError, writing
from runner.files import digest_json
from runner.plan import Plan, Planned, Verdict, versions
from runner.products import FILES, Files
from runner.recipe import Recipe, Step
from runner.store import Entry, Store

RECIPE = "recipe.yaml"
RECORDED = ("recipe", "step", "parts", "facts", "seconds", "versions")


def sources(plan: Plan) -> Plan:
    """The part of a plan that brings files from outside, all of which are kept and there."""
    steps = tuple(
        replace(p, verdict=Verdict.RUN, dropped=False) if p.dropped else p
        for p in plan.steps
        if p.step.stage.pins(p.step.options, find=False)
    )
    return replace(plan, recipe=replace(plan.recipe, keep="all"), steps=steps)


def write(plan: Plan, store: Store, folder: Path) -> None:
    """Write the bundle of a plan whose sources are all there; an older bundle is gone on with."""
    _check_target(folder)
    with writing(folder):
        files.make_folder(folder)
        inside, recipe = Store(folder), copy.deepcopy(dict(plan.recipe.plain))
        rows = locks.rows(plan.recipe)
        for planned in sources(plan).steps:
            kept = _put(inside, planned, store.entry(planned.key))
            rows[planned.step.name] = _row(rows[planned.step.name], plan, kept, folder)
            _point_at(recipe, planned.step, rows[planned.step.name])
        _forget_this_machine(recipe, plan.recipe)
        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
        files.write_text(folder / RECIPE, text)
        files.remove(inside.drafts)
    locks.write(locks.Lock(locks.path_of(folder / RECIPE), rows, versions()))


def recipe_of(folder: str) -> str:
    """The recipe of a bundle; RecipeError where the folder is none."""
    path = Path(folder) / RECIPE
    if not path.is_file():
        make = "runner bundle RECIPE --to FOLDER"
        raise RecipeError([Problem(folder, "is no bundle: it has no recipe.yaml.", command=make)])
    return str(path)


def take(folder: Path, plan: Plan, store: Store) -> bool:
    """Put what a bundle carries of a plan's sources into the store, every byte checked.

    Gives whether there was anything to put there. Only the keys that the plan asks for are taken,
    and only where they are those of their records.
    """
    inside, taken = Store(folder), False
    for planned in sources(plan).steps:
        found = inside.look(planned.key)
        if found is None or planned.verdict is Verdict.REUSE:
            continue
        try:
            fault = found.damage() if isinstance(found, Entry) else found
            if fault or not isinstance(found, Entry):
                raise ValueError(fault)
            record = {name: found.record[name] for name in RECORDED}
            if digest_json(record["parts"])[:32] != planned.key:
                raise ValueError("it is the result of something else")
        except (KeyError, ValueError) as error:
            name, fact = planned.step.name, f"the bundle is damaged: {error}. Copy it again."
            raise StoreError(f"{name}: {fact}") from error
        store.commit(store.draft(planned.key), partial(_copy, found.product), record)
        taken = True
    return taken


def _check_target(folder: Path) -> None:
    """A bundle goes into a new folder, or into an older bundle, also one that was broken off."""
    ours = {RECIPE, locks.path_of(Path(RECIPE)).name, "entries", "drafts"}
    if folder.exists() and not folder.is_dir():
        raise RecipeError([Problem(str(folder), "is a file; a bundle is a folder.")])
    if folder.is_dir() and {path.name for path in folder.iterdir()} - ours:
        raise RecipeError([Problem(str(folder), "holds something else than a bundle.")])


def _put(inside: Store, planned: Planned, entry: Entry | None) -> Entry:
    """Store a result with all its bytes, also those that lie in the Hub cache."""
    fault = entry.damage() if entry else "it is gone"
    if entry is None or fault:
        again = f"Make it again: runner run RECIPE --fresh {planned.step.name}"
        raise StoreError(f"{planned.step.name}: the kept result is damaged: {fault}. {again}")
    kept = inside.entry(planned.key)
    if kept and kept.damage() is None:
        return kept
    product: Files = planned.step.stage.restore(entry.product, {})
    record = {name: entry.record[name] for name in RECORDED}
    replaces = str(kept.record["id"]) if kept else None
    save = partial(_copy, product.folder, below=FILES)
    return inside.commit(inside.draft(planned.key), save, record, replaces)


def _copy(source: Path, target: Path, below: str = "") -> None:
    shutil.copytree(source, target / below, copy_function=shutil.copyfile, dirs_exist_ok=True)


def _row(row: locks.Row, plan: Plan, kept: Entry, folder: Path) -> dict[str, Any]:
    """A source's row: local files are found in the bundle, a wheel's digest in the record."""
    found = dict(row)
    if "path" in row:
        source = locks.path_of(plan.recipe.path).parent / str(row["path"])
        path = kept.product / FILES / ("" if source.is_dir() else source.name)
        found["path"] = path.relative_to(folder).as_posix()
    if "sha256" in row and row["sha256"] is None:
        found["sha256"] = kept.record["facts"].get("sha256")
    return found


def _point_at(recipe: dict[str, Any], step: Step, row: locks.Row) -> None:
    """Have the recipe name the files in the bundle."""
    if "path" in row:
        _mapping_of(recipe, step)["path"] = row["path"]


def _forget_this_machine(recipe: dict[str, Any], composed: Recipe) -> None:
    """Leave the store out; what is written goes below the working directory there."""
    kept = recipe.get("store")
    recipe["store"] = {"keep": kept["keep"]} if isinstance(kept, dict) else None
    for step in composed.steps:
        for field in fields(step.options):
            value = getattr(step.options, field.name)
            if isinstance(value, Path) and field.metadata.get("from_cwd"):
                path = Path(os.path.relpath(value))
                inside = path if ".." not in path.parts else Path(value.name)
                _mapping_of(recipe, step)[field.name] = inside.as_posix()


def _mapping_of(recipe: dict[str, Any], step: Step) -> dict[str, Any]:
    name, _, part = step.name.partition(".")
    found: dict[str, Any] = recipe[name][part] if part else recipe[name]
    return found
