"""From a recipe's name and overrides to a checked Recipe. The only module that imports hydra.

Hydra composes; everything that it would accept in silence, or say without a file and line, is
found here. All problems of a recipe are collected and raised together.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from runner import origins, places
from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.link import link
from runner.origins import Document, Origins, Where
from runner.recipe import Recipe
from runner.stage import Stage


def compose(name: str, overrides: Sequence[str], stages: Mapping[str, Stage]) -> Recipe:
    """Compose and check a recipe; RecipeError with every problem that was found."""
    path = places.find_recipe(name)
    problems: list[Problem] = []
    document, found = origins.read(path)
    if document is None or found:
        raise RecipeError(found)
    changes = _parse(overrides, problems)
    with _hydra(path) as loader:
        source = _Source(path.stem, loader, document, changes, problems)
        plain = source.plain()
        documents = source.documents()
    written = Origins([(change.where, change.text) for change in changes.values], documents)
    return link(path, plain, changes.removed, written, stages, problems)


@dataclass(frozen=True)
class Change:
    """One override: the place it sets and its text."""

    where: Where
    text: str
    parsed: Override


@dataclass
class Changes:
    """The overrides of the command line, sorted by what they do."""

    values: list[Change]
    choices: list[Change]
    removed: set[str]


def _parse(overrides: Sequence[str], problems: list[Problem]) -> Changes:
    parser, changes = OverridesParser.create(), Changes([], [], set())
    for text in overrides:
        where = f'override "{text}"'
        try:
            parsed = parser.parse_override(text)
        except (OverrideParseException, HydraException) as error:
            hint = str(error).splitlines()[0]
            problems.append(Problem(where, f"cannot be read ({hint}).", "Write name=value."))
            continue
        if parsed.is_sweep_override():
            fact = "gives many values, and a run takes one."
            problems.append(Problem(where, fact, f"For a list write {text.split('=')[0]}=[...]."))
        elif parsed.type is OverrideType.DEL and "." not in parsed.key_or_group:
            changes.removed.add(parsed.key_or_group)
        elif "." not in parsed.key_or_group and isinstance(parsed.value(), str):
            changes.choices.append(Change((parsed.key_or_group,), text, parsed))
        else:
            changes.values.append(Change(tuple(parsed.key_or_group.split(".")), text, parsed))
    return changes


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
    """One recipe as Hydra sees it."""

    def __init__(
        self,
        name: str,
        loader: ConfigLoader,
        document: Document,
        changes: Changes,
        problems: list[Problem],
    ) -> None:
        self.name, self.loader, self.document = name, loader, document
        self.changes, self.problems = changes, problems
        folders = [str(folder) for folder in places.preset_folders(document.path)]
        self.search = f"hydra.searchpath=[{','.join(f'file://{each}' for each in folders)}]"
        self.groups = {
            group for folder in places.preset_folders(document.path) for group in _folders(folder)
        }
        self.stage_of = self._stages_named()
        self.later: list[Change] = []
        self.overrides = self._without_unknown_presets([self.search, *self._chosen()])

    def plain(self) -> dict[str, Any]:
        """The composed recipe as plain values; empty where it can't be composed."""
        values = ["++" + change.text.lstrip("+") for change in self.changes.values]
        try:
            composed = hydra.compose(self.name, [*self.overrides, *values])
            for change in self.later:
                self._lay_under(composed, change)
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
            assert isinstance(plain, dict)
            return {str(name): value for name, value in plain.items()}
        except (HydraException, OmegaConfBaseException) as error:
            fact = " ".join(str(error.__cause__ or error).split())
            self.problems.append(Problem(origins.short(self.document.path), fact))
            raise RecipeError(self.problems) from error

    def documents(self) -> list[Document]:
        """Every file that takes part, the strongest first."""
        found = [self.document]
        for path, package in self._files():
            document, problems = origins.read(path, package)
            self.problems += problems
            if document:
                found.append(document)
        return found

    def _files(self) -> Iterator[tuple[Path, Where]]:
        listed = self._defaults(self.overrides).defaults
        for default in reversed(listed):
            config, package = default.config_path, default.package or ""
            if config and not config.startswith("hydra/") and not default.primary:
                yield from self._located(config, package)
        for change in self.later:
            group, step = self._group(change.where[0]), change.where[0]
            yield from self._located(f"{group}/{change.parsed.value()}", step)

    def _located(self, config: str, package: str) -> Iterator[tuple[Path, Where]]:
        for folder in (self.document.path.parent, *places.preset_folders(self.document.path)):
            path = folder / f"{config}.yaml"
            if path.is_file() and path != self.document.path:
                yield path, tuple(package.split(".")) if package else ()
                return

    def _stages_named(self) -> dict[str, str]:
        """Step name -> stage name, for the steps that say `stage:` in the recipe itself."""
        return {
            step: text.value
            for step, value in origins.pairs(self.document.root)
            for name, text in origins.pairs(value)
            if name == "stage"
        }

    def _group(self, step: str) -> str:
        return self.stage_of.get(step, step)

    def _chosen(self) -> list[str]:
        """Hydra's words for `step=preset`, for the presets that the recipe chooses itself.

        A preset for a step without one is laid under the recipe's own values later: added to
        Hydra's list it would come after them, and the same override would mean two things.
        """
        chosen, words = self._choices(), []
        for change in self.changes.choices:
            step, group = change.where[0], self._group(change.where[0])
            if group not in self.groups or change.text.startswith("++"):
                self.changes.values.append(change)
            elif (slot := group if step == group else f"{group}@{step}") in chosen:
                words.append(f"{slot}={change.parsed.value()}")
            else:
                self.later.append(change)
        return words

    def _choices(self) -> set[str]:
        found = set()
        for item, _ in origins.values(self.document, "defaults"):
            for key in item if isinstance(item, dict) else []:
                found.add(str(key).replace("override ", "").replace("optional ", "").lstrip("/"))
        return found

    def _lay_under(self, composed: DictConfig, change: Change) -> None:
        group, step = self._group(change.where[0]), change.where[0]
        try:
            preset = hydra.compose(f"{group}/{change.parsed.value()}", [self.search])[group]
        except MissingConfigException as error:
            self._unknown_preset(error, f'override "{change.text}"')
            return
        OmegaConf.set_struct(composed, False)
        composed[step] = OmegaConf.merge(preset, composed.get(step) or {})

    def _without_unknown_presets(self, overrides: list[str]) -> list[str]:
        """The overrides with which Hydra finds every file; what it does not find is a problem."""
        while True:
            try:
                self._defaults(overrides)
                return overrides
            except MissingConfigException as error:
                missing = error.missing_cfg_file or ""
                group, _, preset = missing.rpartition("/")
                given = [c for c in self.changes.choices if c.parsed.value() == preset]
                if given:
                    self._unknown_preset(error, f'override "{given[0].text}"')
                    overrides = [text for text in overrides if not text.endswith(f"={preset}")]
                    continue
                self._unknown_preset(error, self._line_of(group, preset))
                deletion = f"~{group}"
                if deletion in overrides or group not in self.groups:
                    raise RecipeError(self.problems) from error
                overrides = [*overrides, deletion]
            except HydraException as error:
                fact = " ".join(str(error).split())
                self.problems.append(Problem(origins.short(self.document.path), fact))
                raise RecipeError(self.problems) from error

    def _unknown_preset(self, error: MissingConfigException, where: str) -> None:
        group, _, preset = (error.missing_cfg_file or "").rpartition("/")
        valid = sorted(error.options or [])
        fact = f'{group} has no preset "{preset}".' if group else f'there is no "{preset}".'
        guess = did_you_mean(preset, valid) or f"There are: {listing(valid)}."
        self.problems.append(Problem(where, fact, guess))

    def _line_of(self, group: str, preset: str) -> str:
        for item, line in origins.values(self.document, "defaults"):
            names = item if isinstance(item, dict) else {"": item}
            if any(str(value) == preset and group in str(key) for key, value in names.items()):
                return f"{origins.short(self.document.path)}:{line}"
        return origins.short(self.document.path)

    def _defaults(self, overrides: list[str]) -> Any:
        return self.loader.compute_defaults_list(self.name, overrides, RunMode.RUN)


def _folders(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
