"""Whether the folder that a model is to be saved in is free, asked before any work."""

import os
from collections.abc import Iterator
from pathlib import Path

from runner.errors import Finding, Problem, Severity, StepError
from runner.saving.formats import MARK

OTHERWISE = "Take another folder with save.to=..., or allow it: save.overwrite=true"


def insist(target: Path, *, overwrite: bool) -> None:
    """StepError where this user may not write there, or somebody else's files are there.

    What an earlier run saved there may be the same again, and is left to the moment of saving.
    """
    above = next(each for each in (target, *target.parents) if each.exists())
    if not above.is_dir():
        raise StepError(f"{above} is a file, so that there can be no folder {target}.")
    if not os.access(target.parent if above == target else above, os.W_OK | os.X_OK):
        raise StepError(f"this user may not write in {above}.", "Take another folder: save.to=...")
    if not overwrite and _is_used(target) and not (target / MARK).exists():
        raise taken(target)


def taken(target: Path, more: str = "") -> StepError:
    """The error of a folder that is left alone."""
    return StepError(f"{target} holds something else and is left alone{more}.", OTHERWISE)


def hints(target: Path, *, overwrite: bool) -> Iterator[Finding]:
    """A folder that an earlier run has saved something in, which may be something else."""
    if not overwrite and _is_used(target) and (target / MARK).exists():
        fact = f"{target} holds what an earlier run has saved; anything else is refused there."
        yield Finding(Severity.WARNING, Problem("", fact, command=OTHERWISE))


def _is_used(target: Path) -> bool:
    return target.is_dir() and any(target.iterdir())
