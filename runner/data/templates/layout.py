"""Rendered conversations: where in the text each answer stands."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.data.templates.messages import Message


@dataclass(frozen=True)
class Answer:
    """What the model writes for one assistant message: characters `start` to `end` of a text."""

    message: int
    start: int
    end: int
    stop: str
    """The stop token that the answer ends with, or nothing."""
    marked: tuple[tuple[int, int], ...]
    """The parts to train: all of it, or what the template marks as generated."""
    head: str | None = None
    """The fixed text before it from the last special token on."""


@dataclass(frozen=True)
class Layout:
    """A rendered conversation: its answers, and where the other messages stand in it."""

    text: str
    answers: tuple[Answer, ...]
    parts: tuple[tuple[str, int, int], ...]
    """Role, start, end."""


@dataclass(frozen=True)
class Shape:
    """The fixed text of all conversations with the same roles, and what stands between."""

    fixed: tuple[str, ...]
    slots: tuple[tuple[int, str], ...]
    """The message and its field that stand after each fixed text but the last."""
    text: str
    """The conversation that it was learnt from."""
    spans: tuple[tuple[int, int], ...]
    """Where the slots stand in it."""
    answers: tuple[Answer, ...]
    missing: tuple[str, ...]
    """For each answer, what its generation prompt has and the text before it has not."""


def match(shape: Shape, messages: Sequence[Message], text: str) -> list[tuple[int, int]] | None:
    """Where the slots stand in a text of that shape, or None where it is not of that shape."""
    where = len(shape.fixed[0])
    if not text.startswith(shape.fixed[0]):
        return None
    spans = []
    for (index, name), fixed in zip(shape.slots, shape.fixed[1:], strict=True):
        value = messages[index][name]
        for form in forms(value):
            end = where + len(form)
            if text.startswith(form, where) and text.startswith(fixed, end):
                spans.append((where, end))
                where = end + len(fixed)
                break
        else:
            return None
    return spans if where == len(text) else None


def forms(value: str) -> Iterator[str]:
    """What templates make of a text: nothing, or they strip it, or write it as JSON."""
    yield value
    yield value.strip()
    yield value.strip("\n")
    yield value.lstrip("\n")
    yield value.lstrip()
    yield value.rstrip()
    yield json.dumps(value, ensure_ascii=False)[1:-1]


def placed(
    shape: Shape, messages: Sequence[Message], text: str, spans: Sequence[tuple[int, int]]
) -> Layout:
    """The answers of a shape, moved to where they are in this text."""

    def moved(place: int) -> int:
        shift = 0
        for (_, learnt), (_, end) in zip(shape.spans, spans, strict=True):
            if place < learnt:
                break
            shift = end - learnt
        return place + shift

    answers = []
    for answer, lacks in zip(shape.answers, shape.missing, strict=True):
        start, head = moved(answer.start), answer.head
        if lacks and text.startswith(lacks, start):
            start, head = start + len(lacks), None
        marked = tuple((max(start, moved(first)), moved(last)) for first, last in answer.marked)
        end = moved(answer.end)
        answers.append(Answer(answer.message, start, end, answer.stop, marked, head))
    pairs = zip(shape.slots, spans, strict=True)
    others = tuple((messages[index]["role"], start, end) for (index, _), (start, end) in pairs)
    return Layout(text, tuple(answers), others)


def clipped(marks: Sequence[tuple[int, int]], start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The marked parts of an answer, without what is not generated: header and line end."""
    pairs = ((max(start, first), min(end, last)) for first, last in marks)
    return tuple((first, last) for first, last in pairs if first < last)
