"""Recipes from the configurations of other trainers: what has a meaning here, and what has not."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from runner.errors import Problem, RecipeError
from runner.importing import axolotl, llama_factory, oumi
from runner.importing.draft import Draft

STEPS = ["fetch", "process", "load", "adapt", "save"]


def read(path: Path) -> Draft:
    """The recipe that a configuration of another trainer asks for."""
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError([Problem(str(path), f"cannot be read: {error.strerror}.")]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError([Problem(str(path), f"is not valid YAML: {error}.")]) from error
    for (_, mark), translate in TRANSLATORS.items():
        if _has(said, mark):
            draft = Draft(said)
            translate(draft)
            return draft
    marks = ", ".join(f"{trainer} ({mark})" for trainer, mark in TRANSLATORS)
    raise RecipeError([Problem(str(path), f"is a configuration of none of these: {marks}.")])


def _has(said: Any, mark: str) -> bool:
    """Whether a configuration says something under a name, `model.model_name`."""
    for name in mark.split("."):
        if not isinstance(said, dict) or name not in said:
            return False
        said = said[name]
    return True


def text(draft: Draft, source: str, run: str, name: str) -> str:
    """The recipe as YAML; what has no meaning here stands at its top."""
    head = [f"# From {source}.", f"# Run:   runner run {run}"]
    head += ["# Has no meaning here: " + each for each in draft.left]
    head += [f"# {note}" for note in draft.notes]
    recipe = {"name": name, "steps": STEPS, **draft.recipe}
    recipe.setdefault("save", {}).setdefault("to", f"models/{name}")
    return "\n".join(head) + "\n" + yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def left(draft: Draft) -> Iterator[str]:
    """Everything that was not taken up, a line each."""
    yield from (f"has no meaning here: {name}: {value}" for name, value in draft.left.items())
    yield from draft.notes


TRANSLATORS: Mapping[tuple[str, str], Callable[[Draft], None]] = {
    ("axolotl", "base_model"): axolotl.translate,
    ("LLaMA-Factory", "model_name_or_path"): llama_factory.translate,
    ("Oumi", "model.model_name"): oumi.translate,
}
"""By the trainer, and the name that only its configurations have."""
