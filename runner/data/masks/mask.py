"""Rows as tokens and labels: exactly what the model is to write is trained, nothing else.

Trained is what the model has to produce after the generation prompt: the answer as the template
renders it (thoughts and tool calls with it) and its stop token, not the line end behind. Where
tokens would reach over the border between prompt and answer, the two are tokenized apart, since
generation begins with the tokens of the prompt alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

from runner.data.masks.borders import Borders, spans_of
from runner.data.masks.labels import ROLES, counts_of, labels_of, roles_of, uneven, weights_of
from runner.data.masks.tokenized import Reading
from runner.data.templates.layout import Layout
from runner.data.templates.messages import MaskError, Message
from runner.data.templates.template import Template
from runner.products import IGNORED

__all__ = [
    "ROLES",
    "Encoded",
    "Encoder",
    "MaskError",
    "OnLong",
    "TooLong",
    "TrainOn",
]

TrainOn = Literal["assistant", "last", "all", "completion"]
OnLong = Literal["truncate", "drop", "error"]
Row = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class TooLong(MaskError):  # noqa: N818  the row is, it is no failure
    """A row with more tokens than allowed, where rows are not to be cut."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as the model sees it."""

    input_ids: list[int]
    labels: list[int]
    """The id where a token is trained, else IGNORED."""
    weights: list[float] | None
    """How much each token counts; None where all that are trained count alike."""
    roles: list[int]
    """For each token what it belongs to: a place in ROLES."""
    stops: bool
    """Whether an answer is trained with its stop token."""
    truncated: bool

    @property
    def size(self) -> int:
        """Tokens of the row."""
        return len(self.input_ids)

    @property
    def trained(self) -> int:
        """Tokens that are trained."""
        return len(self.labels) - self.labels.count(IGNORED)


