"""A folder that carries what a recipe fetches to a machine without network, recipe and lock too.

recipe.yaml   the composed recipe; local files are those in the bundle
recipe.lock   what its sources stand for, so that every key is the same there as here
entries/      the fetched results, with all their bytes, as a store holds them
"""

import copy
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from runner import files
from runner import lock as locks
from runner.errors import Problem, RecipeError, StoreError, writing
from runner.plan import Plan, Planned, versions
from runner.products import Files
from runner.recipe import Recipe, Step
from runner.store import Entry, Store

RECIPE = "recipe.yaml"
RECORDED = ("recipe", "step", "parts", "facts", "seconds", "versions")


def sources(plan: Plan) -> Plan:
    """The part of a plan that brings files from outside."""
    steps = tuple(p for p in plan.steps if p.step.stage.pins(p.step.options, find=False))
    return replace(plan, steps=steps)


def write(plan: Plan, store: Store, folder: Path) -> None:
    """Write the bundle of a plan whose sources are all there; an older bundle is gone on with."""
    if folder.exists() and not (folder / RECIPE).exists() and any(folder.iterdir()):
        raise RecipeError([Problem(str(folder), "holds something else than a bundle.")])
    with writing(folder):
        files.make_folder(folder)
        inside, recipe = Store(folder), copy.deepcopy(dict(plan.recipe.plain))
        rows = locks.rows(plan.recipe)
        for planned in sources(plan).steps:
            entry = store.entry(planned.key)
            assert entry is not None, "it was fetched just now"
            kept = inside.entry(planned.key) or _put(inside, planned, entry)
            rows[planned.step.name] = _row(rows[planned.step.name], kept, folder)
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


def take(folder: Path, store: Store) -> None:
    """Put what a bundle carries into the store, every byte checked."""
    inside = Store(folder)
    for path in sorted(inside.entries.glob("*")):
        if store.entry(path.name):
            continue
        found = inside.look(path.name)
        fault = found.damage() if isinstance(found, Entry) else found
        if fault or not isinstance(found, Entry):
            raise StoreError(f"the bundle is damaged: {path}: {fault}. Copy it again.")
        record = {name: found.record[name] for name in RECORDED}
        _commit(store, path.name, found.product, record)


def _put(inside: Store, planned: Planned, entry: Entry) -> Entry:
    """Store a result with all its bytes, also those that lie in the Hub cache."""
    product: Files = planned.step.stage.restore(entry.product, {})
    record = {name: entry.record[name] for name in RECORDED}
    return _commit(inside, planned.key, product.folder, record)


def _commit(store: Store, key: str, source: Path, record: dict[str, Any]) -> Entry:
    def save(target: Path) -> None:
        shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)

    return store.commit(store.draft(key), save, record)


def _row(row: locks.Row, kept: Entry, folder: Path) -> dict[str, Any]:
    """A source's row: local files are found in the bundle, a wheel's digest in the record."""
    found = dict(row)
    if "path" in row:
        is_folder = Path(str(row["path"])).name not in kept.record["files"]
        path = kept.product if is_folder else kept.product / Path(str(row["path"])).name
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
