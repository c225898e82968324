"""From a recipe and words with many values to the jobs of a sweep, each composed and checked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from runner.changes import Axis, Change
from runner.compose import Composer, as_word, axes
from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.recipe import Recipe
from runner.stage import Stage
from runner.sweep.settings import Sweep
from runner.sweep.where import LAUNCH, Launch

OWN = ("sweep", LAUNCH)
"""What a recipe says of the sweep as a whole, and of no job."""
MOST_AT_FAULT = 20
"""Jobs with problems from which on further ones are not looked at."""


@dataclass(frozen=True)
class Composed:
    """One job: the overrides that make it what it is, and the recipe that they give."""

    overrides: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Expansion:
    """All jobs of a sweep, and the names of what differs between them."""

    settings: Sweep
    launch: Launch
    varied: tuple[str, ...]
    jobs: tuple[Composed, ...]


def expand(name: str, words: Sequence[str], stages: Mapping[str, Stage]) -> Expansion:
    """Compose every job of a sweep; RecipeError with the problems of all of them.

    `words` are overrides, some with many values; the recipe's `sweep` block is counted in.
    """
    composer, asked = Composer(name, stages), axes(name, words)
    base = _base(composer, asked)
    settings = base.sweep or Sweep()
    named = {axis.key for axis in asked}
    params = {key: value for key, value in (settings.params or {}).items() if key not in named}
    every = [*axes(name, [as_word(key, value) for key, value in params.items()]), *asked]
    if settings.repeat > 1:
        every.append(_seeds(base, settings.repeat, every))
    _check(every, settings, base)
    varied = tuple(axis.key for axis in every if len(axis.changes) > 1)
    jobs = _composed(composer, _together(every, _groups(settings)))
    return Expansion(settings, base.launch or Launch(), varied, tuple(jobs))


def _base(composer: Composer, asked: Sequence[Axis]) -> Recipe:
    """The recipe with the first values; where that fails, the problems of all jobs."""
    try:
        return composer.recipe([axis.changes[0] for axis in asked])
    except RecipeError:
        list(_composed(composer, _together(asked, [])))
        raise


def _seeds(base: Recipe, repeat: int, every: Sequence[Axis]) -> Axis:
    """Each job again with other seeds, from the recipe's own on."""
    if any(axis.key == "seed" and len(axis.changes) > 1 for axis in every):
        fact = "sweep.repeat takes seeds one after another, and seed has many values already."
        raise RecipeError([Problem("sweep.repeat", fact, "Leave one of them out.")])
    seed = int(base.plain["seed"])
    seeds = range(seed, seed + repeat)
    return Axis("seed", tuple(Change(("seed",), f"seed={each}", each) for each in seeds))


def _groups(settings: Sweep) -> list[tuple[str, ...]]:
    """The names that go side by side."""
    lists = [each for each in settings.zip if isinstance(each, tuple)]
    names = tuple(each for each in settings.zip if isinstance(each, str))
    return [*lists, names] if names else lists


def _check(every: Sequence[Axis], settings: Sweep, base: Recipe) -> None:
    problems = [
        *_zip_problems(every, settings),
        *_objective_problems(settings, base),
        *_timeout_problems(settings, base),
    ]
    problems += [
        Problem(axis.key, "the sweep's own settings take one value.")
        for axis in every
        if axis.key.split(".")[0] in OWN and len(axis.changes) > 1
    ]
    if problems:
        raise RecipeError(problems)


def _zip_problems(every: Sequence[Axis], settings: Sweep) -> Iterator[Problem]:
    """What is wrong with values that are to go side by side."""
    lengths = {axis.key: len(axis.changes) for axis in every}
    seen: set[str] = set()
    for group in _groups(settings):
        for name in group:
            if name not in lengths:
                guess = did_you_mean(name, lengths) or f"Values have: {listing([*lengths])}."
                yield Problem("sweep.zip", f'"{name}" has no values.', guess)
            elif name in seen:
                yield Problem("sweep.zip", f'"{name}" stands there twice.')
            seen.add(name)
        counts = {name: lengths[name] for name in group if name in lengths}
        if len({*counts.values()}) > 1:
            said = ", ".join(f"{name} has {count}" for name, count in counts.items())
            yield Problem("sweep.zip", f"goes side by side with as many values each: {said}.")


def _objective_problems(settings: Sweep, base: Recipe) -> Iterator[Problem]:
    if settings.objective is None:
        return
    step, _, figure = settings.objective.partition(".")
    names = [each.name for each in base.steps]
    if step not in names or not figure:
        guess = "" if step in names else did_you_mean(step, names)
        guess = guess or "Write STEP.FIGURE, as evaluate.exact_match."
        fact = f'"{settings.objective}" is no figure of a step.'
        yield Problem("sweep.objective", fact, guess)


def _timeout_problems(settings: Sweep, base: Recipe) -> Iterator[Problem]:
    names = [each.name for each in base.steps]
    for step in settings.timeout if isinstance(settings.timeout, dict) else ():
        if step not in names:
            guess = did_you_mean(step, names) or f"The steps are: {listing(names)}."
            yield Problem("sweep.timeout", f'there is no step "{step}".', guess)


def _together(
    every: Sequence[Axis], groups: Sequence[tuple[str, ...]]
) -> Iterator[tuple[Change, ...]]:
    """The overrides of each job, in the order of the words: each with each, but for groups."""
    group_of = {name: group for group in groups for name in group}
    members: dict[tuple[str, ...], list[int]] = {}
    for number, axis in enumerate(every):
        members.setdefault(group_of.get(axis.key, (f"{number}",)), []).append(number)
    rows = [
        [*zip(*(every[number].changes for number in numbers), strict=True)]
        for numbers in members.values()
    ]
    order = [number for numbers in members.values() for number in numbers]
    for chosen in product(*rows):
        found = dict(zip(order, (change for row in chosen for change in row), strict=True))
        yield tuple(found[number] for number in range(len(every)))


def _composed(composer: Composer, jobs: Iterable[tuple[Change, ...]]) -> Iterator[Composed]:
    problems: list[Problem] = []
    at_fault = 0
    for changes in jobs:
        try:
            recipe = composer.recipe(changes)
        except RecipeError as error:
            problems += [each for each in error.problems if each not in problems]
            at_fault += 1
            if at_fault >= MOST_AT_FAULT:
                break
            continue
        about_jobs = (change.text for change in changes if change.where[0] not in OWN)
        yield Composed(tuple(about_jobs), recipe)
    if problems:
        raise RecipeError(problems)
