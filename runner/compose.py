"""From a recipe's name and overrides to a checked Recipe.

Hydra composes; everything that it would accept in silence, or say without a file and line, is
found here. All problems of a recipe are collected and raised together.
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner import origins, overriding, places
from runner.changes import Change, exchanged, is_leaf, overlap, places_of
from runner.composing import Composed
from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.link import Known, link
from runner.origins import Document, Origins
from runner.recipe import Recipe
from runner.stage import Stage
from runner.sweep.where import LAUNCH


def compose(
    name: str,
    overrides: Sequence[str],
    stages: Mapping[str, Stage],
    keep: Callable[[Composed], None] = lambda _: None,
) -> Recipe:
    """Compose and check a recipe; RecipeError with every problem that was found.

    `keep` is given what a recipe without a problem was linked of.
    """
    problems: list[Problem] = []
    changes = [change for text in overrides if (change := overriding.one(text, problems))]
    return Composer(name, stages, problems).recipe(changes, keep)


class Composer:
    """Gives for any overrides what `compose` gives; what they share is composed once.

    `problems` are what is known already to be wrong, whatever the overrides.
    """

    def __init__(
        self, name: str, stages: Mapping[str, Stage], problems: Sequence[Problem] = ()
    ) -> None:
        self.path, self.stages, self.problems = places.find_recipe(name), stages, problems
        document, found = origins.read(self.path)
        if document is None or found:
            raise RecipeError(found)
        self.document = document
        self.forms: dict[tuple[Any, ...], _Form] = {}

    def recipe(
        self, changes: Sequence[Change], keep: Callable[[Composed], None] = lambda _: None
    ) -> Recipe:
        """The recipe with these overrides; RecipeError with every problem that was found."""
        form = tuple(each.where if each.is_plain else each.text for each in changes)
        if form not in self.forms:
            with _hydra(self.path) as loader:
                problems = [*self.problems]
                groups = [*self.stages, LAUNCH]
                source = _Source(loader, self.document, changes, groups, problems)
                self.forms[form] = _Form(source, changes, self.stages)
        return self.forms[form].recipe(changes, keep)


@contextmanager
def _hydra(path: Path) -> Iterator[ConfigLoader]:
    """Hydra with the recipe's folder as its primary one, for this block only."""
    keywords = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with hydra.initialize_config_dir(str(path.parent), job_name="runner", **keywords):
            started = GlobalHydra.instance().hydra
            assert started is not None
            yield started.config_loader


