"""What an override changes: one place of a recipe, or the same one in many ways."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from runner.origins import Where


@dataclass(frozen=True)
class Change:
    """One override: the place that it changes, its text and its value; `deletes` has none."""

    where: Where
    text: str
    value: Any
    deletes: bool = False

    @property
    def removes_step(self) -> bool:
        """Whether it leaves a step out: `~before`."""
        return self.deletes and len(self.where) == 1

    @property
    def is_plain(self) -> bool:
        """Whether it sets one option to one value, and can choose no preset."""
        is_scalar = not isinstance(self.value, (dict, list))
        return len(self.where) > 1 and is_scalar and not self.deletes

    @property
    def problem_place(self) -> str:
        """The override, for a message."""
        return f'override "{self.text}"'


@dataclass(frozen=True)
class Span:
    """Numbers between two ends, both of them counted in, that a search draws from.

    `is_log`: one tenth is as far from one as one is from ten.
    """

    low: float
    high: float
    is_whole: bool = False
    is_log: bool = False


@dataclass(frozen=True)
class Axis:
    """What one word of a command line asks for: an override, or one of many.

    Of a `span`, which only a search draws from, the changes are its two ends.
    """

    key: str
    changes: tuple[Change, ...]
    span: Span | None = None

    @property
    def varies(self) -> bool:
        """Whether jobs differ in it."""
        return len(self.changes) > 1

    def at(self, value: float) -> Change:
        """The override with a value of the span."""
        first = self.changes[0]
        name = first.text.partition("=")[0]
        return replace(first, text=f"{name}={value}", value=value)


def overlap(values: Sequence[Change]) -> bool:
    """Whether two overrides say something about one place, so that their order counts."""
    wheres = sorted(each.where for each in values)
    return any(after[: len(before)] == before for before, after in pairwise(wheres))


def is_leaf(plain: Any, where: Where) -> bool:
    """Whether that place of a mapping is there and holds a scalar."""
    for name in where:
        if not isinstance(plain, dict) or name not in plain:
            return False
        plain = plain[name]
    return not isinstance(plain, (dict, list))


def exchanged(plain: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    """A copy with other values in the places of these changes; the rest is shared."""
    found = dict(plain)
    copied: dict[Where, dict[str, Any]] = {(): found}
    for change in changes:
        for length in range(1, len(change.where)):
            where = change.where[:length]
            if where not in copied:
                holder = copied[where[:-1]]
                holder[where[-1]] = copied[where] = dict(holder[where[-1]])
        copied[change.where[:-1]][change.where[-1]] = change.value
    return found


def places_of(changes: Sequence[Change]) -> list[tuple[Where, str]]:
    """Where each override says something, and its text."""
    return [(each.where, each.text) for each in changes if not each.deletes]
