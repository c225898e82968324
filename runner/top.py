"""What a recipe says beside its steps: of all of them, of the store, and of its sweep."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.options import option
from runner.sweep.settings import Sweep
from runner.sweep.where import Launch

OF_ALL = ("seed", "deterministic")
"""What a recipe says for every step that has such an option and says nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a recipe says of the store."""

    path: Path | None = option(None, "The folder that holds finished steps", from_cwd=True)
    keep: Literal["all", "results"] | tuple[str, ...] = option(
        "all",
        "Which steps' files stay once nothing needs them: all, results (of steps that no step"
        " takes in), or results and those of the steps listed. Small ones always stay",
    )


@dataclass(frozen=True, kw_only=True)
class Top:
    """What a recipe says beside its steps."""

    name: str = option("", "The run's name; the file's name where left out")
    steps: tuple[str, ...] = option(help="The steps, in order")
    seed: int = option(0, "The seed of every step that draws at random", at_least=0)
    deterministic: bool = option(
        False, "On a GPU, only algorithms that give the same bits each time, in every training"
    )
    store: Kept | Path | None = option(
        None, "Where finished steps are kept, and which of them", from_cwd=True
    )
    versions: Literal["note", "strict"] = option(
        "note", "A reuse across a change of libraries: said aloud, or refused (strict)"
    )
    sweep: Sweep | None = option(None, "The values that `runner sweep` runs it with")
    launch: Launch | None = option(None, "Where the jobs of a sweep run; a preset, as launch=slurm")