class _Source:
    """One recipe as Hydra sees it: its files, the presets of its steps, and its values."""

    def __init__(
        self,
        loader: ConfigLoader,
        document: Document,
        changes: Sequence[Change],
        stages: Collection[str],
        problems: list[Problem],
    ) -> None:
        self.loader, self.document, self.problems = loader, document, problems
        self.stages, self.changes = stages, changes
        self.name = document.path.stem
        self.lists: dict[tuple[str, ...], Any] = {}
        self.folders = places.preset_folders(document.path)
        if at := document.find(("hydra",)):
            problems.append(Problem(at.text, "hydra's own settings mean nothing here."))
        self.search = f"hydra.searchpath=[{','.join(map(_as_url, self.folders))}]"
        words = self._findable([self.search])
        self.written = self._written(words, [])
        self.under: dict[str, str] = {}
        self.values: list[Change] = []
        self.words = words + self._choose(words)
        slots = self._slots(self.words)
        self.written = self._written(self.words, self.under.items())
        self.composed = self._composed(slots)

    def _composed(self, slots: Mapping[str, str]) -> DictConfig:
        """The recipe with its presets, before the values that overrides set."""
        try:
            composed: DictConfig = hydra.compose(self.name, self.words)
            OmegaConf.set_struct(composed, False)
            for slot, preset in slots.items():
                step = slot.rpartition("@")[2]
                if composed.get(step) is None and preset and step in composed.get("steps", ()):
                    self.under[step] = preset
            for step, preset in self.under.items():
                self._lay_under(composed, step, preset)
        except (HydraException, OmegaConfBaseException) as error:
            self._cannot_compose(error)
        return composed

    def plain(self, values: Sequence[Change]) -> tuple[dict[str, Any], bool]:
        """The composed recipe as plain values, and whether some values refer to others.

        RecipeError where it can't be composed.
        """
        composed = deepcopy(self.composed)
        try:
            self._apply(composed, values)
            refers = "${" in str(OmegaConf.to_container(composed))
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException) as error:
            self._cannot_compose(error)
        assert isinstance(plain, dict)
        return {str(name): value for name, value in plain.items()}, refers

    def _choose(self, words: list[str]) -> list[str]:
        """Sort the changes; give Hydra's words for the presets that replace a chosen one.

        A preset for a step that chose none is laid under the recipe's own values later: added to
        Hydra's list it would come after them, and one override would mean two things.
        """
        slots, chosen = self._slots(words), []
        for change in self.changes:
            step = change.where[0]
            group, preset = self._stage_of(step), change.value
            slot = group if step == group else f"{group}@{step}"
            if change.removes_step:
                continue
            if len(change.where) > 1 or group not in self.stages or isinstance(preset, dict):
                self.values.append(change)
            elif preset is None:
                chosen += [f"~{slot}"] if slot in slots else []
            elif self._is_preset(change, group, preset):
                if slot in slots:
                    chosen.append(f"{slot}={preset}")
                else:
                    self.under[step] = str(preset)
        return chosen

    def _is_preset(self, change: Change, group: str, preset: Any) -> bool:
        """Whether there is such a preset, and one that can be read; else that is a problem."""
        step, valid = change.where[0], places.presets_for(group, self.folders)
        if not isinstance(preset, str):
            fact = f"{step} takes a preset or a mapping of options."
            guess = f"To set one option, write {step}.OPTION={preset}."
        elif preset not in valid:
            fact = f'{group} has no preset "{preset}".'
            guess = did_you_mean(preset, valid) or f"There are: {listing([*valid])}."
        else:
            _, found = origins.read(valid[preset])
            self.problems += found
            return not found
        self.problems.append(Problem(change.problem_place, fact, guess))
        return False

    def _stage_of(self, step: str) -> str:
        return origins.stage_of(self.written.documents, step)

    def _lay_under(self, composed: DictConfig, step: str, preset: str) -> None:
        group = self._stage_of(step)
        found = hydra.compose(None, [self.search, f"+{group}={preset}"])
        OmegaConf.set_struct(found, False)
        composed[step] = OmegaConf.merge(found.get(group) or {}, composed.get(step) or {})

    def _apply(self, composed: DictConfig, values: Sequence[Change]) -> None:
        """Set and take away what the overrides name, in their order, whoever set it before."""
        for change in values:
            if not change.deletes:
                OmegaConf.update(composed, ".".join(change.where), change.value, force_add=True)
                continue
            *parents, last = change.where
            holder = OmegaConf.select(composed, ".".join(parents))
            if isinstance(holder, DictConfig) and last in holder:
                del holder[last]
            else:
                names = [str(name) for name in holder] if isinstance(holder, DictConfig) else []
                fact = f"{'.'.join(parents)} sets no {last}."
                self.problems.append(Problem(change.problem_place, fact, did_you_mean(last, names)))

    def _slots(self, words: list[str]) -> dict[str, str]:
        """Which preset each step has: `quantize` or `generate@before` -> name."""
        chosen = self._defaults(words).overrides.known_choices
        return {
            slot: preset for slot, preset in chosen.items() if slot.split("@")[0] in self.stages
        }

    def _written(self, words: list[str], under: Collection[tuple[str, str]]) -> Origins:
        """Every file and override that takes part, the strongest first."""
        documents = [self.document]
        for default in reversed(self._defaults(words).defaults):
            config, package = default.config_path, default.package or ""
            if config and not config.startswith("hydra/") and not default.primary:
                documents += self._located(config, package)
        for step, preset in under:
            documents += self._located(f"{self._stage_of(step)}/{preset}", step)
        return Origins(places_of(self.changes), documents)

    def _located(self, config: str, package: str) -> Iterator[Document]:
        for folder in self.folders:
            path = folder / f"{config}.yaml"
            if path.is_file() and path != self.document.path:
                document, found = origins.read(path, tuple(package.split(".")) if package else ())
                self.problems += found
                if document:
                    yield document
                return

    def _findable(self, words: list[str]) -> list[str]:
        """The words with which Hydra finds every file; what it does not find is a problem."""
        while True:
            try:
                self._defaults(words)
                return words
            except MissingConfigException as error:
                group, _, preset = (error.missing_cfg_file or "").rpartition("/")
                self._not_there(group, preset)
                deletion = f"~{group}"
                if deletion in words or group not in self.stages:
                    raise RecipeError(self.problems) from error
                words = [*words, deletion]
            except yaml.MarkedYAMLError as error:
                name = error.problem_mark.name if error.problem_mark else ""
                self.problems += origins.read(Path(name))[1] if Path(name).is_file() else []
                self._cannot_compose(error)
            except (HydraException, OmegaConfBaseException, ValueError) as error:
                self._cannot_compose(error)

    def _not_there(self, group: str, preset: str) -> None:
        """A file that a defaults list names and nobody has: say where, and what was meant."""
        if not group:
            beside = [path.stem for path in self.document.path.parent.glob("*.yaml")]
            fact, guess = f'there is no "{preset}".', did_you_mean(preset, beside)
        elif group not in self.stages:
            fact = f'there is no stage "{group}" to choose a preset for.'
            guess = did_you_mean(group, self.stages)
        else:
            valid = [*places.presets_for(group, self.folders)]
            fact = f'{group} has no preset "{preset}".'
            guess = did_you_mean(preset, valid) or f"There are: {listing(valid)}."
        where = origins.short(self.document.path)
        for item, line in origins.values(self.document, "defaults"):
            names = item if isinstance(item, dict) else {"": item}
            if any(str(value) == preset and group in str(key) for key, value in names.items()):
                where = f"{where}:{line}"
                break
        self.problems.append(Problem(where, fact, guess))

    def _cannot_compose(self, error: Exception) -> Any:
        """What Hydra or OmegaConf says, in one line, at the place that it speaks of."""
        if self.problems and isinstance(error, yaml.YAMLError):
            raise RecipeError(self.problems) from error
        cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error
        place = str(getattr(cause, "full_key", None) or "")
        fact = str(cause).strip().splitlines()[0].rstrip(".") + "."
        if isinstance(error, ValueError) and not place:
            place, fact = "defaults", "is no list of files and presets, `- /stage: preset`."
        documents = getattr(self, "written", Origins([], [self.document]))
        where = documents.find(tuple(place.split(".")) if place else ()).text
        self.problems.append(Problem(where, f"{place}: {fact}" if place else fact))
        raise RecipeError(self.problems) from error

    def _defaults(self, words: list[str]) -> Any:
        """Hydra's list of all files; it reads every one of them, so it is asked for once."""
        known = tuple(words)
        if known not in self.lists:
            self.lists[known] = self.loader.compute_defaults_list(self.name, words, RunMode.RUN)
        return self.lists[known]


