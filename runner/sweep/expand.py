"""From a recipe and words with many values to the jobs of a sweep, each composed and checked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.changes import Axis, Change
from runner.compose import Composer
from runner.errors import Problem, RecipeError
from runner.overriding import as_word, axes
from runner.recipe import Recipe
from runner.stage import Stage
from runner.sweep.checks import OF_ALL, problems_of
from runner.sweep.settings import Sweep
from runner.sweep.space import Space
from runner.sweep.where import Launch

MOST_AT_FAULT = 20
"""Jobs with problems from which on further ones are not looked at."""


@dataclass(frozen=True)
class Composed:
    """One job: the overrides that make it what it is, and the recipe that they give."""

    overrides: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Expansion:
    """All jobs of a sweep, and the names of what differs between them.

    Where Optuna proposes the jobs, those here are the corners of the `space` that it searches.
    """

    settings: Sweep
    launch: Launch
    varied: tuple[str, ...]
    jobs: tuple[Composed, ...]
    space: Space
    composer: Composer

    def describe(self) -> list[Any]:
        """All that decides which jobs a search proposes, beside what they are composed of."""
        about = self.settings
        study = [about.search, about.seed, about.sampler, about.pruner, about.report]
        varied = [each.told for each in self.space.dimensions if each.size > 1]
        return [*study, [*about.objectives.items()], varied]

    def job(self, changes: Sequence[Change]) -> Composed:
        """One more job; RecipeError with what is wrong with it."""
        [job] = _composed(self.composer, [changes])
        return job


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
    space = Space(every, settings.groups)
    if problems := [*problems_of(every, space, settings, base)]:
        raise RecipeError(problems)
    seeds = [_seeds(base, settings.repeat, every)] if settings.repeat > 1 else []
    chosen = (one + each for one in _chosen(space, settings) for each in Space(seeds, []).grid())
    varied = tuple(axis.key for axis in [*every, *seeds] if axis.varies)
    launch, jobs = base.launch or Launch(), tuple(_composed(composer, chosen))
    return Expansion(settings, launch, varied, jobs, space, composer)


def _chosen(space: Space, settings: Sweep) -> Iterator[tuple[Change, ...]]:
    """The overrides of the jobs, as far as they are known before any has run; without repeats."""
    if settings.search == "random":
        return space.drawn(settings.trials, settings.seed)
    return space.corners() if settings.search == "optuna" else space.grid()


def _base(composer: Composer, asked: Sequence[Axis]) -> Recipe:
    """The recipe with the first values; where that fails, the problems of all jobs."""
    try:
        return composer.recipe([axis.changes[0] for axis in asked])
    except RecipeError:
        list(_composed(composer, Space(asked, []).grid()))
        raise


def _seeds(base: Recipe, repeat: int, every: Sequence[Axis]) -> Axis:
    """Each job again with other seeds, from the recipe's own on."""
    if any(axis.key == "seed" and axis.varies for axis in every):
        fact = "sweep.repeat takes seeds one after another, and seed has many values already."
        raise RecipeError([Problem("sweep.repeat", fact, "Leave one of them out.")])
    seed = int(base.plain["seed"])
    seeds = range(seed, seed + repeat)
    return Axis("seed", tuple(Change(("seed",), f"seed={each}", each) for each in seeds))


def _composed(composer: Composer, jobs: Iterable[Sequence[Change]]) -> Iterator[Composed]:
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
        about_jobs = (change.text for change in changes if change.where[0] not in OF_ALL)
        yield Composed(tuple(about_jobs), recipe)
    if problems:
        raise RecipeError(problems)
