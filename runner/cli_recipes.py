"""`runner schema`, `copy`, `new` and `import`: what a person needs who writes recipes."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.secrets import mask

if TYPE_CHECKING:
    from runner.drafting import Wish


def _schema(words: Sequence[str]) -> int:
    import json
    from argparse import ArgumentParser

    from runner import places, schema
    from runner.stages import known
    from runner.sweep.where import LAUNCH

    parser = ArgumentParser("runner schema", description="The JSON schema of recipes, for editors.")
    parser.add_argument("stage", nargs="?", help="of the presets of a stage, or of launch, instead")
    stages = known()
    given = parser.parse_args(words)
    if given.stage:
        _insist(given.stage, [*stages, LAUNCH])
        found = schema.of_presets(given.stage, stages)
    else:
        found = schema.of_recipes(stages, [*places.recipe_folders(), places.shipped("conf")])
    print(json.dumps(found, indent=1, ensure_ascii=False))
    return 0


def _insist(stage: str, stages: Sequence[str]) -> None:
    """RecipeError where there is no such stage."""
    from runner.errors import Problem, RecipeError, did_you_mean, listing

    if stage not in stages:
        guess = did_you_mean(stage, stages) or f"The stages are: {listing(stages)}."
        raise RecipeError([Problem("", f'there is no stage "{stage}".', guess)])


def _copy(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner import copying
    from runner.stages import known

    parser = ArgumentParser("runner copy", description="Copy a recipe to make it your own.")
    parser.add_argument("recipe", help="a name from `runner list`, or a YAML file")
    parser.add_argument("to", type=Path, help="the new file, mine.yaml")
    given = parser.parse_args(words)
    copying.copy(given.recipe, given.to, known())
    _say(given.to)
    return 0


def _new(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner import drafting
    from runner.stages import known

    parser = ArgumentParser(
        "runner new",
        description="Make a recipe; what is left out is asked for in a terminal.",
    )
    parser.add_argument("to", type=Path, help="the new file, mine.yaml")
    for name, question in QUESTIONS.items():
        parser.add_argument(f"--{name}", help=question)
    given = vars(parser.parse_args(words))
    target, said = given.pop("to"), {name: text for name, text in given.items() if text}
    lacking = [name for name in ("model", "data") if name not in said]
    if sys.stdin.isatty() and sys.stdout.isatty():
        said |= _asked([name for name in QUESTIONS if name not in said])
    elif lacking:
        parser.error(f"the following arguments are required: --{', --'.join(lacking)}")
    drafting.make(drafting.Wish(**said), target, known())
    _say(target)
    return 0


def _asked(names: Sequence[str]) -> dict[str, str]:
    """What a person answers; what cannot be is asked for again."""
    from runner import drafting

    said: dict[str, str] = {}
    for name in names:
        default = DEFAULTS.get(name, "")
        shown = f"{QUESTIONS[name]} [{default}] " if default else f"{QUESTIONS[name]} "
        while name not in said:
            answer = input(shown).strip() or default
            wish: Wish = drafting.Wish(**{"model": "", "data": "", name: answer})
            if fault := drafting.CHECKS[name](wish):
                print(f"  {fault}")
            else:
                said[name] = answer
    return said


def _import(words: Sequence[str]) -> int:
    from argparse import ArgumentParser

    from runner import drafting, importing
    from runner.compose import compose
    from runner.errors import RecipeError
    from runner.link import UNFIT
    from runner.stages import known

    parser = ArgumentParser(
        "runner import",
        description="A recipe from a configuration of axolotl, LLaMA-Factory or Oumi.",
    )
    parser.add_argument("file", type=Path, help="the YAML of axolotl, LLaMA-Factory or Oumi")
    parser.add_argument("to", type=Path, help="the new file, mine.yaml")
    given = parser.parse_args(words)
    draft, name = importing.read(given.file), UNFIT.sub("-", given.to.stem)
    text = importing.text(draft, given.file.name, drafting.called(given.to), name)
    drafting.place(given.to, text)
    for line in importing.left(draft):
        print(line)
    try:
        compose(str(given.to), [], known())
    except RecipeError as error:  # it may need a GPU, or files, that are not here
        print(f"to be mended before it runs here:\n{mask(str(error))}")
    _say(given.to)
    return 0


def _say(target: Path) -> None:
    from runner.drafting import called

    print(f"{target}\n  runner plan {called(target)}\n  runner run {called(target)}")


QUESTIONS = {
    "model": "the model: a repository on the Hub, a folder, or a preset of fetch",
    "data": "the data: a file, a folder, or a repository on the Hub",
    "method": "how it is taught: a preset of adapt",
    "quantize": "how it is squeezed: a preset of quantize, or none",
}
DEFAULTS = {"model": "smollm2-135m", "method": "lora", "quantize": "none"}
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "schema": _schema,
    "copy": _copy,
    "new": _new,
    "import": _import,
}
