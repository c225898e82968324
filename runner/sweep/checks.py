"""What is wrong with the settings of a sweep, found before any job is composed."""

from collections.abc import Callable, Iterator, Sequence

from runner import extras
from runner.changes import Axis
from runner.errors import Problem, did_you_mean, listing
from runner.recipe import Recipe
from runner.sweep.settings import JOB_FIGURES, Sweep
from runner.sweep.space import Space
from runner.sweep.where import LAUNCH

OF_ALL = ("sweep", LAUNCH)
"""What a recipe says of the sweep as a whole, and of no job."""


def problems_of(
    every: Sequence[Axis], space: Space, settings: Sweep, base: Recipe
) -> Iterator[Problem]:
    """All that is wrong; `base` is the recipe with the first value of each axis."""
    yield from _of_zip(every, settings)
    yield from _of_values(every, settings)
    yield from _of_objectives(settings, base)
    yield from _of_timeout(settings, base)
    if settings.search == "optuna":
        yield from _of_study(space, settings, base)


def _of_zip(every: Sequence[Axis], settings: Sweep) -> Iterator[Problem]:
    """What is wrong with values that are to go side by side."""
    spans = {axis.key for axis in every if axis.span}
    lengths = {axis.key: len(axis.changes) for axis in every}
    seen: set[str] = set()
    for group in settings.groups:
        for name in group:
            if name not in lengths:
                guess = did_you_mean(name, lengths) or f"Values have: {listing([*lengths])}."
                yield Problem("sweep.zip", f'"{name}" has no values.', guess)
            elif name in spans:
                yield Problem("sweep.zip", f'"{name}" is an interval, and has no list of values.')
            elif name in seen:
                yield Problem("sweep.zip", f'"{name}" stands there twice.')
            seen.add(name)
        counts = {name: lengths[name] for name in group if name in lengths}
        if len({*counts.values()}) > 1:
            said = ", ".join(f"{name} has {count}" for name, count in counts.items())
            yield Problem("sweep.zip", f"goes side by side with as many values each: {said}.")


def _of_values(every: Sequence[Axis], settings: Sweep) -> Iterator[Problem]:
    for axis in every:
        if axis.key.split(".")[0] in OF_ALL and axis.varies:
            yield Problem(axis.key, "the sweep's own settings take one value.")
        elif axis.span and settings.search == "grid":
            fact = "interval() is drawn from by a search, and a grid takes every value."
            guess = "Write a list, or range(START, STOP, STEP); or search: sweep.search=random"
            yield Problem(axis.key, fact, guess)


def _of_objectives(settings: Sweep, base: Recipe) -> Iterator[Problem]:
    try:
        names = settings.objectives
    except ValueError:
        fact = "takes one direction for all objectives, or a list with one for each."
        yield Problem("sweep.direction", fact)
        return
    for name in names:
        if name not in JOB_FIGURES:
            yield from _of_figure("sweep.objective", name, base)


def _of_figure(where: str, name: str, base: Recipe) -> Iterator[Problem]:
    """What is wrong with a name that is to be that of a step's figure."""
    step, steps = name.partition(".")[0], [each.name for each in base.steps]
    if any(name.startswith(f"{each}.") for each in steps):
        return
    guess = "" if step in steps else did_you_mean(step, steps)
    guess = guess or "Write STEP.FIGURE, as evaluate.exact_match."
    yield Problem(where, f'"{name}" is no figure of a step.', guess)


def _of_timeout(settings: Sweep, base: Recipe) -> Iterator[Problem]:
    names = [each.name for each in base.steps]
    for step in settings.timeout if isinstance(settings.timeout, dict) else ():
        if step not in names:
            guess = did_you_mean(step, names) or f"The steps are: {listing(names)}."
            yield Problem("sweep.timeout", f'there is no step "{step}".', guess)


def _of_study(space: Space, settings: Sweep, base: Recipe) -> Iterator[Problem]:
    """What Optuna could not go on with."""
    if fact := extras.missing("optuna"):
        yield Problem("sweep.search", fact)
        return
    from runner.sweep import study

    if not settings.objectives:
        yield Problem("sweep.search", "needs to know which score is looked for: sweep.objective.")
    if settings.repeat > 1:
        yield Problem("sweep.repeat", "is for a grid and for a random search.")
    if not any(each.size > 1 for each in space.dimensions):
        yield Problem("sweep.search", "nothing has more than one value.")
    if settings.pruner is not None:
        yield from _of_pruner(settings, base)
    makers: dict[str, Callable[[], object]] = {
        "sweep.sampler": lambda: study.sampler(settings, 0),
        "sweep.pruner": lambda: study.pruner(settings),
    }
    for where, make in makers.items():
        try:
            make()
        except (TypeError, ValueError) as error:
            yield Problem(where, f"{error}".rstrip(".") + ".")


def _of_pruner(settings: Sweep, base: Recipe) -> Iterator[Problem]:
    yield from _of_figure("sweep.report", settings.report, base)
    if base.launch and base.launch.kind != "local":
        fact = f"launch={base.launch.kind} tells nothing of a step before its end."
        yield Problem("sweep.pruner", fact, "Take launch=local, or sweep.pruner=null.")
    if len(settings.objectives) > 1:
        yield Problem("sweep.pruner", "Optuna gives trials up for one objective, not for several.")
