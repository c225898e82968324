"""`runner schema`, `copy` and `new`: what a person needs who writes recipes."""

from collections.abc import Callable, Sequence


def _schema(words: Sequence[str]) -> int:
    import json
    from argparse import ArgumentParser

    from runner import places, schema
    from runner.stages import known

    parser = ArgumentParser("runner schema", description="The JSON schema of recipes, for editors.")
    parser.add_argument("stage", nargs="?", help="of this stage's presets instead")
    stages = known()
    given = parser.parse_args(words)
    if given.stage:
        _insist(given.stage, [*stages])
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


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"schema": _schema}
