"""New recipes, made of a few answers."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner import files, places
from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.link import UNFIT
from runner.origins import short
from runner.stage import Stage

PLAIN = re.compile(r"[\w./-]+")
"""What needs no quotes, wherever it stands in YAML."""
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
SHAPES = {"dpo": "preference", "orpo": "preference", "kto": "unpaired"}
"""The shape of the rows that an objective learns from, where it is not told by their columns."""
NEEDS_MORE = {"grpo": "it learns from a function of yours; see conf/adapt/grpo.yaml"}
NONE = "none"
DRAFT = """\
# Teaches {model} what {data} shows, by {method}{squeezed}.
# Run:   runner run {run}
defaults:
{defaults}
  - _self_
name: {name}
steps: [{steps}]
fetch:
{sources}
process: {{{process}}}
before: {{stage: generate}}     # the answers of the model as it was, to compare with
save: {{to: models/{name}}}
"""


@dataclass(frozen=True)
class Wish:
    """What a new recipe is to do.

    `model` is a preset of fetch, a Hub repository or a path; `data` a Hub repository or a path;
    `method` a preset of adapt, and `quantize` one of quantize or `none`.
    """

    model: str
    data: str
    method: str = "lora"
    quantize: str = NONE


def make(wish: Wish, target: Path, stages: Mapping[str, Stage]) -> None:
    """Write a recipe that does what is wished, and composes; RecipeError where none can."""
    problems = [Problem("", fact) for check in CHECKS.values() if (fact := check(wish))]
    if problems:
        raise RecipeError(problems)
    write(target, _draft(wish, target), stages)


def choices(stage: str) -> list[str]:
    """The presets of a stage that need nothing more from a recipe."""
    return [name for name in places.presets_for(stage, _folders()) if name not in NEEDS_MORE]


def check_model(wish: Wish) -> str:
    """What is wrong with where the model comes from."""
    if wish.model in choices("fetch") or _is_source(wish.model):
        return ""
    near = did_you_mean(wish.model, choices("fetch"))
    fact = f'"{wish.model}" is no path, no `user/name` on the Hub and no preset of fetch.'
    return f"{fact} {near}".rstrip()


def check_data(wish: Wish) -> str:
    """What is wrong with where the data come from."""
    if _is_source(wish.data):
        return ""
    return f'"{wish.data}" is no path here, and no `user/name` on the Hub.'


def check_method(wish: Wish) -> str:
    """What is wrong with the way it is taught."""
    if wish.method in NEEDS_MORE:
        return f"{wish.method} cannot be drafted: {NEEDS_MORE[wish.method]}."
    return _no_choice("adapt", wish.method, choices("adapt"))


def check_quantize(wish: Wish) -> str:
    """What is wrong with the way it is squeezed."""
    return _no_choice("quantize", wish.quantize, [NONE, *choices("quantize")])


CHECKS = {
    "model": check_model,
    "data": check_data,
    "method": check_method,
    "quantize": check_quantize,
}


def _no_choice(stage: str, given: str, valid: list[str]) -> str:
    if given in valid:
        return ""
    guess = did_you_mean(given, valid) or f"There are: {listing(valid)}."
    return f'{stage} has no preset "{given}". {guess}'


def _folders() -> list[Path]:
    return [*places.recipe_folders(), places.shipped("conf")]


def _is_source(text: str) -> bool:
    return bool(text) and (Path(text).expanduser().exists() or bool(REPOSITORY.fullmatch(text)))


def write(target: Path, text: str, stages: Mapping[str, Stage]) -> None:
    """Write the recipe where nothing is yet; one that does not compose is not left there."""
    from runner.compose import compose

    place(target, text)
    try:
        compose(str(target), [], stages)
    except BaseException:
        files.remove(target)
        raise


def place(target: Path, text: str) -> None:
    """Write a recipe as it is; RecipeError where something is already."""
    if target.suffix != ".yaml":
        raise RecipeError([Problem(str(target), "a recipe's file must end in .yaml.")])
    if target.exists():
        raise RecipeError([Problem(str(target), "is there already; take another name.")])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def called(target: Path) -> str:
    """How the recipe is started from here: by its name, where that finds it."""
    folder = target.absolute().parent
    return target.stem if folder in places.recipe_folders() else short(target.absolute())


def _draft(wish: Wish, target: Path) -> str:
    squeeze = wish.quantize != NONE
    name = UNFIT.sub("-", target.stem)
    steps = ["fetch", "process", "load", "before", "adapt"]
    steps += ["quantize"] if squeeze else []
    defaults = [f"/adapt: {wish.method}", "/generate@before: greedy", "/generate: greedy"]
    defaults[1:1] = [f"/quantize: {wish.quantize}"] if squeeze else []
    defaults[:0] = [f"/fetch: {wish.model}"] if wish.model in choices("fetch") else []
    shape = f"shape: {SHAPES[wish.method]}, " if wish.method in SHAPES else ""
    return DRAFT.format(
        model=wish.model,
        data=wish.data,
        method=wish.method,
        squeezed=f", and squeezes it: {wish.quantize}" if squeeze else "",
        run=called(target),
        defaults="\n".join(f"  - {each}" for each in defaults),
        name=name,
        steps=", ".join([*steps, "generate", "evaluate", "save"]),
        sources="\n".join(_sources(wish, target.parent.resolve())),
        process=f"{shape}held_out: 64",
    )


def _sources(wish: Wish, folder: Path) -> Iterator[str]:
    if wish.model not in choices("fetch"):
        yield f"  model: {{{_source(wish.model, folder, '')}}}"
    yield f"  data: {{{_source(wish.data, folder, ', type: dataset')}}}"


def _source(text: str, folder: Path, more: str) -> str:
    path = Path(text).expanduser()
    if path.exists():
        return f"path: {quoted(seen_from(folder, path.resolve()))}"
    return f"repo: {quoted(text)}{more}"


def seen_from(folder: Path, path: Path) -> str:
    """A path as a recipe in that folder names it: relative within the same project."""
    here = Path.cwd()
    both_here = path.is_relative_to(here) and folder.is_relative_to(here)
    near = path.is_relative_to(folder) or both_here
    return os.path.relpath(path, folder) if near else str(path)


def quoted(text: str) -> str:
    """A text as YAML reads it, wherever it stands."""
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
