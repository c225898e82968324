"""A copy of a recipe: what it names beside itself is still found from its new place."""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from runner import origins, places
from runner.drafting import called, quoted, seen_from, write
from runner.errors import RecipeError
from runner.link import UNFIT
from runner.stage import Stage

Edit = tuple[int, int, str]
"""From where to where a text is replaced, and by what."""


def copy(name: str, target: Path, stages: Mapping[str, Stage]) -> None:
    """Copy a recipe so that it composes, with the same keys, from its new place."""
    source = places.find_recipe(name)
    document, problems = origins.read(source)
    if document is None or problems:
        raise RecipeError(problems)
    text = source.read_text(encoding="utf-8")
    edits = [*_path_edits(document.root, source.parent, target.parent.resolve(), stages)]
    edits += _name_edits(document.root, target)
    for begin, end, new in sorted(edits, reverse=True):
        text = text[:begin] + new + text[end:]
    write(target, text.replace(f"runner run {source.stem}", f"runner run {called(target)}"), stages)


def _name_edits(root: Any, target: Path) -> Iterator[Edit]:
    for name, value in origins.pairs(root):
        if name == "name":
            yield value.start_mark.index, value.end_mark.index, UNFIT.sub("-", target.stem)


def _path_edits(root: Any, was: Path, now: Path, stages: Mapping[str, Stage]) -> Iterator[Edit]:
    """Where a path is written that is relative to the recipe's folder, and what it is now."""
    for step, value in origins.pairs(root):
        said = {name: node.value for name, node in origins.pairs(value)}
        stage = stages.get(str(said.get("stage", step)))
        if stage is None:
            continue
        parts = [each for _, each in origins.pairs(value)] if stage.PARTS else [value]
        for node in (node for part in parts for node in _path_nodes(part, stage)):
            file, colon, name = str(node.value).partition(":")
            if not Path(file).expanduser().is_absolute():
                moved = seen_from(now, (was / file).resolve())
                new = quoted(f"{moved}{colon}{name}")
                yield node.start_mark.index, node.end_mark.index, new


def _path_nodes(options: Any, stage: Stage) -> Iterator[Any]:
    """The scalars among a step's options that are paths beside the recipe."""
    hints = typing.get_type_hints(stage.Options)
    known = {f.name: f for f in fields(stage.Options)}
    for name, node in origins.pairs(options):
        field = known.get(name)
        if field is None:
            continue
        if beside := field.metadata.get("beside"):
            for item in node.value if isinstance(node, yaml.SequenceNode) else ():
                yield from (each for inner, each in origins.pairs(item) if inner == beside)
        elif _is_path(hints[name]) and not field.metadata.get("from_cwd"):
            yield from [node] if isinstance(node, yaml.ScalarNode) else ()


def _is_path(hint: Any) -> bool:
    return Path in (hint, *typing.get_args(hint))
