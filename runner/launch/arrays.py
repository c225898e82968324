"""Which steps become one array of Slurm: those that ask for the same and wait for the same.

They wait for the same jobs (`afterok`), or each for the element of its own number in another array
(`aftercorr`). Nothing waits for what it does not build on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from runner.resources import Resources

MOST = 1000
"""Slurm's own default of MaxArraySize is 1001."""


@dataclass(frozen=True)
class Wish:
    """A step that is to be a job: what it asks for, and the jobs that it waits for."""

    key: str
    step: str
    asked: Resources
    after: tuple[str, ...]

    @property
    def places(self) -> list[tuple[str, str]]:
        """Array and number of each job that it waits for; a job alone has no number."""
        return [(job.partition("_")[0], job.partition("_")[2]) for job in sorted(self.after)]


@dataclass(frozen=True)
class Array:
    """Steps that are given out together, in the order of their numbers."""

    keys: tuple[str, ...]
    step: str
    asked: Resources
    dependency: str


def arrays(wishes: Iterable[Wish]) -> Iterator[Array]:
    """All of them, in as few arrays as can be."""
    groups: dict[Any, list[Wish]] = {}
    for wish in wishes:
        there = tuple(array for array, _ in wish.places)
        groups.setdefault((wish.step, astuple(wish.asked), there), []).append(wish)
    for group in groups.values():
        found = _side_by_side(group)
        yield from [found] if found else _waiting_for_the_same(group)


def _side_by_side(group: Sequence[Wish]) -> Array | None:
    """One array, where what differs in what its steps wait for is their own number."""
    numbers = [*map(str, range(len(group)))]
    columns = [*zip(*(wish.places for wish in group), strict=True)]
    differs = [n for n, column in enumerate(columns) if len({*column}) > 1]
    if not differs or {number for _, number in columns[differs[0]]} != {*numbers}:
        return None
    order = sorted(group, key=lambda wish: int(wish.places[differs[0]][1]))
    if any([wish.places[n][1] for wish in order] != numbers for n in differs):
        return None
    same = [job for n, job in enumerate(sorted(group[0].after)) if n not in differs]
    own = [columns[n][0][0] for n in differs]
    said = [f"afterok:{':'.join(same)}"] if same else []
    return _array(order, ",".join([*said, f"aftercorr:{':'.join(own)}"]))


def _waiting_for_the_same(group: Sequence[Wish]) -> Iterator[Array]:
    """An array for each set of jobs that steps wait for."""
    groups: dict[tuple[str, ...], list[Wish]] = {}
    for wish in group:
        groups.setdefault(tuple(sorted(wish.after)), []).append(wish)
    for after, found in groups.items():
        for begin in range(0, len(found), MOST):
            yield _array(found[begin : begin + MOST], f"afterok:{':'.join(after)}" if after else "")


def _array(wishes: Sequence[Wish], dependency: str) -> Array:
    keys = tuple(wish.key for wish in wishes)
    return Array(keys, wishes[0].step, wishes[0].asked, dependency)
