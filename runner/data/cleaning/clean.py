"""Declared filters at work: clean up, bounds, patterns, repeats, leaks, and the user's own code.

They apply in the order declared, one row at a time, each row's fate the same however the work is
split; of rows that repeat one another the first stays.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runner import files
from runner.data.cleaning import function, text
from runner.data.cleaning.filters import (
    Duplicates,
    Filter,
    Leak,
    Length,
    Regex,
    Unicode,
    build_filters,
    keyed_filters,
)
from runner.data.cleaning.leak import Leaks
from runner.data.cleaning.near import Near, Seen
from runner.data.cleaning.text import Example
from runner.errors import StepError, listing
from runner.functions import source_digest

__all__ = ["Filters", "Leaks", "Tally", "build_filters", "keyed_filters", "source_digest"]

Place = TypeVar("Place")

PLACES_SHOWN = 3


@dataclass
class Tally:
    """What one filter did: rows it was given, dropped and changed, and where the first were."""

    kind: str
    rows: int = 0
    dropped: int = 0
    changed: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: object, *, dropped: bool, changed: bool) -> None:
        """Count one row."""
        self.rows += 1
        self.dropped += dropped
        self.changed += changed
        if dropped and len(self.places) < PLACES_SHOWN:
            self.places.append(str(place))


class Filters:
    """Declared filters at work; what they have seen can be kept across a crash."""

    def __init__(
        self,
        declared: Sequence[Filter],
        seed: int,
        held_out: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        held_out = list(held_out) if any(isinstance(one, Leak) for one in declared) else []
        self._identity = files.digest_json([keyed_filters(declared), seed])
        self._tallies = [Tally(one.kind) for one in declared]
        self._memories: dict[int, Seen | Near] = {
            number: Near(one.threshold, one.shingle, seed) if one.near else Seen()
            for number, one in enumerate(declared)
            if isinstance(one, Duplicates)
        }
        self._told = dict.fromkeys(self._memories, 0)
        self._steps = [
            _step(one, self._memories.get(number), held_out) for number, one in enumerate(declared)
        ]

    @property
    def counts(self) -> list[dict[str, Any]]:
        """Of each filter: kind, rows it was given, rows dropped, rows changed."""
        return [
            {"kind": t.kind, "rows": t.rows, "dropped": t.dropped, "changed": t.changed}
            for t in self._tallies
        ]

    @property
    def dropped_examples(self) -> list[list[str]]:
        """Of each filter: the places of the first rows that it dropped."""
        return [list(tally.places) for tally in self._tallies]

    def apply(self, examples: Iterable[tuple[Place, Example]]) -> Iterator[tuple[Place, Example]]:
        """The rows that stay, as they come; only what filters remember is held in memory."""
        for place, example in examples:
            kept = self._kept(place, example)
            if kept is not None:
                yield place, kept

    def state(self, *, new: bool = False) -> dict[str, Any]:
        """What was counted and seen, as JSON can hold it; with `new`, seen since the last `new`."""
        since = self._told if new else dict.fromkeys(self._memories, 0)
        seen = {
            str(number): base64.b64encode(memory.since(since[number])).decode()
            for number, memory in self._memories.items()
        }
        if new:
            self._told = {number: len(memory) for number, memory in self._memories.items()}
        tallies = [vars(tally) | {"places": list(tally.places)} for tally in self._tallies]
        return {"filters": self._identity, "tallies": tallies, "seen": seen}

    def restore(self, *states: Mapping[str, Any]) -> None:
        """Let fresh filters go on from a whole state, or from all that `new` gave, in their order.

        Raises ValueError if a state is of other filters.
        """
        for state in states:
            if state["filters"] != self._identity:
                raise ValueError("the state is of other filters, or of another seed")
            for number, memory in self._memories.items():
                memory.learn(base64.b64decode(state["seen"][str(number)]))
            self._tallies = [Tally(**tally) for tally in state["tallies"]]
        self._told = {number: len(memory) for number, memory in self._memories.items()}

    def _kept(self, place: object, example: Example) -> Example | None:
        for tally, step in zip(self._tallies, self._steps, strict=True):
            result = step(example, place)
            changed = isinstance(result, dict) and result != example
            tally.add(place, dropped=result is False, changed=changed)
            if result is False:
                return None
            example = example if result is True else result
        return example


Step = Callable[[Example, object], bool | Example]


def _step(one: Filter, memory: Seen | Near | None, held_out: Sequence[Mapping[str, Any]]) -> Step:
    """A filter as a function: false drops the row, true keeps it, an example takes its place."""
    if isinstance(one, Unicode):
        form = one.form
        return lambda example, _: text.each_text(example, lambda said: text.cleaned(said, form))
    if isinstance(one, Length):
        return _length(one)
    if isinstance(one, Regex):
        return _regex(one)
    if isinstance(one, Duplicates):
        return _duplicates(one, memory)
    if isinstance(one, Leak):
        leaks = Leaks(held_out, one.ngram, one.share)
        return lambda example, _: not leaks.leaked(example)
    return function.load(one.path)


def _length(one: Length) -> Step:
    low, high = one.at_least or 0, one.at_most

    def stays(example: Example, place: object) -> bool:
        said = _said(example, one, place)
        size = sum(len(part.split()) if one.unit == "words" else len(part) for part in said)
        return low <= size and (high is None or size <= high)

    return stays


def _regex(one: Regex) -> Step:
    pattern, wanted = re.compile(one.drop or one.keep or ""), one.drop is None

    def stays(example: Example, place: object) -> bool:
        return any(pattern.search(part) for part in _said(example, one, place)) is wanted

    return stays


def _duplicates(one: Duplicates, memory: Seen | Near | None) -> Step:
    if isinstance(memory, Near):
        return lambda example, place: not memory.known(text.words(_said(example, one, place)))
    assert memory is not None

    def stays(example: Example, place: object) -> bool:
        if one.of == "all":
            return not memory.known(text.digest(example))
        said = _said(example, one, place)
        return not any(said) or not memory.known(text.digest(said))

    return stays


def _said(example: Example, one: Length | Regex | Duplicates, place: object) -> list[str]:
    """What is said in a row; one of a shape that has no such text is the recipe's fault."""
    said = text.texts(example, one.of)
    if said or not text.SIDED.isdisjoint(example):
        return said
    has = listing(sorted(example))
    raise StepError(f'{place}: the filter "{one.kind}" of {one.of} finds no text: it has {has}.')
