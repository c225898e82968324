"""What lies beside a saved model: the recipe, its lock file, and where everything came from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner import files, lock, provenance
from runner.plan import versions
from runner.secrets import masked
from runner.stage import About, Context

RECIPE, LINEAGE = "recipe.yaml", "lineage.json"
PAPERS = ("README.md", RECIPE, str(lock.path_of(Path(RECIPE))), LINEAGE)
"""What a saved folder holds beside the model: it has times and versions in it."""
SCHEMA = 1
DESTINATION = ("push", "overwrite")
"""What of a step that saves is left out of the recipe: nobody else means these places."""


def write(folder: Path, context: Context) -> None:
    """Write all three, without paths of this machine, tokens, or times of this very run.

    Whoever moves the folder into place syncs it before.
    """
    about, clean = context.about, Cleaner.of(context)
    recipe = clean.cleaned(_without_places(dict(about.plain), about.step))
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    files.write_text(folder / RECIPE, text, synced=False)
    sources = {name: clean.cleaned(row) for name, row in about.sources.items()}
    locked = lock.Lock(lock.path_of(folder / RECIPE), sources, versions())
    files.write_text(locked.path, lock.rendered(locked), synced=False)
    files.write_json(folder / LINEAGE, lineage(about, clean), synced=False)


def lineage(about: About, clean: "Cleaner") -> dict[str, Any]:
    """Every step that the model builds on: key, inputs, digest, figures, when and how long.

    With the machine that saved it, since a result that cannot be had again may be for that.
    """
    return {
        "schema": SCHEMA,
        "recipe": about.recipe,
        "step": about.step,
        "machine": provenance.machine(),
        "steps": [clean.cleaned(row) for row in about.lineage],
    }


@dataclass(frozen=True)
class Cleaner:
    """Takes this machine's paths out of values: what lies beside the recipe is said from there."""

    beside: Path
    places: Sequence[Path]

    @classmethod
    def of(cls, context: Context) -> "Cleaner":
        """The places that a step of this context knows of, the innermost first."""
        place = context.about.place
        beside = place.parent.absolute() if place else Path.cwd()
        places = [beside, Path.cwd(), Path.home(), *list(context.draft.absolute().parents)[:3]]
        return cls(beside, sorted({each for each in places if len(each.parts) > 1}, reverse=True))

    def cleaned(self, value: Any) -> Any:
        """A value as JSON holds it, likewise without secrets."""
        return masked(self._cleaned(value))

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            return self._text(str(value))
        if isinstance(value, Mapping):
            return {self._text(str(name)): self._cleaned(each) for name, each in value.items()}
        return (
            [self._cleaned(each) for each in value] if isinstance(value, (list, tuple)) else value
        )

    def _text(self, text: str) -> str:
        """A path beside the recipe from there on, of another one the last part; a text without."""
        if text.startswith("/") and not re.search(r"\s", text):
            path = Path(text)
            inside = path.is_relative_to(self.beside) and path != self.beside
            return path.relative_to(self.beside).as_posix() if inside else path.name
        for place in self.places:
            text = text.replace(f"{place}/", "")
        return text


def _without_places(recipe: dict[str, Any], step: str) -> dict[str, Any]:
    recipe.pop("store", None)
    told = dict(recipe.get(step) or {})
    kept = {name: value for name, value in told.items() if name not in DESTINATION}
    if kept.get("to"):
        kept["to"] = Path(str(kept["to"])).name
    return {**recipe, step: kept} if told else recipe
