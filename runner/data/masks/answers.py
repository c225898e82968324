"""Preferences as tokens: one prompt, and what may follow it.

An answer is exactly what would be trained of it in a conversation: all that the model writes after
the generation prompt, thoughts and calls of tools with it, and the stop token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.data.masks.mask import Encoded, Encoder, OnLong, TooLong
from runner.data.templates.messages import MaskError
from runner.products import IGNORED

SIDES = ("chosen", "rejected", "completion")
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt and its answers as the model sees them: chosen and rejected, or one alone."""

    prompt_ids: list[int]
    answers: list[list[int]]
    roles: list[int]
    """For each token of the prompt and then of the answers what it belongs to."""
    stops: bool
    """Whether every answer ends with its stop token."""
    truncated: bool

    @property
    def size(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(map(len, self.answers))

    @property
    def trained(self) -> int:
        """Tokens of all answers."""
        return sum(map(len, self.answers))


def encode_answers(
    encoder: Encoder,
    examples: Sequence[Row],
    max_length: int | None = None,
    on_long: OnLong = "truncate",
) -> list[Answered | MaskError]:
    """Preferences by an encoder that trains on all answers; one that cannot be gives its error.

    `max_length` is that of the prompt with the longer answer; the encoder has none of its own.
    """
    chats = [_chat(row, side) for row in examples for side in SIDES if side in row]
    encoded = iter(encoder.encode_many(chats))
    return [
        _caught([next(encoded) for side in SIDES if side in row], max_length, on_long)
        for row in examples
    ]


def _chat(row: Row, side: str) -> dict[str, Any]:
    """The conversation that ends with one answer, of which nothing before it is trained."""
    before = [{**message, "weight": 0.0} for message in row["prompt"]]
    tools = {"tools": row["tools"]} if "tools" in row else {}
    return {"messages": before + row[side], **tools}


def _caught(
    sides: Sequence[Encoded | MaskError], max_length: int | None, on_long: OnLong
) -> Answered | MaskError:
    for encoded in sides:
        if isinstance(encoded, MaskError):
            return encoded
    try:
        found = _joined([(each, *borders(each)) for each in sides if isinstance(each, Encoded)])
        return found if max_length is None else _cut(found, max_length, on_long)
    except MaskError as error:
        return error


def _cut(found: Answered, size: int, on_long: OnLong) -> Answered:
    """The answers, none of them longer with the prompt than allowed."""
    if found.size <= size:
        return found
    if on_long != "truncate":
        raise TooLong(f"it has {found.size} tokens, and {size} are allowed")
    before = len(found.prompt_ids)
    if before >= size:
        raise MaskError(f"all that is to be learnt stands behind its first {size} tokens")
    answers = [ids[: size - before] for ids in found.answers]
    _check_different(answers)
    roles, start = found.roles[:before], before
    for whole, kept in zip(found.answers, answers, strict=True):
        roles += found.roles[start : start + len(kept)]
        start += len(whole)
    return Answered(found.prompt_ids, answers, roles, found.stops, truncated=True)


def _check_different(answers: Sequence[list[int]]) -> None:
    if len(answers) > 1 and answers[0] == answers[1]:
        raise MaskError("what is chosen and what is rejected become the same tokens")


def borders(encoded: Encoded) -> tuple[int, int]:
    """The first token that is trained, and the one behind the last."""
    labels = encoded.labels
    first = next(at for at, label in enumerate(labels) if label != IGNORED)
    last = next(at for at in range(len(labels), 0, -1) if labels[at - 1] != IGNORED)
    return first, last


def _joined(sides: Sequence[tuple[Encoded, int, int]]) -> Answered:
    one, first, _ = sides[0]
    for encoded, begin, end in sides:
        if IGNORED in encoded.labels[begin:end]:
            raise MaskError("an answer is not in one piece: others speak in it, or between")
        if encoded.weights is not None:
            raise MaskError("an answer has a weight, and a preference has none")
        if encoded.input_ids[:begin] != one.input_ids[:first]:
            raise MaskError("the chat template makes another prompt of it before each answer")
    answers = [encoded.input_ids[begin:end] for encoded, begin, end in sides]
    _check_different(answers)
    return Answered(
        one.input_ids[:first],
        answers,
        one.roles[:first] + [role for e, begin, end in sides for role in e.roles[begin:end]],
        all(encoded.stops for encoded, _, _ in sides),
        truncated=False,
    )