class _Form:
    """Recipes whose overrides name the same places and choose the same presets."""

    def __init__(
        self, source: _Source, changes: Sequence[Change], stages: Mapping[str, Stage]
    ) -> None:
        self.source, self.stages, self.known = source, stages, Known()
        self.documents, self.path = source.written.documents, source.document.path
        self.numbers = [number for number, each in enumerate(changes) if each in source.values]
        self.problems = [*source.problems]
        self.first: dict[str, Any] | None = None
        self.may_exchange = not overlap(source.values)

    def recipe(self, changes: Sequence[Change], keep: Callable[[Composed], None]) -> Recipe:
        """The recipe with these overrides; RecipeError with all problems."""
        self.source.changes = changes
        self.source.written = Origins(places_of(changes), self.documents)
        self.source.problems = [*self.problems]
        plain = self._plain([changes[number] for number in self.numbers])
        removed = {change.where[0] for change in changes if change.removes_step}
        written, problems = self.source.written, self.source.problems
        made = link(self.path, plain, removed, written, self.stages, problems, self.known)
        keep(Composed(self.path, plain, sorted(removed), written.overrides, self.documents))
        return made

    def _plain(self, values: Sequence[Change]) -> dict[str, Any]:
        """As Hydra and OmegaConf give it; where only scalars differ from the first, exchanged."""
        is_safe = all("${" not in str(c.value) and c.value != "???" for c in values)
        if self.first is not None and self.may_exchange and is_safe:
            return exchanged(self.first, [each for each in values if each.is_plain])
        plain, refers = self.source.plain(values)
        if self.first is None:
            self.first, leaves = plain, [each.where for each in values if each.is_plain]
            self.may_exchange &= is_safe and not refers
            self.may_exchange &= all(is_leaf(plain, where) for where in leaves)
        return plain


def _as_url(folder: Path) -> str:
    """A folder as an item of Hydra's search path, whatever characters its name has."""
    return "'file://" + str(folder).replace("'", r"\'") + "'"
