"""Where recipes and presets are: the user's own, and those shipped with the package."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from runner.errors import Problem, RecipeError, did_you_mean, listing

PACKAGE = Path(__file__).parent
RECIPE = re.compile(r"^(steps|defaults):", re.MULTILINE)


def shipped(name: str) -> Path:
    """`conf`, `recipes` or `constraints.txt`: in the installed package, or beside it in a clone."""
    installed = PACKAGE / name
    return installed if installed.exists() else PACKAGE.parent / name


def preset_folders(recipe: Path) -> list[Path]:
    """Where the presets that a recipe may choose are: beside the recipe, then the shipped ones."""
    return [recipe.parent, shipped("conf")]


def recipe_folders() -> list[Path]:
    """Where recipes are looked up by name: the working directory, its recipes/, the shipped."""
    return [Path.cwd(), Path.cwd() / "recipes", shipped("recipes")]


def recipes() -> Iterator[Path]:
    """Every recipe that can be started by its name."""
    seen = set()
    for folder in recipe_folders():
        for path in sorted(folder.glob("*.yaml")):
            if path.stem not in seen and RECIPE.search(path.read_text(errors="replace")):
                seen.add(path.stem)
                yield path


def presets() -> Iterator[tuple[str, str, Path]]:
    """Stage, name and file of every shipped preset."""
    for path in sorted(shipped("conf").glob("*/*.yaml")):
        yield path.parent.name, path.stem, path


def presets_for(stage: str, folders: Iterable[Path]) -> dict[str, Path]:
    """The presets of a stage by name; of two with one name, the nearer folder's."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / stage).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or path; RecipeError where there is none."""
    given = Path(name).expanduser()
    if given.suffix == ".yaml" and given.is_file():
        return given.resolve()
    if given.suffix == ".yml" and given.is_file():
        raise RecipeError([Problem(name, "a recipe's file must end in .yaml.")])
    for folder in recipe_folders():
        path = folder / f"{name}.yaml"
        if given.suffix != ".yaml" and path.is_file():
            return path.resolve()
    names = [path.stem for path in recipes()]
    guess = did_you_mean(given.stem, names) or f"There are: {listing(names)}."
    raise RecipeError([Problem("", f'there is no recipe "{name}".', guess, "See: runner list")])
