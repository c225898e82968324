"""The smoke recipe: the same steps in the same order, with everything small."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from runner import files
from runner.compose import compose
from runner.recipe import Recipe, Step
from runner.smoke.sizes import SMALL
from runner.smoke.sources import StandIns
from runner.stage import Stage, checks_nothing
from runner.stages import known

NAME = "smoke.yaml"


def read(name: str, overrides: Sequence[str]) -> Recipe:
    """The recipe itself; what this machine lacks for it (a GPU, memory) is no fault here."""
    return compose(name, overrides, {name: _unchecked(each) for name, each in known().items()})


def lay_out(recipe: Recipe, folder: Path, note: Callable[[str], None]) -> Path:
    """Write stand-ins for all that a recipe fetches, and the smoke recipe; gives its path.

    What an earlier smoke run left in the folder goes away, its store too.
    """
    files.remove(folder)
    files.make_folder(folder)
    stand_ins = StandIns(recipe, folder, note)
    found, plain = stand_ins.write(), copy.deepcopy(dict(recipe.plain))
    plain |= {"name": f"{recipe.name}-smoke", "store": {"path": str(folder / "store")}}
    plain.pop("sweep", None)
    for step in recipe.steps:
        options = _options(plain, step)
        if step.name in found:
            options.clear()
            options["path"] = str(found[step.name])
        elif step.stage_name in SMALL:
            options |= SMALL[step.stage_name](options)
        if step.stage_name == "process" and options["filters"] and stand_ins.is_invented(step):
            options["filters"] = []
            note(f"{step.name}: no filters, for the rows are invented")
        _keep_inside(options, step, folder / "saved" / step.name)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    files.write_text(folder / NAME, text)
    return folder / NAME


def _options(plain: dict[str, Any], step: Step) -> dict[str, Any]:
    """The mapping of a step in a resolved recipe."""
    name, _, part = step.name.partition(".")
    found: dict[str, Any] = plain[name][part] if part else plain[name]
    return found


def _keep_inside(options: dict[str, Any], step: Step, folder: Path) -> None:
    """What the step writes outside the store goes to the rest of the smoke run."""
    for name, field in step.stage.Options.__dataclass_fields__.items():
        if field.metadata.get("from_cwd"):
            options[name] = str(folder)


def _unchecked(stage: Stage) -> Any:
    """The stage without what it would say against this machine."""
    return SimpleNamespace(**{**vars(stage), "check": checks_nothing})
