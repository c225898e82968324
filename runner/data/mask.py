"""Rows as tokens and labels: exactly what the model is to write is trained, nothing else.

Trained is what the model has to produce after the generation prompt: the answer as the template
renders it (thoughts and tool calls with it) and its stop token, not the line end behind. Where
tokens would reach over the border between prompt and answer, the two are tokenized apart, since
generation begins with the tokens of the prompt alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, ParamSpec, TypeVar

from runner.chat import IGNORED
from runner.data.template import Answer, Layout, MaskError, Message, Template, any_of

__all__ = [
    "IGNORED",
    "ROLES",
    "Encoded",
    "Encoder",
    "Finding",
    "MaskError",
    "TooLong",
    "check_template",
]

ROLES = ("template", "system", "user", "assistant", "tool", "text")
"""What a token belongs to; `Encoded.roles` holds places in this list."""

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


@dataclass(frozen=True)
class Finding:
    """Something that an audit has to say about a chat template."""

    name: str
    fact: str
    wrong: bool = False


@dataclass(frozen=True)
class _Piece:
    """A text tokenized on its own: where it begins, and what was put before it."""

    place: int
    token: int
    read: Any
    lead: int = 0
    skipped: int = 0


class Reading:
    """The tokens of a text that was tokenized in one piece or in several."""

    def __init__(self, read: Any) -> None:
        self.ids: list[int] = read.ids
        self.pieces: list[_Piece] = [_Piece(0, 0, read)]

    def add(self, place: int, read: Any, lead: int, skipped: int) -> None:
        """Go on with the text from a place on; `lead` characters were before it in its piece."""
        self.pieces.append(_Piece(place, len(self.ids), read, lead, skipped))
        self.ids = self.ids + read.ids[skipped:]

    def at(self, place: int) -> int:
        """The first token with the character there; without one, that of a character behind."""
        piece = self._piece(place)
        found: int | None = piece.read.char_to_token(place - piece.place + piece.lead)
        if found is None:  # the offsets of some tokenizers leave out spaces
            found = _next_token(piece.read, place - piece.place + piece.lead)
        return piece.token + max(0, found - piece.skipped)

    def behind(self, place: int) -> int:
        """The first token that begins there or later: one that reaches over the place is before."""
        index, piece = self.at(place), self._piece(place)
        span = piece.read.token_to_chars(index - piece.token + piece.skipped)
        over = span is not None and span[0] < place - piece.place + piece.lead
        return index + 1 if over else index

    def _piece(self, place: int) -> _Piece:
        for piece in reversed(self.pieces):
            if piece.place <= place:
                return piece
        raise IndexError(place)


def _next_token(read: Any, place: int) -> int:
    offsets = read.offsets
    return next((i for i, (_, end) in enumerate(offsets) if end > place), len(offsets))


class Encoder:
    """Turns rows into tokens and labels, with one tokenizer and one chat template.

    `train_on`: all answers ("assistant"), the last one or the completion ("last", "completion"),
    or every token ("all"). Rows longer than `max_length` are cut from the right, or refused with
    TooLong, which the caller counts ("drop") or reports ("error").
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None = None,
        train_on: TrainOn = "assistant",
        max_length: int | None = None,
        on_long: OnLong = "truncate",
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise MaskError("the tokenizer is not a fast one: it cannot say where its tokens stand")
        self.tokenizer = tokenizer
        self.train_on, self.max_length, self.on_long = train_on, max_length, on_long
        self._text = template
        self._template: Template | None = None
        self._backend = tokenizer.backend_tokenizer
        if self._backend.truncation is not None:
            self._backend.no_truncation()
        if self._backend.padding is not None:
            self._backend.no_padding()
        self._heads: dict[str, list[int]] = {}
        added = tokenizer.added_tokens_decoder.values()
        self._stripping = tuple(token.content for token in added if token.rstrip)

    @property
    def template(self) -> Template:
        """The chat template; asked for only where there are conversations."""
        if self._template is None:
            self._template = Template(self.tokenizer, self._text)
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
        ready: list[Any] = [_caught(template.prepare, row["messages"]) for row in rows]
        plain = [
            index
            for index, (row, one) in enumerate(zip(rows, ready, strict=True))
            if not row.get("tools") and not isinstance(one, MaskError)
        ]
        texts = template.render_many([ready[index] for index in plain]) if plain else None
        rendered = dict(zip(plain, texts, strict=True)) if texts else {}
        laid = [
            one
            if isinstance(one, MaskError)
            else _caught(template.layout, one, row.get("tools") or None, rendered.get(index))
            for index, (row, one) in enumerate(zip(rows, ready, strict=True))
        ]
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
        reading = Reading(read)
        begins = {one.start: self._begin(layout.text, one, reading) for one in trained}
        if cuts := [start for start, first in begins.items() if first is None]:
            reading = self._apart(layout.text, cuts, reading)
            begins = {one.start: self._begin(layout.text, one, reading) for one in trained}
        roles = [0] * len(reading.ids)
        for role, start, end in layout.parts:
            if role != "assistant":
                _fill(roles, reading.at(start), reading.at(end), ROLES.index(role))
        everything = self.train_on == "all"
        labels = list(reading.ids) if everything else [IGNORED] * len(reading.ids)
        counts = [float(label != IGNORED) for label in labels] if _uneven(weights) else None
        ends = []
        for answer in layout.answers:
            weight = weights[answer.message]
            for first, last in self._spans(answer, reading, begins.get(answer.start)):
                _fill(roles, first, last, ROLES.index("assistant"))
                if weight and not everything:
                    labels[first:last] = reading.ids[first:last]
                elif not weight and everything:
                    _fill(labels, first, last, IGNORED)
                if counts is not None:
                    _fill(counts, first, last, weight)
            if weight and answer.stop and answer.marked and answer.marked[-1][1] == answer.end:
                ends.append(reading.at(answer.end - len(answer.stop)))
        return self._cut(reading.ids, labels, counts, roles, ends)

    def _spans(self, answer: Answer, reading: Reading, begin: int | None) -> list[tuple[int, int]]:
        """The tokens of an answer, from the first behind its prompt to its stop token."""
        spans = []
        for start, end in answer.marked:
            first = begin if start == answer.start else None
            first = reading.behind(start) if first is None else first
            stops = answer.stop and end == answer.end
            last = reading.at(end - len(answer.stop)) + 1 if stops else reading.at(end)
            spans.append((first, last))
        return spans

    def _begin(self, text: str, answer: Answer, reading: Reading) -> int | None:
        """The token after those of the generation prompt; None where the text has others there."""
        start = answer.start
        for piece in reading.pieces[1:]:
            if piece.place == start:
                return piece.token
        head = answer.head if answer.head is not None else text[:start]
        if head not in self._heads:
            if len(self._heads) > 4096:
                self._heads.clear()
            self._heads[head] = self._backend.encode(head, add_special_tokens=False).ids
        if text[start : start + 1].isspace() and self._strips(head):
            return None
        first = reading.at(start - len(head))
        last = first + len(self._heads[head])
        return last if reading.ids[first:last] == self._heads[head] else None

    def _strips(self, head: str) -> bool:
        """Whether a token at the end of the prompt takes away spaces behind it."""
        return head.rstrip().endswith(self._stripping)

    def _apart(self, text: str, cuts: Sequence[int], whole: Reading) -> Reading:
        """Tokenize anew, with borders where the answers begin, if no character is changed by it."""
        edges = [*sorted(set(cuts)), len(text)]
        reading = Reading(self._backend.encode(text[: edges[0]], add_special_tokens=False))
        for start, end in pairwise(edges):
            if not self._go_on(reading, start, text[start:end]):
                return whole
        return reading

    def _go_on(self, reading: Reading, place: int, piece: str) -> bool:
        """Add a piece that reads as itself: some tokenizers put a space before a text.

        They don't behind a special token, or a line end, which then is put before it and left out.
        """
        before = self._decoded(reading.ids)
        for lead in ("", self.tokenizer.eos_token or "\n", "\n"):
            read = self._backend.encode(lead + piece, add_special_tokens=False)
            skipped = _next_token(read, len(lead)) if lead else 0
            said = self._decoded(reading.ids + read.ids[skipped:])[len(before) :]
            if self._alike(said) == self._alike(piece):
                reading.add(place, read, len(lead), skipped)
                return True
        return False

    def _alike(self, text: str) -> str:
        """The text without what tokenizers change in every text."""
        import re
        import unicodedata

        text = re.sub(rf"({any_of(self._stripping)})\s+", r"\1", text)
        return unicodedata.normalize("NFC", text).replace("\u2581", " ")

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=False))

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
            if self._go_on(reading, len(row["prompt"]), row["completion"]):
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