class Encoder:
    """Turns rows into tokens and labels, with one tokenizer and one chat template.

    `train_on`: all answers ("assistant"), the last one or the completion ("last", "completion"),
    or every token ("all"). Rows longer than `max_length` are cut from the right, or refused with
    TooLong, which the caller counts ("drop") or reports ("error"). Without `marks` answers are
    whole, whatever the template itself marks as generated.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None = None,
        train_on: TrainOn = "assistant",
        max_length: int | None = None,
        on_long: OnLong = "truncate",
        *,
        marks: bool = True,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise MaskError("the tokenizer is not a fast one: it cannot say where its tokens stand")
        self.tokenizer = tokenizer
        self.train_on, self.max_length, self.on_long = train_on, max_length, on_long
        self._text, self._marks = template, marks
        self._template: Template | None = None
        self._backend = tokenizer.backend_tokenizer
        if self._backend.truncation is not None:
            self._backend.no_truncation()
        if self._backend.padding is not None:
            self._backend.no_padding()
        self._borders = Borders(tokenizer)

    @property
    def template(self) -> Template:
        """The chat template; asked for only where there are conversations."""
        if self._template is None:
            self._template = Template(self.tokenizer, self._text)
            self._template.rendering.marks &= self._marks
        return self._template

    def encode(self, example: Row) -> Encoded:
        """One row; MaskError where its mask cannot be right."""
        (found,) = self.encode_many([example])
        if isinstance(found, MaskError):
            raise found
        return found

    def encode_many(self, examples: Sequence[Row]) -> list[Encoded | MaskError]:
        """Many rows at once, which is faster; a row that cannot be encoded gives its error."""
        chats = iter(self._chats([row for row in examples if "messages" in row]))
        plain = iter(self._plains([row for row in examples if "messages" not in row]))
        return [next(chats if "messages" in row else plain) for row in examples]

    # Conversations

    def _chats(self, rows: Sequence[Row]) -> list[Encoded | MaskError]:
        if not rows:
            return []
        try:
            template = self.template
        except MaskError as error:
            return [error] * len(rows)
        laid = _laid(template, rows)
        whole = [one.text for one in laid if isinstance(one, Layout)]
        reads = iter(self._backend.encode_batch(whole, add_special_tokens=False))
        return [
            _caught(self._chat, one, row["messages"], next(reads))
            if isinstance(one, Layout)
            else one
            for one, row in zip(laid, rows, strict=True)
        ]

    def _chat(self, layout: Layout, messages: Sequence[Message], read: Any) -> Encoded:
        weights = weights_of(messages, self.train_on)
        trained = [one for one in layout.answers if weights[one.message]]
        reading, begins = self._borders.drawn(layout.text, trained, read)
        spans = [
            (weights[one.message], first, last)
            for one in layout.answers
            for first, last in spans_of(one, reading, begins.get(one.start))
        ]
        ends = [
            reading.at(one.end - len(one.stop))
            for one in trained
            if one.stop and one.marked and one.marked[-1][1] == one.end
        ]
        everything = self.train_on == "all"
        labels = labels_of(reading.ids, spans, everything=everything)
        counts = counts_of(len(labels), spans, everything=everything) if uneven(weights) else None
        return self._cut(reading.ids, labels, counts, roles_of(layout, reading, spans), ends)

    # Texts, prompts with completions, tokens

    def _plains(self, rows: Sequence[Row]) -> list[Encoded | MaskError]:
        texts = [text for row in rows for text in _texts(row)]
        reads = iter(self._backend.encode_batch(texts) if texts else [])
        return [_caught(self._plain, row, [next(reads) for _ in _texts(row)]) for row in rows]

    def _plain(self, row: Row, reads: Sequence[Any]) -> Encoded:
        if "input_ids" in row:
            ids = list(row["input_ids"])
            labels = list(row["labels"] if row.get("labels") is not None else ids)
            if len(labels) != len(ids):
                raise MaskError(f"it has {len(ids)} input_ids and {len(labels)} labels")
            stop = self.tokenizer.eos_token_id
            ends = [index for index, label in enumerate(labels) if label == stop]
            return self._cut(ids, labels, None, [ROLES.index("text")] * len(ids), ends)
        if "text" in row:
            ids = self._closed(self._opened(reads[0]))
            return self._cut(ids, list(ids), None, [ROLES.index("text")] * len(ids), [len(ids) - 1])
        if "completion" not in row:
            raise MaskError(f"it is neither of messages, prompt, text, input_ids: {sorted(row)}")
        return self._completion(row, self._opened(reads[0]), self._opened(reads[1]))

    def _completion(self, row: Row, prompt: list[int], whole: list[int]) -> Encoded:
        size = len(prompt)
        if whole[:size] != prompt:
            reading = Reading(self._backend.encode(row["prompt"], add_special_tokens=False))
            bare = len(reading.ids)
            if self._borders.go_on(reading, len(row["prompt"]), row["completion"]):
                whole = prompt + reading.ids[bare:]
        ids = self._closed(whole)
        everything = self.train_on == "all"
        labels = list(ids) if everything else [IGNORED] * size + ids[size:]
        roles = [ROLES.index("user")] * size + [ROLES.index("assistant")] * (len(ids) - size)
        return self._cut(ids, labels, None, roles, [len(ids) - 1])

    def _opened(self, read: Any) -> list[int]:
        """The ids of a text without what the tokenizer puts behind it."""
        ids: list[int] = read.ids
        special = read.special_tokens_mask
        while ids and special[len(ids) - 1] and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return ids

    def _closed(self, ids: list[int]) -> list[int]:
        """The ids with the end of a text behind them."""
        stop = self.tokenizer.eos_token_id
        if stop is None:
            raise MaskError("the tokenizer has no eos token to end a text with")
        return ids if ids and ids[-1] == stop else [*ids, stop]

    # Length

    def _cut(
        self,
        ids: list[int],
        labels: list[int],
        counts: list[float] | None,
        roles: list[int],
        ends: Sequence[int],
    ) -> Encoded:
        """The row, not longer than allowed; never one that trains nothing."""
        size = self.max_length if self.max_length is not None else len(ids)
        if labels.count(IGNORED) == len(labels):
            raise MaskError("no token of it is to be trained")
        if long := len(ids) > size:
            if self.on_long != "truncate":
                raise TooLong(f"it has {len(ids)} tokens, and {size} are allowed")
            ids, labels, roles = ids[:size], labels[:size], roles[:size]
            counts = counts[:size] if counts is not None else None
            if labels.count(IGNORED) == len(labels):
                raise MaskError(f"all that is to be trained stands behind its first {size} tokens")
        stops = any(end < size for end in ends)
        return Encoded(ids, labels, counts, roles, stops, long)


def _laid(template: Template, rows: Sequence[Row]) -> list[Layout | MaskError]:
    """The conversations as texts; those without tools are rendered together, which is faster."""
    prepare = template.rendering.prepare
    ready: list[Any] = [_caught(prepare, row["messages"]) for row in rows]
    plain = [
        index
        for index, (row, one) in enumerate(zip(rows, ready, strict=True))
        if not row.get("tools") and not isinstance(one, MaskError)
    ]
    texts = template.rendering.render_many([ready[index] for index in plain]) if plain else None
    rendered = dict(zip(plain, texts, strict=True)) if texts else {}
    return [
        one
        if isinstance(one, MaskError)
        else _caught(template.layout, one, row.get("tools") or None, rendered.get(index))
        for index, (row, one) in enumerate(zip(rows, ready, strict=True))
    ]


def _texts(row: Row) -> list[str]:
    """What of a row is to be tokenized."""
    if "input_ids" in row:
        return []
    if "text" in row:
        return [row["text"]]
    return [row["prompt"], row["prompt"] + row["completion"]] if "completion" in row else []


def _caught(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | MaskError:
    try:
        return function(*args, **kwargs)
    except MaskError as error:
        return error
