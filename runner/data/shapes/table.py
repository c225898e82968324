"""The shapes in which training rows come, told apart by their columns, and their one form.

Canonical examples, by what a shape gives:

    chat        {"messages": [message, ...], "tools"?: [tool, ...]}
    completion  {"prompt": str, "completion": str}
    text        {"text": str}
    tokens      {"input_ids": [int, ...], "labels"?: [int, ...]}
    preference  {"prompt": [message, ...], "chosen": [...], "rejected": [...], "tools"?: [...]}
    unpaired    {"prompt": [message, ...], "completion": [...], "label": bool, "tools"?: [...]}

A message has `role` (system, user, assistant or tool), `content` (a text) and, where given,
`reasoning_content`, `tool_calls`, `tool_call_id`, `name` and `weight` (how much it is trained,
1 where left out). Tools and calls have the form of OpenAI's API, with arguments as a mapping.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from runner.data.reading.lines import BadRow
from runner.data.shapes import examples
from runner.data.shapes.conversations import is_answer, is_conversation
from runner.data.shapes.values import Row, is_ids, is_text
from runner.errors import did_you_mean, listing
from runner.products import Kind

Names = Mapping[str, tuple[str, ...]]
KINDS: Mapping[str, str] = {
    "sft": "an example to imitate",
    "preference": "a preference pair",
    "unpaired": "an answer with a label",
}
"""The ways in which examples are learnt from; those of a dataset are all of one."""
MEDIA = ("images", "videos", "audios")


@dataclass(frozen=True)
class Shape:
    """A usual set of columns; each with the other names that it goes by."""

    name: str
    gives: Literal["chat", "completion", "text", "tokens", "preference", "unpaired"]
    needs: Names
    takes: Names
    fits: Callable[[Any], bool]
    """Whether a value may stand in a needed column."""
    make: Callable[[Row], dict[str, Any]]
    """The canonical example of a row that has the shape's own column names and no nulls."""
    apart: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    """Needed columns whose values are of another sort, and what they must be."""


def detect(columns: Iterable[str], row: Row) -> Shape | None:
    """The shape of a source with these columns, of which `row` is one row.

    The more a shape says, the earlier it is tried: a row with both `messages` and `text` is a
    conversation with a note.
    """
    there = set(columns)
    for shape in SHAPES.values():
        found = {
            name: [n for n in (name, *others) if n in there] for name, others in shape.needs.items()
        }
        if all(found.values()) and all(
            _may_stand(shape, name, row.get(names[0])) for name, names in found.items()
        ):
            return shape
    return None


def _may_stand(shape: Shape, name: str, value: Any) -> bool:
    """Whether a value may be one of this needed column; null may be any but a label."""
    if name in shape.apart:
        return shape.apart[name](value)
    return value is None or shape.fits(value)


def kind_of_example(example: Mapping[str, Any]) -> Kind:
    """How a canonical example is learnt from."""
    if "chosen" in example:
        return "preference"
    return "unpaired" if "label" in example else "sft"


def convert(shape: str, row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    """The canonical example of a row; `columns` says which of its columns is which of the shape's.

    Raises BadRow where the row is not of the shape.
    """
    kind = SHAPES[shape]
    if media := [name for name in MEDIA if row.get(name) and name not in columns.values()]:
        raise BadRow(f"has {listing(media)}; only text is read.")
    return kind.make(_picked(kind, row, columns))


def _picked(shape: Shape, row: Row, columns: Mapping[str, str]) -> Row:
    """The columns that a shape reads, under its own names, without nulls."""
    known = {**shape.needs, **shape.takes}
    for name in columns:
        if name not in known:
            guess = did_you_mean(name, known) or f"It has: {listing(list(known))}."
            raise BadRow(f'is read as {shape.name}, which has no column "{name}".', guess)
    found = {}
    for name, others in known.items():
        names = (columns[name],) if name in columns else (name, *others)
        here = [each for each in names if row.get(each) is not None]
        if here:
            found[name] = row[here[0]]
        elif name in shape.needs or (name in columns and names[0] not in row):
            raise _missing(names, row)
    return found


def _missing(names: Sequence[str], row: Row) -> BadRow:
    if nulls := [name for name in names if name in row]:
        return BadRow(f'has null in the column "{nulls[0]}".')
    guess = did_you_mean(names[0], row) or f"It has: {listing(list(row))}."
    return BadRow(f'has no column "{names[0]}".', guess)


SYSTEM: Names = {"system": ("system_prompt",)}
CHAT: Names = {**SYSTEM, "tools": ("functions",)}

SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(
            "tokens",
            "tokens",
            {"input_ids": ()},
            {"labels": (), "attention_mask": ()},
            is_ids,
            examples.from_tokens,
        ),
        Shape(
            "preference",
            "preference",
            {"chosen": ("chosen_messages",), "rejected": ("rejected_messages",)},
            {
                "prompt": ("question",),
                "conversations": ("conversation",),
                "instruction": (),
                "input": (),
                "history": (),
                **CHAT,
            },
            is_answer,
            examples.from_preference,
        ),
        Shape(
            "unpaired",
            "unpaired",
            {"completion": (), "label": ()},
            {"prompt": ("question",), **CHAT},
            is_answer,
            examples.from_unpaired,
            {"label": lambda value: isinstance(value, bool)},
        ),
        Shape("messages", "chat", {"messages": ()}, CHAT, is_conversation, examples.from_messages),
        Shape(
            "sharegpt",
            "chat",
            {"conversations": ("conversation",)},
            CHAT,
            is_conversation,
            examples.from_sharegpt,
        ),
        Shape(
            "prompt_completion",
            "completion",
            {"prompt": (), "completion": ()},
            CHAT,
            is_answer,
            examples.from_completion,
        ),
        Shape(
            "alpaca",
            "chat",
            {"instruction": (), "output": ("response",)},
            {"input": ("context",), "history": (), **SYSTEM},
            is_text,
            examples.from_alpaca,
        ),
        Shape(
            "question_answer",
            "chat",
            {"question": ("query", "prompt"), "answer": ("response",)},
            {"context": (), **SYSTEM},
            is_text,
            examples.from_question,
        ),
        Shape("text", "text", {"text": ()}, {}, is_text, examples.from_text),
    )
}
