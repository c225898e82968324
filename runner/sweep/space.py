"""What a sweep's jobs differ in: every place with its values, all of them taken or some drawn."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, product
from typing import Any

from runner.changes import Axis, Change, Span


@dataclass(frozen=True)
class Dimension:
    """Values that are chosen at once: those of one axis, or of several that go side by side."""

    axes: tuple[Axis, ...]

    @property
    def name(self) -> str:
        """The places, as they are typed."""
        return "+".join(axis.key for axis in self.axes)

    @property
    def span(self) -> Span | None:
        """The span that is drawn from, where it is no list."""
        return self.axes[0].span

    @property
    def told(self) -> list[Any]:
        """What it is, as JSON can hold it."""
        texts = [[change.text for change in each] for each in self.choices]
        return [self.name, texts, vars(self.span) if self.span else None]

    @property
    def choices(self) -> list[tuple[Change, ...]]:
        """The values, each as one override for every place; of a span, its ends."""
        return [*zip(*(axis.changes for axis in self.axes), strict=True)]

    @property
    def size(self) -> float:
        """How many values there are."""
        if self.span is None:
            return len(self.choices)
        return self.span.high - self.span.low + 1 if self.span.is_whole else math.inf

    @property
    def progression(self) -> slice | None:
        """From where to where, and by how much, where numbers follow one another evenly."""
        values = sorted({each[0].value for each in self.choices if _is_number(each[0].value)})
        if len(self.axes) > 1 or len(values) < max(3, len(self.choices)):
            return None
        step = values[1] - values[0]
        even = all(math.isclose(b - a, step, rel_tol=1e-6) for a, b in pairwise(values))
        return slice(values[0], values[-1], step) if even else None

    def drawn(self, clock: random.Random) -> tuple[Change, ...]:
        """A value at random, each as likely as any other."""
        if self.span is None:
            return clock.choice(self.choices)
        return (self.axes[0].at(_within(self.span, clock)),)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _within(span: Span, clock: random.Random) -> float:
    if not span.is_log and span.is_whole:
        return clock.randint(int(span.low), int(span.high))
    if not span.is_log:
        return clock.uniform(span.low, span.high)
    low, high = (span.low, span.high + 1) if span.is_whole else (span.low, span.high)
    found = math.exp(clock.uniform(math.log(low), math.log(high)))
    found = math.floor(found) if span.is_whole else found
    return min(max(found, span.low), span.high)


class Space:
    """All dimensions of a sweep; a job's overrides stand in the order of the words."""

    def __init__(self, axes: Sequence[Axis], groups: Sequence[tuple[str, ...]]) -> None:
        group_of = {name: group for group in groups for name in group}
        members: dict[tuple[str, ...], list[Axis]] = {}
        for number, axis in enumerate(axes):
            members.setdefault(group_of.get(axis.key, (f"{number}",)), []).append(axis)
        self.dimensions = [Dimension(tuple(found)) for found in members.values()]
        flat = [axis for each in self.dimensions for axis in each.axes]
        self.order = [next(n for n, each in enumerate(flat) if each is axis) for axis in axes]

    def whole(self, chosen: Sequence[tuple[Change, ...]]) -> tuple[Change, ...]:
        """The overrides of a job, of one value for each dimension."""
        flat = [change for changes in chosen for change in changes]
        return tuple(flat[number] for number in self.order)

    def grid(self) -> Iterator[tuple[Change, ...]]:
        """Each value with each, the last dimension's first; of spans, the ends."""
        return map(self.whole, product(*(each.choices for each in self.dimensions)))

    def drawn(self, count: int, seed: int) -> Iterator[tuple[Change, ...]]:
        """So many at random, no two the same; the first ones are the same for any count."""
        size = math.prod(each.size for each in self.dimensions)
        return islice(self._draws(seed), int(min(count, size)))

    def _draws(self, seed: int) -> Iterator[tuple[Change, ...]]:
        clock, seen = random.Random(seed), set()  # noqa: S311  a seeded generator is wanted
        while True:
            found = self.whole([each.drawn(clock) for each in self.dimensions])
            what = tuple(change.text for change in found)
            if what not in seen:
                seen.add(what)
                yield found

    def corners(self) -> Iterator[tuple[Change, ...]]:
        """Jobs that tell what every job is composed of: all presets, the ends of all values."""
        ends = [
            each.choices
            if not all(change.is_plain for row in each.choices for change in row)
            else [each.choices[0]]
            for each in self.dimensions
        ]
        yield from map(self.whole, product(*ends))
        yield self.whole([each.choices[-1] for each in self.dimensions])