def weights_of(messages: Sequence[Message], train_on: str) -> dict[int, float]:
    """How much each answer counts: 0 for one that is not trained."""
    answers = [index for index, one in enumerate(messages) if one["role"] == "assistant"]
    given = {index: messages[index].get("weight") for index in answers}
    weights = {index: 1.0 if weight is None else float(weight) for index, weight in given.items()}
    if train_on in ("last", "completion"):
        return {index: weights[index] * (index == answers[-1]) for index in answers}
    return weights


def check_template(tokenizer: Any, eos_ids: Sequence[int] | int | None = None) -> list[Finding]:
    """What is to be known of a chat template before training; `eos_ids`: where generation stops."""
    try:
        template = Template(tokenizer)
        stops = tuple(template.last_token(stop) for stop in template.stops)
        lacking, marks = template.lacking, template.marks
    except MaskError as error:
        return [Finding("template", str(error), wrong=True)]
    found = [Finding("marks", "It marks what is generated itself.")] if marks else []
    if extra := [text for text in lacking if text]:
        fact = f"Its generation prompt ends with {extra[0]!r}; answers do not begin with that."
        found.append(Finding("prompt", fact))
    if not stops:
        fact = "No token ends an answer: the model would never learn to stop."
        return [*found, Finding("stop", fact, wrong=True)]
    ids = {stop: int(tokenizer.convert_tokens_to_ids(stop)) for stop in stops}
    named = ", ".join(f"{stop} ({number})" for stop, number in ids.items())
    found.append(Finding("stop", f"An answer ends with {named}."))
    known = [eos_ids] if isinstance(eos_ids, int) else list(eos_ids or [])
    known = known or [tokenizer.eos_token_id]
    if ids[stops[0]] not in known:
        fact = f"Generation stops at {known}, but an answer ends with {stops[0]} ({ids[stops[0]]})."
        found.append(Finding("generation", fact, wrong=True))
    return found


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


def _fill(values: list[Any], first: int, last: int, value: Any) -> None:
    values[first:last] = [value] * (last - first)


def _uneven(weights: Mapping[int, float]) -> bool:
    return any(weight not in (0.0, 1.0) for weight in weights.values())
