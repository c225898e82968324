"""What is to be made again: a run's folder, or a saved model with its papers beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner import files
from runner import lock as locks
from runner.errors import Problem, RecipeError
from runner.origins import short
from runner.report import folder as folders
from runner.report.folder import Run
from runner.saving.papers import LINEAGE, RECIPE
from runner.secrets import masked

HERE = Path()


@dataclass(frozen=True)
class Original:
    """A recipe as it was run, what its sources were, and what is known of each step's result.

    `run` says of a published model what its lineage does, as the record of a run would; `saved` is
    the step that wrote that model, whose files lie in `place`. Paths of a run's recipe are whole,
    those of a published one are looked for.
    """

    place: Path
    recipe: Mapping[str, Any]
    sources: Mapping[str, Mapping[str, Any]]
    run: Run
    saved: str | None = None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.recipe["name"])


def find(name: str, runs: Path) -> Original:
    """A run by its folder, its name or its recipe's, a model's folder, or its lineage.json.

    RecipeError where there is none, or one that cannot be read.
    """
    given = Path(name)
    if given.name == LINEAGE and given.is_file():
        return _published(given.absolute().parent)
    if (given / LINEAGE).is_file():
        return _published(given.absolute())
    return _carried_out(folders.find(name, runs).absolute())


def _carried_out(place: Path) -> Original:
    record = files.read_json(place / folders.RECORD) or {}
    if not record.get("steps"):
        raise RecipeError([Problem(short(place), "no step of this run was done.")])
    recipe = _recipe(place / folders.RECIPE)
    return Original(place, recipe, record.get("sources", {}), folders.read(place))


def _published(place: Path) -> Original:
    recipe, lineage = _recipe(place / RECIPE), files.read_json(place / LINEAGE)
    lock = locks.read(place / RECIPE)
    if lock is None:
        fact = "is not there: without it nobody knows what the sources were."
        raise RecipeError([Problem(short(locks.path_of(place / RECIPE)), fact)])
    try:
        run = Run(place, masked(_as_record(lineage, lock.libraries)))
        return Original(place, recipe, lock.sources, run, str(lineage["step"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise RecipeError([Problem(short(place / LINEAGE), "is no lineage of ours.")]) from error


def _as_record(lineage: Mapping[str, Any], libraries: Mapping[str, str]) -> dict[str, Any]:
    """A lineage as the record of a run would say it."""
    rows = {str(row["step"]): row for row in lineage["steps"]}
    return {
        "recipe": lineage["recipe"],
        "ending": "finished",
        **lineage.get("machine", {}),
        "libraries": libraries,
        "plan": [
            {name: row[name] for name in ("step", "stage", "inputs")} for row in rows.values()
        ],
        "steps": {name: {**row, "verdict": "run", "reason": ""} for name, row in rows.items()},
    }


def _recipe(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            [Problem(short(path), "is not there, so nothing says what to do.")]
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError([Problem(short(path), "cannot be read.")]) from error
    if not isinstance(found, dict) or not {"name", "steps"} <= {*found}:
        raise RecipeError([Problem(short(path), "is no recipe as a run leaves it.")])
    return found
