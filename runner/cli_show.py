"""`runner show`, `why` and `list`: what recipes, stages, presets and steps are."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import Problem, RecipeError, did_you_mean, listing

if TYPE_CHECKING:
    from runner.stage import Stage

SEE_LIST = "See: runner list"
FOR_PROGRAMS = ("# yaml-language-server:", "# @package")


def _show(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner.stages import known
    from runner.sweep.where import LAUNCH, Launch

    parser = ArgumentParser(
        "runner show",
        description="Show a composed recipe, a stage's options, or rows of a dataset.",
    )
    parser.add_argument("recipe", help="a name from `runner list`, or a YAML file")
    parser.add_argument("overrides", nargs="*", help="adapt.rank=16, quantize=int8, ~before")
    parser.add_argument(
        "--rows", type=int, metavar="N", help="RECIPE STEP --rows N: what became of the data"
    )
    given = parser.parse_intermixed_args(words)
    if given.rows is not None:
        return _show_rows(given.recipe, given.overrides, given.rows)
    stages = known()
    stage = stages.get(given.recipe)
    if given.recipe == LAUNCH:
        print(f"{LAUNCH}: {(Launch.__doc__ or '').strip()}\n")
        return _show_options(Launch)
    if stage is None:
        return _show_recipe(given.recipe, given.overrides, stages)
    if given.overrides:
        fact = f"{given.recipe} is a stage, and its options are shown without overrides."
        raise RecipeError([Problem(f'override "{given.overrides[0]}"', fact)])
    print(f"{given.recipe}: {(stage.__doc__ or '').strip()}")
    needs = [
        f"{role} ({need.kind}{', optional' if need.optional or need.named else ''})"
        for role, need in stage.NEEDS.items()
    ]
    print(f"  needs {', '.join(needs) or 'nothing'}; gives {stage.GIVES}")
    print(f"  asks a cluster for {stage.RESOURCES}\n")
    return _show_options(stage.Options)


def _show_options(kind: type) -> int:
    from runner.options import documented

    for name, described, default, text in documented(kind):
        print(f"  {name}: {described} = {default}\n      {text}")
    return 0


def _show_rows(name: str, words: Sequence[str], count: int) -> int:
    """The audit and the first rows of a step that gave a dataset."""
    from runner import running
    from runner.report import rows

    step, overrides = (words[0], words[1:]) if words else ("process", [])
    planned, store = running.prepare(name, overrides)
    found = next((p for p in planned.steps if p.step.name == step), None)
    if found is None or found.step.stage.GIVES != "dataset":
        names = [p.step.name for p in planned.steps if p.step.stage.GIVES == "dataset"]
        fact = f'{name} has no step "{step}" that gives a dataset.'
        raise RecipeError([Problem("", fact, f"These do: {listing(names)}.")])
    entry = store.entry(found.key)
    if entry is None:
        command = f"runner run {name}"
        raise RecipeError([Problem("", f"{step} has not been done yet.", command=command)])
    source = planned.step(found.step.inputs["tokenizer"][0])
    given = store.entry(source.key)
    if given is None:
        raise RecipeError([Problem("", f"the result of {source.step.name} is gone.")])
    decode = rows.decoder(source.step.stage.restore(given.product, {}).folder)
    dataset = found.step.stage.restore(entry.product, {})
    print("\n".join(rows.figures(entry.record["facts"])))
    print("\n".join(rows.rows(dataset, decode, count, color=sys.stdout.isatty())))
    return 0


def _show_recipe(name: str, overrides: Sequence[str], stages: "Mapping[str, Stage]") -> int:
    import yaml

    from runner import places
    from runner.composing import compose

    names = [path.stem for path in places.recipes()]
    if not name.endswith(".yaml") and name not in names:
        near = did_you_mean(name, [*stages, *names])
        raise RecipeError([Problem("", f'there is no stage or recipe "{name}".', near, SEE_LIST)])
    recipe = compose(name, overrides, stages)
    print(yaml.safe_dump(dict(recipe.plain), sort_keys=False, allow_unicode=True), end="")
    return 0


def _why(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner import running
    from runner.plan import differences

    parser = ArgumentParser("runner why", description="All that differs from the last time.")
    parser.add_argument("recipe", help="a name from `runner list`, or a YAML file")
    parser.add_argument("step", help="one of its steps")
    parser.add_argument("overrides", nargs="*", help="adapt.rank=16, quantize=int8, ~before")
    given = parser.parse_intermixed_args(words)
    planned, store = running.prepare(given.recipe, given.overrides)
    names = [each.step.name for each in planned.steps]
    if given.step not in names:
        guess = did_you_mean(given.step, names) or f"The steps are: {listing(names)}."
        raise RecipeError([Problem("", f'{given.recipe} has no step "{given.step}".', guess)])
    found = planned.step(given.step)
    print(f"{found.verdict}: {found.reason}")
    rows = store.recent(planned.recipe.name, given.step)
    earlier = [differences(row["parts"], found.parts, found.step.inputs) for row in rows]
    for line in min(earlier, key=len, default=[]):
        print(f"  {line}")
    return 0


def _list(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner import places
    from runner.stages import known

    ArgumentParser("runner list", description="Recipes, stages and presets.").parse_args(words)
    print("recipes")
    for path in places.recipes():
        print(f"  {path.stem:<22} {_first_comment(path)}")
    print("stages")
    for name, stage in known().items():
        print(f"  {name:<22} {(stage.__doc__ or '').strip().splitlines()[0]}")
    print("presets")
    for stage_name, name, path in places.presets():
        print(f"  {f'{stage_name}={name}':<22} {_first_comment(path)}")
    return 0


def _first_comment(path: Path) -> str:
    """What a recipe or preset says of itself, after lines that are for programs."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next((line for line in lines if not line.startswith(FOR_PROGRAMS)), "")
    return first.lstrip("# ") if first.startswith("#") else ""


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "show": _show,
    "why": _why,
    "list": _list,
}
"""What there is, and what differs."""
