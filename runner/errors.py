"""Everything that can go wrong, as a tree, with the exit code that the command line gives it.

RunnerError
|-- RecipeError       the recipe, an override or a file it names is at fault       exit 1
|-- StepError         a step could not do its work on this data or this machine    exit 1
|-- StoreError        the store cannot be read or written                          exit 1
|-- Unmet             a figure is not what a step requires (scoring/gates.py)      exit 1
`-- Stopped           a signal asked the run to stop; its work is kept             exit 75 or 130

Any other exception that reaches the command line is our own fault: exit 3, with a report file.
"""

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.recipe import Recipe

EXIT_OUR_FAULT = 3
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: run the same command again to go on
EXIT_INTERRUPTED = 130


EXPLAINED = "Explained in "
"""How the note begins by which an error that ended a run names its page."""

REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS}
"""What a file system says when it is at fault, and neither the step nor its data."""


@dataclass(frozen=True)
class Problem:
    """One finding: where it is, what is wrong, what was probably meant, what to type."""

    where: str
    fact: str
    guess: str = ""
    command: str = ""

    def __str__(self) -> str:
        first = f"{self.where}: {self.fact}" if self.where else self.fact
        if self.guess:
            first += f" {self.guess}"
        return f"{first}\n  {self.command}" if self.command else first


class Severity(StrEnum):
    """How much a finding weighs: a run would fail, may not do what was meant, or is as expected."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """What a look at a recipe has found, before any work."""

    severity: Severity
    problem: Problem


class RunnerError(Exception):
    """The root: whatever a user can cause and a message can cure."""

    exit_code = 1


class RecipeError(RunnerError):
    """Everything that is wrong with a recipe, found before any work.

    `sound` is what remains of it without the steps that are at fault and those that build on them.
    """

    def __init__(self, problems: Iterable[Problem], sound: "Recipe | None" = None) -> None:
        self.problems, self.sound = tuple(dict.fromkeys(problems)), sound
        super().__init__("\n".join(map(str, self.problems)))


class StepError(RunnerError):
    """A step cannot do its work on this data or this machine. `step` is its name, once known."""

    def __init__(self, fact: str, command: str = "") -> None:
        super().__init__(fact, command)
        self.fact, self.command, self.step = fact, command, ""

    def __str__(self) -> str:
        return str(Problem(self.step, self.fact, command=self.command))


class StoreError(RunnerError):
    """The store cannot be read or written."""


def writing(place: object) -> AbstractContextManager[None]:
    """Turn what the file system refuses while the store is written into a StoreError."""
    return _refusals(f"{place}: cannot be written")


def reading(place: object) -> AbstractContextManager[None]:
    """Turn what the file system refuses while the store is read into a StoreError."""
    return _refusals(f"{place}: cannot be read")


@contextmanager
def _refusals(fact: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{fact}: {error.strerror or error}.") from error


@contextmanager
def failing_as(step: str) -> Iterator[None]:
    """Give a failure the step's name; what the file system refuses is no fault of ours."""
    try:
        yield
    except StepError as error:
        error.step = error.step or step
        raise
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        failure = StepError(f"{error.strerror}: {error.filename or 'while it wrote or read'}.")
        failure.step = step
        raise failure from error


class Stopped(RunnerError):  # noqa: N818  not a failure: the run was asked to stop
    """A signal asked the run to stop; what was done so far is kept."""

    def __init__(self, signal_name: str) -> None:
        self.exit_code = EXIT_INTERRUPTED if signal_name == "SIGINT" else EXIT_PREEMPTED
        super().__init__(f"stopped by {signal_name}; the same command goes on from here")


def page_of(error: BaseException) -> Path | None:
    """The page in the run's folder that explains an error, where there is one."""
    for note in getattr(error, "__notes__", ()):
        if note.startswith(EXPLAINED):
            return Path(note.removeprefix(EXPLAINED))
    return None


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """`Did you mean "bits"?`, or nothing where no valid word is near."""
    from difflib import get_close_matches

    near = get_close_matches(str(word), list(valid), n=1, cutoff=0.6)
    return f'Did you mean "{near[0]}"?' if near else ""


def listing(words: Sequence[str]) -> str:
    """Words for the end of a sentence."""
    return ", ".join(words) if words else "nothing"
