"""What a chat template does to a conversation: where in the text each answer stands.

A template is learnt from conversations of words that occur nowhere else. Rendered, they show its
fixed text and, between, where each message goes. A real conversation of the same shape must then
be that fixed text with its own messages between, letter by letter: so a message that looks like
a header, or like a stop token, can never be taken for one.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None
Blanks = tuple[str, ...]

REASONING = ("reasoning_content", "thinking", "reasoning")
"""What templates call the thoughts before an answer; rows have the first."""

BLANKS = (("system", "user", "tool"), ("user", "tool"), ())
"""Roles whose messages have a place even without text; some templates leave those out."""

SHAPES_KEPT = 4096


class MaskError(ValueError):
    """A row whose mask cannot be right; the message is the fact."""


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


class Template:
    """A chat template of a tokenizer, or a text instead of it."""

    def __init__(self, tokenizer: Any, text: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.text: str = text if text is not None else own_template(tokenizer)
        self.marks = re.search(r"\{%-?\s*generation\s*-?%\}", self.text) is not None
        added = tokenizer.added_tokens_decoder.values()
        self.special = {token.content for token in added if token.special}
        self.special |= set(tokenizer.all_special_tokens)
        self.added = self.special | {token.content for token in added}
        self._shapes: dict[Any, Shape | MaskError] = {}
        self._form = 0

    # Rendering

    def render(
        self, messages: Sequence[Message], tools: Tools = None, *, for_answer: bool = False
    ) -> str:
        """The conversation as text; `for_answer` ends it where the assistant is to go on."""
        return self._rendered(self.text, messages, tools, for_answer)

    def render_many(self, rows: Sequence[Sequence[Message]]) -> list[str] | None:
        """Conversations without tools as texts, or None where the template refuses one."""
        try:
            texts = self.tokenizer.apply_chat_template(
                rows, chat_template=self.text, tokenize=False
            )
        except Exception:  # whatever a template raises; the row itself will say it
            return None
        return list(texts)

    def _rendered(
        self, template: str, messages: Sequence[Message], tools: Tools, for_answer: bool
    ) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=for_answer,
            )
        except Exception as error:  # jinja's own, and whatever Python raises inside a template
            raise MaskError(f"the chat template refuses it: {error}") from None
        return str(text)

    def _with_marks(
        self, messages: Sequence[Message], tools: Tools
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the parts that the template itself marks as generated."""
        if not self.marks:
            return self.render(messages, tools), []
        word = fresh_word(messages, tools)
        text = self.text
        for tag, letter in (("generation", "A"), ("endgeneration", "B")):
            text = re.sub(
                rf"(\{{%-?)\s*{tag}\s*(-?%\}})",
                rf"\1 if true %}}{{{{ '{word}{letter}' }}}}{{% endif \2",
                text,
            )
        pieces = re.split(f"({word}[AB])", self._rendered(text, messages, tools, False))
        spans, where, start = [], 0, 0
        for piece in pieces:
            if piece == word + "A":
                start = where
            elif piece == word + "B":
                spans.append((start, where))
            else:
                where += len(piece)
        return "".join(pieces[::2]), spans

    # Rows

    def prepare(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The messages as templates want them: no empty fields, reasoning under its name here."""
        return [self._prepared(message) for message in messages]

    def _prepared(self, message: Mapping[str, Any]) -> Message:
        kept = {
            name: value
            for name, value in message.items()
            if name not in ("weight", REASONING[0]) and value is not None and value != []
        }
        kept["content"] = content_as_text(kept.get("content", ""))
        if thoughts := message.get(REASONING[0]):
            kept[self._reasoning] = thoughts
        return kept

    @cached_property
    def _reasoning(self) -> str:
        named = (name for name in REASONING if re.search(rf"(?<!\w){name}(?!\w)", self.text))
        return next(named, REASONING[0])

    def layout(
        self, messages: Sequence[Message], tools: Tools = None, text: str | None = None
    ) -> Layout:
        """Where each answer stands; `text` is the conversation where it is already rendered."""
        if any("tool_calls" in message for message in messages):
            return self._layout_of_calls(messages, tools)
        return self._layout(messages, tools, self.render(messages, tools) if text is None else text)

    def _layout_of_calls(self, messages: Sequence[Message], tools: Tools) -> Layout:
        """Arguments as a mapping, else as text; no content as an empty text, else as none."""
        problem: MaskError | None = None
        for form in (self._form, *range(4)):
            tried = [in_form(message, form) for message in messages]
            try:
                found = self._layout(tried, tools, self.render(tried, tools))
                must_show_calls(found, tried)
            except MaskError as error:
                problem = problem or error
            else:
                self._form = form
                return found
        raise problem or MaskError("the chat template shows no tool call")

    def _layout(self, messages: Sequence[Message], tools: Tools, text: str) -> Layout:
        problem: MaskError | None = None
        for blanks in BLANKS:
            shape = self._shape(messages, tools, blanks)
            if isinstance(shape, MaskError):
                problem = problem or shape
            elif (starts := match(shape, messages, text)) is not None:
                return placed(shape, messages, text, starts)
        return self._by_difference(messages, tools, text, problem)

    # Learning

    def _shape(
        self, messages: Sequence[Message], tools: Tools, blanks: Blanks
    ) -> Shape | MaskError:
        """The shape of such conversations; `blanks`: roles as in BLANKS."""
        key = (blanks, repr(tools) if tools else "", *(kind(one, blanks) for one in messages))
        if key not in self._shapes:
            if len(self._shapes) >= SHAPES_KEPT:
                self._shapes.clear()
            try:
                self._shapes[key] = self._learn(messages, tools, blanks)
            except MaskError as error:
                self._shapes[key] = error
        return self._shapes[key]

    def _learn(self, messages: Sequence[Message], tools: Tools, blanks: Blanks) -> Shape:
        word = fresh_word(messages, tools)
        names: list[tuple[int, str]] = []
        probes = [
            probe(message, index, word, names, blanks) for index, message in enumerate(messages)
        ]
        text, marks = self._with_marks(probes, tools)
        found = [(names[int(one[1])], one.start(), one.end()) for one in words(word, text)]
        edges = [0, *(edge for _, start, end in found for edge in (start, end)), len(text)]
        answers, missing = [], []
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                start, lacks = self._start(probes, tools, index, word, text)
                end, stop = self._end(probes, tools, index, text, start, found)
                parts = clipped(marks, start, end) if self.marks else ((start, end),)
                fixed = max(edge for edge in edges[::2] if edge <= start)
                head = self._head(text[fixed:start])
                answers.append(Answer(index, start, end, stop, parts, head))
                missing.append(lacks)
        return Shape(
            fixed=tuple(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)),
            slots=tuple(name for name, _, _ in found),
            text=text,
            spans=tuple((start, end) for _, start, end in found),
            answers=tuple(answers),
            missing=tuple(missing),
        )

    def _head(self, fixed: str) -> str | None:
        where = max((fixed.rfind(token) for token in self.added), default=-1)
        return fixed[where:] if where >= 0 else None

    def _start(
        self, probes: Sequence[Message], tools: Tools, index: int, word: str, text: str
    ) -> tuple[int, str]:
        """Where the answer begins: behind what the generation prompt ends with."""
        if index == 0:
            first = next((one.start() for one in words(word, text)), len(text))
            where = text.rfind(self.prompt, 0, first) if self.prompt else -1
            if where < 0:
                raise MaskError("the conversation begins with an answer")
            return where + len(self.prompt), ""
        asked = self.render(probes[:index], tools, for_answer=True)
        anchor = list(words(word, asked))[-1:]
        tail = asked[anchor[0].end() :] if anchor else asked
        after = text.find(anchor[0][0]) + len(anchor[0][0]) if anchor else 0
        if anchor and anchor[0][0] not in text:
            raise MaskError(f"the chat template leaves out what comes before message {index + 1}")
        for lacks in self.lacking:
            ending = tail[: len(tail) - len(lacks)]
            if tail.endswith(lacks) and text.startswith(ending, after):
                return after + len(ending), lacks
        raise MaskError(
            f"the chat template does not put message {index + 1} behind its generation prompt"
        )

    def _end(
        self,
        probes: Sequence[Message],
        tools: Tools,
        index: int,
        text: str,
        start: int,
        found: Sequence[tuple[tuple[int, str], int, int]],
    ) -> tuple[int, str]:
        """Where the answer ends, with the stop token that the template puts behind it."""
        own = [(name, end) for (message, name), _, end in found if message == index]
        calls = "tool_calls" in probes[index]
        shown = own and own[-1][1] >= start
        if (probes[index]["content"] or "").strip() and not calls and not shown:
            raise MaskError(f"the chat template leaves out the answer in message {index + 1}")
        behind = own[-1][1] if own else start
        limit = min((first for _, first, _ in found if first >= behind), default=len(text))
        rest = text[behind:limit]
        if calls or (own and own[-1][0] != "content"):
            alone = self.render(probes[: index + 1], tools)
            stop = self._last_stop(alone)
            where = rest.rfind(stop) if stop else -1
        else:
            where, stop = first_of(self.stops, rest)
        if where >= 0:
            return behind + where + len(stop), self.last_token(stop)
        if calls:
            raise MaskError(f"no end is to be seen of the tool call in message {index + 1}")
        return behind, ""

    def last_token(self, stop: str) -> str:
        """The token at the end of a text of tokens."""
        return re.findall(any_of(self.added), stop)[-1] if stop else ""

    def _last_stop(self, text: str) -> str:
        """The stop token at the end of a text; the first where several follow one another."""
        found = list(re.finditer(any_of(self.special | set(self.stops)), text))
        while len(found) > 1 and found[-2][0] in self.stops:
            if text[found[-2].end() : found[-1].start()].strip():
                break
            found.pop()
        return found[-1][0] if found else ""

    @cached_property
    def _tried(self) -> list[tuple[str, str]]:
        """For an answer at the end and one before: the text behind it, what its start lacks."""
        talk = [
            {"role": role, "content": f"Zq{index}qZ"}
            for index, role in enumerate(("user", "assistant") * 2)
        ]
        tried = []
        for size, index in ((2, 1), (4, 1), (4, 3)):
            text = self.render(talk[:size])
            before, own = talk[index - 1]["content"], talk[index]["content"]
            if before not in text or own not in text:
                raise MaskError("the chat template leaves out messages")
            asked = self.render(talk[:index], for_answer=True)
            tail = asked[asked.rfind(before) + len(before) :]
            fixed = text[text.rfind(before) + len(before) : text.find(own)]
            behind = text[text.find(own) + len(own) :]
            if index + 1 < size:
                behind = behind[: behind.find(talk[index + 1]["content"])]
            tried.append((behind, tail[common(tail, fixed) :]))
        return tried

    @cached_property
    def stops(self) -> tuple[str, ...]:
        """What the template ends an answer with: a token, or several that always follow."""
        last = self._tried[0][0]
        known = self.special if first_of(self.special, last)[1] else self.added
        if not first_of(known, last)[1]:
            return ()  # what follows an earlier answer then is the next message's
        always = last[: common(last, self._tried[1][0])]
        run = re.search(rf"(?:{any_of(known)})+", always)
        several = run[0] if run else ""
        found = [first_of(known, behind)[1] for behind, _ in self._tried]
        return tuple(
            dict.fromkeys(several if several.startswith(stop) else stop for stop in found if stop)
        )

    @cached_property
    def lacking(self) -> tuple[str, ...]:
        """Ends of the generation prompt that are not repeated before an answer."""
        return tuple(sorted({"", *(lacks for _, lacks in self._tried)}, key=len))

    @cached_property
    def prompt(self) -> str:
        """What the template adds for the assistant to go on."""
        talk = [{"role": "user", "content": "Zq0qZ"}]
        asked, plain = self.render(talk, for_answer=True), self.render(talk)
        cut = common(asked, plain)
        for token in re.finditer(any_of(self.added), asked):
            if token.start() < cut < token.end():
                cut = token.start()
        return asked[cut:]

    # Rows whose own text decides what the template does

    def _by_difference(
        self, messages: Sequence[Message], tools: Tools, text: str, problem: MaskError | None
    ) -> Layout:
        """Put a word in the place of one answer at a time: what stays is not that answer."""
        shapes = [self._shape(messages, tools, blanks) for blanks in BLANKS]
        shape = next((one for one in shapes if isinstance(one, Shape)), None)
        if shape is None:
            raise problem or MaskError("the chat template leaves out messages")
        marks = self._with_marks(messages, tools)[1] if self.marks else []
        answers = []
        for answer, lacks in zip(shape.answers, shape.missing, strict=True):
            start, end = self._between(messages, tools, text, shape, answer)
            start += len(lacks) if lacks and text.startswith(lacks, start) else 0
            parts = clipped(marks, start, end) if self.marks else ((start, end),)
            answers.append(Answer(answer.message, start, end, answer.stop, parts))
        return Layout(text, tuple(answers), ())

    def _between(
        self, messages: Sequence[Message], tools: Tools, text: str, shape: Shape, answer: Answer
    ) -> tuple[int, int]:
        index, word = answer.message, fresh_word(messages, tools)
        if all(message != index for message, _ in shape.slots):
            filled = [
                *messages[:index],
                {**messages[index], "content": word},
                *messages[index + 1 :],
            ]
            other_shape = self._shape(filled, tools, BLANKS[0])
            if isinstance(other_shape, MaskError):
                return self._by_prefix(messages, tools, text, answer)
            shape, messages = other_shape, filled
            answer = next(one for one in shape.answers if one.message == index)
        pairs = zip(shape.spans, shape.slots, strict=True)
        own = [span for span, (message, _) in pairs if message == index]
        other = probe(messages[index], index, word, [], BLANKS[0])
        tried = self.render([*messages[:index], other, *messages[index + 1 :]], tools)
        found = list(words(word, tried))
        if not own or not found:
            return self._by_prefix(messages, tools, text, answer)
        lead = shape.text[answer.start : own[0][0]]
        trail = shape.text[own[-1][1] : answer.end]
        start, behind = found[0].start() - len(lead), found[-1].end()
        fits = tried.startswith(lead, start) and tried.startswith(trail, behind)
        after = tried[behind + len(trail) - len(answer.stop) :]
        end = len(text) - len(after) + len(answer.stop)
        fits = fits and text[:start] == tried[:start] and text.endswith(after)
        if fits and start + len(answer.stop) <= end:
            return start, end
        return self._by_prefix(messages, tools, text, answer)

    def _by_prefix(
        self, messages: Sequence[Message], tools: Tools, text: str, answer: Answer
    ) -> tuple[int, int]:
        """What the text has more than its generation prompt, where it merely goes on."""
        index, stop = answer.message, answer.stop
        asked = self.render(messages[:index], tools, for_answer=True) if index else "\0"
        upto = self.render(messages[: index + 1], tools)
        end = upto.rfind(stop) + len(stop) if stop else len(upto.rstrip())
        for lacks in self.lacking:
            before = asked.removesuffix(lacks)
            if upto.startswith(before) and text.startswith(upto[:end]) and end >= len(before):
                return len(before), end
        raise MaskError(
            f"the chat template rewrites message {index + 1} by what stands in it: "
            "which part of the text is the answer cannot be told"
        )


# Conversations of words


def own_template(tokenizer: Any) -> str:
    """The tokenizer's own template; one with several variants gives its default one."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:
        raise MaskError("the tokenizer has no chat template") from None


def content_as_text(content: Any) -> str:
    """The content of a message: a text, or a list of parts that are all texts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    found = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(parts):
        raise MaskError("a message has content that is not text")
    return "".join(texts)


def fresh_word(messages: Sequence[Message], tools: Tools) -> str:
    """A word that occurs nowhere in the conversation."""
    seen, word = repr(messages) + repr(tools), "Zq"
    while word in seen:
        word += "q"
    return word


def words(word: str, text: str) -> Iterator[re.Match[str]]:
    """The places of probes in a text, each with its number."""
    return re.finditer(rf"{word}(\d+)Z", text)


def fields(message: Message, blanks: Blanks) -> list[str]:
    """The fields of a message that are text of the row. An answer without text has none."""
    texts = ((name, message.get(name)) for name in ("content", *REASONING))
    empty = message["role"] in blanks
    return [name for name, text in texts if isinstance(text, str) and (empty or text.strip())]


def probe(
    message: Message, index: int, word: str, names: list[tuple[int, str]], blanks: Blanks
) -> Message:
    """The message with words in the place of its texts, noted in `names`."""
    other = dict(message)
    for name in fields(message, blanks):
        other[name] = f"{word}{len(names)}Z"
        names.append((index, name))
    return other


def kind(message: Message, blanks: Blanks) -> Any:
    """What of a message decides how a template renders those of its shape."""
    if len(message) == 2 and isinstance(content := message["content"], str):
        own = message["role"] in blanks or content.strip()
        return message["role"] if own else (message["role"], content)
    names = fields(message, blanks)
    rest = {name: value for name, value in message.items() if name not in names and name != "role"}
    return (message["role"], *names, repr(rest) if rest else "")


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


# Tool calls


def in_form(message: Message, form: int) -> Message:
    """One of the four ways in which templates want tool calls."""
    if "tool_calls" not in message:
        return message
    other = dict(message)
    if form & 2 and not other["content"]:
        other["content"] = None
    if form & 1:
        other["tool_calls"] = [arguments_as_text(call) for call in message["tool_calls"]]
    return other


def arguments_as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with its arguments as JSON text."""
    function = dict(call["function"])
    if not isinstance(function.get("arguments"), str):
        function["arguments"] = json.dumps(function.get("arguments"), ensure_ascii=False)
    return {**call, "function": function}


def must_show_calls(layout: Layout, messages: Sequence[Message]) -> None:
    """Refuse a text in which a call is left out: the model would be taught to say nothing."""
    for answer in layout.answers:
        said = layout.text[answer.start : answer.end]
        for call in messages[answer.message].get("tool_calls", ()):
            if call["function"]["name"] not in said:
                raise MaskError(
                    f"the chat template leaves out the tool call in message {answer.message + 1}"
                )


# Texts


def any_of(tokens: Any) -> str:
    """A pattern for any of these texts, the longest first."""
    return "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True)) or r"(?!)"


def first_of(tokens: Any, text: str) -> tuple[int, str]:
    """Where the first of these tokens stands in a text, and which; -1 and nothing without."""
    found = re.search(any_of(tokens), text)
    return (found.start(), found[0]) if found else (-1, "")


def common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    size = min(len(one), len(other))
    return next((index for index in range(size) if one[index] != other[index]), size)


def clipped(marks: Sequence[tuple[int, int]], start: int, end: int) -> tuple[tuple[int, int], ...]:
    """The marked parts of an answer, without what is not generated: header and line end."""
    pairs = ((max(start, first), min(end, last)) for first, last in marks)
    return tuple((first, last) for first, last in pairs if first < last)
