"""The lock file beside a recipe: what each floating reference was pinned to. Meant for git."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner import files
from runner.errors import Problem, RecipeError, StoreError, did_you_mean, listing
from runner.origins import short
from runner.plan import versions
from runner.recipe import Recipe

SCHEMA = 1
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Lock:
    """What one recipe's sources stand for, by step, and the libraries that were there.

    A row holds what was asked for (a repository and its branch, a path, a URL, a wheel) and what
    that was found to be (a commit, a digest). Paths are relative to the file.
    """

    path: Path
    sources: Mapping[str, Row]
    libraries: Mapping[str, str]


def path_of(recipe: Path) -> Path:
    """Where the lock file of a recipe is."""
    return recipe.with_suffix(".lock")


def read(recipe: Path) -> Lock | None:
    """The lock file beside a recipe, if there is one; RecipeError where it cannot be read."""
    path = path_of(recipe)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        sources = {str(step): _texts(row) for step, row in found["sources"].items()}
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']}")
        return Lock(path, sources, _texts(found["libraries"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        fact, again = "is no lock file that can be read.", f"runner lock {short(recipe)} --update"
        raise RecipeError([Problem(short(path), fact, command=again)]) from error


def write(lock: Lock) -> None:
    """Replace the lock file, whole."""
    try:
        files.write_text(lock.path, rendered(lock))
    except OSError as error:
        raise StoreError(f"{lock.path}: cannot be written: {error.strerror}.") from error


def rendered(lock: Lock) -> str:
    """What the lock file says, in an order that does not change."""
    head = (
        "# What the recipe's sources were found to be. Written by `runner lock`; keep it in git.\n"
    )
    body = {
        "schema": SCHEMA,
        "sources": dict(lock.sources),
        "libraries": dict(lock.libraries),
    }
    return head + yaml.safe_dump(body, sort_keys=True, allow_unicode=True)


def pin(recipe: Recipe, known: Lock | None, update: Collection[str] = ()) -> Lock:
    """A lock for the recipe; rows of `known` that still fit stay, but for the steps in `update`.

    Local files are always looked at: nothing floats there, and what they hold is the user's word.
    """
    path = path_of(recipe.path)
    kept = {} if known is None else known.sources
    sources = {}
    for step in recipe.steps:
        asked = _as_written(step.stage.pins(step.options, find=False), path)
        if not asked:
            continue
        row = kept.get(step.name)
        if row is None or step.name in update or "path" in asked or not _fits(asked, row):
            row = _as_written(step.stage.pins(step.options, find=True), path)
        sources[step.name] = row
    return Lock(path, sources, versions())


def locked(lock: Lock | None) -> dict[str, Row]:
    """The rows as the options that they speak of would be: with paths in full."""
    if lock is None:
        return {}
    return {
        step: {
            name: (lock.path.parent / value).resolve() if name == "path" else value
            for name, value in row.items()
        }
        for step, row in lock.sources.items()
    }


def rows(recipe: Recipe) -> dict[str, Row]:
    """What the steps of a planned recipe have been pinned to, as a lock file would say it."""
    path = path_of(recipe.path)
    found = {s.name: _as_written(s.stage.pins(s.options, find=False), path) for s in recipe.steps}
    return {name: row for name, row in found.items() if row}


def drift(lock: Lock, now: Mapping[str, Row]) -> Iterator[str]:
    """Each source that is not what the lock file says, in words."""
    for step in sorted({*lock.sources, *now}):
        old, new = lock.sources.get(step), now.get(step)
        if old is None:
            yield f"{step} is not in the lock file"
        elif new is None:
            yield f"{step} is in the lock file and not in the recipe"
        else:
            for name in sorted({*old, *new}):
                if new.get(name) is not None and old.get(name) != new[name]:
                    yield f"{step}: {name} {old.get(name)} -> {new[name]}"


def library_drift(lock: Lock) -> Iterator[str]:
    """Each library that is installed in another version than the lock file says."""
    now = versions()
    for name, version in sorted(lock.libraries.items()):
        if now.get(name, version) != version:
            yield f"{name} {version} -> {now[name]}"


def check_names(names: Collection[str], recipe: Recipe) -> set[str]:
    """Steps named to be updated; `model` stands for `fetch.model`. RecipeError for others."""
    there = {name: name for name in rows(recipe)}
    there |= {name.rpartition(".")[2]: name for name in there}
    problems = [
        Problem("--update", f'there is no source "{name}".', _near(name, [*there]))
        for name in names
        if name not in there
    ]
    if problems:
        raise RecipeError(problems)
    return {there[name] for name in names}


def _texts(row: Any) -> dict[str, str]:
    """A mapping of text to text, as a lock file holds them; ValueError where it is another."""
    if not all(isinstance(each, str) for pair in row.items() for each in pair):
        raise ValueError("it holds something else than text")
    return dict(row)


def _near(name: str, valid: list[str]) -> str:
    return did_you_mean(name, valid) or f"The sources are: {listing(valid)}."


def _as_written(row: Row, path: Path) -> dict[str, Any]:
    """A row with paths relative to the lock file, as another person's checkout has them."""
    return {
        name: Path(os.path.relpath(value, path.parent)).as_posix()
        if isinstance(value, Path)
        else value
        for name, value in row.items()
    }


def _fits(asked: Row, row: Row) -> bool:
    """Whether a row speaks of what is asked for now, and is pinned."""
    same = all(row.get(name) == value for name, value in asked.items() if value is not None)
    return same and all(row.get(name) is not None for name in asked)
