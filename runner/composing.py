"""A composed recipe, remembered by all that it was composed of, so that Hydra is not even imported.

What is remembered is what Hydra made of the files and overrides: plain values. They are linked and
checked anew each time, for that depends on the machine. They count only while every file has the
bytes that it had, no other one shadows it, and the code that composes is the same. What refers to
more than the recipe itself (`${oc.env:HOME}`, `${now:%H}`) is never remembered.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from runner import __version__, files, origins, places
from runner.errors import StoreError
from runner.link import link
from runner.origins import Document, Origins, Where, pairs
from runner.recipe import Recipe
from runner.stage import Stage
from runner.store import default_root

SCHEMA = 1
RACY = 2_000_000_000
"""Nanoseconds: a file that changed less before it was read may have changed again (memo.py)."""
MOST = 200
"""How many recipes are remembered at most."""
CODE = ("changes", "compose", "composing", "origins", "overriding", "places")
"""The modules that decide what a recipe is composed to."""


@dataclass(frozen=True)
class Composed:
    """What Hydra made of a recipe: its values, and where they were written."""

    path: Path
    values: Mapping[str, Any]
    removed: Sequence[str]
    overrides: Sequence[tuple[Where, str]]
    documents: Sequence[Document]

    def linked(self, stages: Mapping[str, Stage]) -> Recipe:
        """The recipe; RecipeError with every problem of the values."""
        written = Origins(self.overrides, self.documents)
        return link(self.path, self.values, self.removed, written, stages, [])


def compose(name: str, overrides: Sequence[str], stages: Mapping[str, Stage]) -> Recipe:
    """What `compose.compose` gives, from memory where that is sure to be the same."""
    path = places.find_recipe(name)
    memory = _Memory(path, overrides, stages)
    if found := memory.recall():
        return found.linked(stages)
    from runner import compose as anew

    begun = time.time_ns()
    return anew.compose(name, overrides, stages, lambda composed: memory.keep(composed, begun))


class _Memory:
    """One recipe with these overrides."""

    def __init__(self, path: Path, overrides: Sequence[str], stages: Iterable[str]) -> None:
        self.path, self.overrides = path, overrides
        self.folders = places.preset_folders(path)
        told = [SCHEMA, __version__, sys.version, _code(), str(path), [*overrides], sorted(stages)]
        key = files.digest_json([*told, *map(str, self.folders)])[:32]
        self.place = default_root() / "composed" / f"{key}.json"

    def recall(self) -> Composed | None:
        """What was remembered, if it still is so."""
        try:
            row = files.read_json(self.place)
            return self._revived(row) if row else None
        except (AttributeError, KeyError, OSError, StoreError, TypeError, ValueError):
            return None

    def _revived(self, row: Mapping[str, Any]) -> Composed | None:
        documents = []
        for name, package, digest in row["files"]:
            path = Path(name)
            shadowed = any(each.exists() for each in self._before(path))
            if shadowed or not path.is_file() or files.digest(path) != digest:
                return None
            document, problems = origins.read(path, tuple(package))
            if document is None or problems:
                return None
            documents.append(document)
        overrides = [(tuple(where), text) for where, text in row["overrides"]]
        return Composed(self.path, row["values"], row["removed"], overrides, documents)

    def keep(self, composed: Composed, begun: int) -> None:
        """Remember it, unless more than its files decides it, or they have only just changed."""
        read = [document.path for document in composed.documents]
        settled = all(_settled(path, begun) for path in read)
        if not settled or _has_plugins() or not self._is_closed(composed.documents):
            return
        row = {
            "files": [(str(d.path), d.package, files.digest(d.path)) for d in composed.documents],
            "overrides": composed.overrides,
            "removed": sorted(composed.removed),
            "values": composed.values,
        }
        if _holds(row["values"]):
            self._write(row)

    def _is_closed(self, documents: Sequence[Document]) -> bool:
        """Whether nothing but these files and overrides decides what they are composed to."""
        texts = [text for document in documents for text in _scalars(document.root)]
        nested = [d for d in documents if d.path != self.path and "defaults" in dict(pairs(d.root))]
        return not (nested or any(map(_reaches_out, texts)) or "$" in "".join(self.overrides))

    def _before(self, path: Path) -> Iterator[Path]:
        """Where a file would be found instead of this one; one folder may lie in another."""
        for index, folder in enumerate(self.folders):
            if path != self.path and path.is_relative_to(folder):
                yield from (each / path.relative_to(folder) for each in self.folders[:index])

    def _write(self, row: Mapping[str, Any]) -> None:
        """Keep the newest; a memory that cannot be written only costs time."""
        with suppress(OSError, StoreError, ValueError):
            files.make_folder(self.place.parent)
            files.write_json(self.place, row)
            known = sorted(self.place.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for path in known[:-MOST]:
                path.unlink(missing_ok=True)


def _code() -> list[Any]:
    """What decides how files are composed: our own modules and the libraries."""
    own = [files.seen(places.PACKAGE / f"{name}.py") for name in CODE]
    return [own, _origin("hydra", "__init__.py"), _origin("omegaconf", "version.py")]


def _origin(library: str, name: str) -> str | None:
    """The digest of the file that says a library's version, without importing it."""
    found = find_spec(library)
    if found is None or found.origin is None:
        return None
    return files.digest(Path(found.origin).with_name(name))


def _has_plugins() -> bool:
    """Whether something is installed that may have Hydra look elsewhere."""
    return find_spec("hydra_plugins") is not None


def _settled(path: Path, begun: int) -> bool:
    """Whether a file has not changed for so long that its time would tell a change."""
    seen = path.stat()
    return begun - max(seen.st_mtime_ns, seen.st_ctime_ns) > RACY


def _scalars(node: Any) -> Iterator[str]:
    """Every text of a YAML file, as YAML reads it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(key)
            yield from _scalars(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item)
    elif node is not None:
        yield str(node.value)


def _reaches_out(text: str) -> bool:
    """Whether a text may mean more than it says: a resolver's, Hydra's own, a file or none."""
    return ("${" in text and ":" in text) or "hydra/" in text or text.split()[:1] == ["optional"]


def _holds(values: Any) -> bool:
    """Whether JSON gives back the very same values, types included."""
    if isinstance(values, dict):
        return all(isinstance(name, str) and _holds(value) for name, value in values.items())
    if isinstance(values, list):
        return all(map(_holds, values))
    finite = not isinstance(values, float) or abs(values) != float("inf")
    return values is None or (
        type(values) in (bool, int, float, str) and finite and values == values
    )
