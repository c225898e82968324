"""Where a value of a composed recipe was written: which file and line, or which override."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from runner.errors import Problem

Where = tuple[str, ...]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Origin:
    """`text` for people; `folder` is what a relative path written there is relative to."""

    text: str
    folder: Path


@dataclass(frozen=True)
class Document:
    """One YAML file and the place of the composed recipe that it fills."""

    path: Path
    package: Where
    root: Any

    def find(self, where: Where) -> Origin | None:
        """Where this file says something about exactly this place."""
        if where[: len(self.package)] != self.package:
            return None
        node, line = self.root, None
        for name in where[len(self.package) :]:
            node, line = _child(node, name)
            if line is None:
                return None
        return Origin(f"{short(self.path)}:{(line or 0) + 1}", self.path.parent)


class Origins:
    """All that a recipe was composed of, the strongest first: the recipe itself leads."""

    def __init__(
        self, overrides: Sequence[tuple[Where, str]], documents: Sequence[Document]
    ) -> None:
        self.overrides, self.documents = overrides, documents

    def find(self, where: Where) -> Origin:
        """Where this place, or the nearest place around it, was written."""
        for length in range(len(where), 0, -1):
            for origin in self._at(where[:length]):
                return origin
            for path, text in self.overrides:
                if path[:length] == where[:length] == where:
                    return Origin(f'override "{text}"', Path.cwd())
        return Origin(short(self.documents[0].path), self.documents[0].path.parent)

    def _at(self, where: Where) -> Iterator[Origin]:
        for path, text in reversed(self.overrides):
            if path == where:
                yield Origin(f'override "{text}"', Path.cwd())
        for document in self.documents:
            if origin := document.find(where):
                yield origin


def read(path: Path, package: Where = ()) -> tuple[Document | None, list[Problem]]:
    """Parse a YAML file with its line numbers; syntax errors and repeated names are problems."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=LOADER)
    except OSError as error:
        return None, [Problem(short(path), f"cannot be read: {error.strerror}.")]
    except UnicodeDecodeError:
        return None, [Problem(short(path), "is not UTF-8 text.")]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark else ""
        return None, [Problem(f"{short(path)}{line}", f"is not valid YAML: {error.problem}.")]
    except yaml.YAMLError as error:
        return None, [Problem(short(path), f"is not valid YAML: {error}.")]
    if root is not None and not isinstance(root, yaml.MappingNode):
        return None, [Problem(f"{short(path)}:1", "must be a mapping, `name: value`.")]
    return Document(path, package, root), list(_repeated(path, root))


def pairs(node: Any) -> list[tuple[str, Any]]:
    """The names and nodes of a mapping; nothing where the node is something else."""
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(str(key.value), value) for key, value in node.value]


def values(document: Document, name: str) -> list[tuple[Any, int]]:
    """The items of a top-level list as plain values, each with its line."""
    for key, value in pairs(document.root):
        if key == name and isinstance(value, yaml.SequenceNode):
            plain = yaml.constructor.SafeConstructor()
            return [
                (plain.construct_object(item, deep=True), item.start_mark.line + 1)
                for item in value.value
            ]
    return []


def stage_of(documents: Iterable[Document], step: str) -> str:
    """The stage that a step says it is of; one that says nothing is named by it."""
    for document in documents:
        for name, value in pairs(document.root) if not document.package else []:
            if name == step:
                for key, node in pairs(value):
                    if key == "stage":
                        return str(node.value)
    return step


def short(path: Path) -> str:
    """A path as people write it: relative to the working directory where it lies below."""
    cwd = Path.cwd()
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def _child(node: Any, name: str) -> tuple[Any, int | None]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return value, key.start_mark.line
    if isinstance(node, yaml.SequenceNode) and name.isdigit() and int(name) < len(node.value):
        item = node.value[int(name)]
        return item, item.start_mark.line
    return None, None


def _repeated(path: Path, node: Any) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(path, item)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            fact = f'"{name}" stands here a second time; the first is on line {lines[name]}.'
            yield Problem(f"{short(path)}:{line}", fact)
        lines.setdefault(name, line)
        yield from _repeated(path, value)
