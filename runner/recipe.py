"""A recipe as the engine sees it: steps in order, each with typed options and named inputs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.stage import Stage
from runner.sweep.settings import Sweep
from runner.sweep.where import Launch


@dataclass(frozen=True)
class Step:
    """One use of a stage. `inputs` names, for each role, the earlier steps that give it."""

    name: str
    stage_name: str
    stage: Stage
    options: Any
    inputs: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Recipe:
    """A whole run. `plain` is the resolved recipe as a mapping, itself a valid recipe.

    `versions` says what a reuse across a change of libraries is: a `note`, or `strict`: no reuse.
    `keep` says which steps' files stay in the store: `all`, `results`, or those of some steps.
    `sweep` says with which values `runner sweep` runs it, and `launch` where.
    """

    name: str
    path: Path
    steps: tuple[Step, ...]
    plain: Mapping[str, Any]
    store: Path | None = None
    versions: str = "note"
    keep: str | tuple[str, ...] = "all"
    sweep: Sweep | None = None
    launch: Launch | None = None

    def keeps(self, name: str) -> bool:
        """Whether a step's files stay: all, what no step takes in, or also the steps named."""
        if self.keep == "all" or (isinstance(self.keep, tuple) and name in self.keep):
            return True
        taken = {each for step in self.steps for names in step.inputs.values() for each in names}
        return name not in taken

    def without(self, names: Collection[str]) -> "Recipe":
        """The recipe without these steps and those that build on them."""
        gone, kept = set(names), list[Step]()
        for step in self.steps:
            taken = {each for givers in step.inputs.values() for each in givers}
            if step.name in gone or taken & gone:
                gone.add(step.name)
            else:
                kept.append(step)
        return replace(self, steps=tuple(kept))

    def step(self, name: str) -> Step:
        """The step of that name; KeyError where there is none."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)
