"""From a recipe's name and overrides to a checked Recipe. The only module that imports hydra.

Hydra composes; everything that it would accept in silence, or say without a file and line, is
found here. All problems of a recipe are collected and raised together.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
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
    document, problems = origins.read(path)
    if document is None or problems:
        raise RecipeError(problems)
    changes = [change for text in overrides if (change := _parse(text, problems))]
    with _hydra(path) as loader:
        source = _Source(loader, document, changes, [*stages], problems)
        plain = source.plain()
    removed = {change.where[0] for change in changes if change.removes_step}
    return link(path, plain, removed, source.written, stages, problems)


@dataclass(frozen=True)
class Change:
    """One override: the place that it changes, and its text."""

    where: Where
    text: str
    parsed: Override

    @property
    def deletes(self) -> bool:
        """Whether it takes something away."""
        return self.parsed.type is OverrideType.DEL

    @property
    def removes_step(self) -> bool:
        """Whether it leaves a step out: `~before`."""
        return self.deletes and len(self.where) == 1

    @property
    def problem_place(self) -> str:
        """The override, for a message."""
        return f'override "{self.text}"'


def _parse(text: str, problems: list[Problem]) -> Change | None:
    where = f'override "{text}"'
    try:
        parsed = OverridesParser.create().parse_override(text)
        if not parsed.key_or_group:
            raise HydraException("it names nothing")
    except HydraException as error:
        fact = f"cannot be read ({str(error).splitlines()[0]})."
        problems.append(Problem(where, fact, "Write name=value."))
        return None
    if parsed.is_sweep_override():
        fact = "gives many values, and a run takes one."
        problems.append(Problem(where, fact, f"For a list write {text.split('=')[0]}=[...]."))
        return None
    if parsed.key_or_group.split(".")[0] == "hydra":
        problems.append(Problem(where, "hydra's own settings mean nothing here."))
        return None
    return Change(tuple(parsed.key_or_group.split(".")), text, parsed)


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

    def plain(self) -> dict[str, Any]:
        """The composed recipe as plain values; RecipeError where it can't be composed."""
        slots = self._slots(self.words)
        self.written = self._written(self.words, self.under.items())
        try:
            composed = hydra.compose(self.name, self.words)
            OmegaConf.set_struct(composed, False)
            for slot, preset in slots.items():
                step = slot.rpartition("@")[2]
                if composed.get(step) is None and preset and step in composed.get("steps", ()):
                    self.under[step] = preset
            for step, preset in self.under.items():
                self._lay_under(composed, step, preset)
            self._apply(composed)
            plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException) as error:
            self._cannot_compose(error)
        assert isinstance(plain, dict)
        return {str(name): value for name, value in plain.items()}

    def _choose(self, words: list[str]) -> list[str]:
        """Sort the changes; give Hydra's words for the presets that replace a chosen one.

        A preset for a step that chose none is laid under the recipe's own values later: added to
        Hydra's list it would come after them, and one override would mean two things.
        """
        slots, chosen = self._slots(words), []
        for change in self.changes:
            step = change.where[0]
            group, preset = self._stage_of(step), change.parsed.value()
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
        for document in self.written.documents:
            for name, value in origins.pairs(document.root) if not document.package else []:
                if name == step:
                    for key, node in origins.pairs(value):
                        if key == "stage":
                            return str(node.value)
        return step

    def _lay_under(self, composed: DictConfig, step: str, preset: str) -> None:
        group = self._stage_of(step)
        found = hydra.compose(None, [self.search, f"+{group}={preset}"])
        OmegaConf.set_struct(found, False)
        composed[step] = OmegaConf.merge(found.get(group) or {}, composed.get(step) or {})

    def _apply(self, composed: DictConfig) -> None:
        """Set and take away what the overrides name, in their order, whoever set it before."""
        for change in self.values:
            if not change.deletes:
                value = change.parsed.value()
                OmegaConf.update(composed, ".".join(change.where), value, force_add=True)
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
        changes = [(c.where, c.text) for c in self.changes if not c.deletes]
        return Origins(changes, documents)

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


def _as_url(folder: Path) -> str:
    """A folder as an item of Hydra's search path, whatever characters its name has."""
    return "'file://" + str(folder).replace("'", r"\'") + "'"
