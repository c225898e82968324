"""The shapes of conversations, learnt from words in the place of their texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runner.data.templates.endings import Endings, first_of
from runner.data.templates.layout import Answer, Shape, clipped
from runner.data.templates.messages import MaskError, Message, Tools
from runner.data.templates.probes import Blanks, fresh_word, kind, probe, words
from runner.data.templates.rendering import Rendering

SHAPES_KEPT = 4096


@dataclass(frozen=True)
class Probed:
    """A rendered conversation of words, and where they stand in it."""

    messages: Sequence[Message]
    tools: Tools
    word: str
    text: str
    marks: Sequence[tuple[int, int]]
    """The parts that the template itself marks as generated."""
    found: Sequence[tuple[tuple[int, str], int, int]]
    """The message and its field that a word is for, its start and its end."""

    @cached_property
    def edges(self) -> list[int]:
        """The start and end of each fixed text between the words."""
        inner = (edge for _, start, end in self.found for edge in (start, end))
        return [0, *inner, len(self.text)]


class Learner:
    """Learns the shapes of conversations, each one once."""

    def __init__(self, rendering: Rendering, endings: Endings) -> None:
        self.rendering, self.endings = rendering, endings
        self._shapes: dict[Any, Shape | MaskError] = {}

    def shape(self, messages: Sequence[Message], tools: Tools, blanks: Blanks) -> Shape | MaskError:
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
        probed = self._probed(messages, tools, blanks)
        learnt = [
            self._answer(probed, index)
            for index, message in enumerate(messages)
            if message["role"] == "assistant"
        ]
        pairs = zip(probed.edges[::2], probed.edges[1::2], strict=True)
        return Shape(
            fixed=tuple(probed.text[start:end] for start, end in pairs),
            slots=tuple(name for name, _, _ in probed.found),
            text=probed.text,
            spans=tuple((start, end) for _, start, end in probed.found),
            answers=tuple(answer for answer, _ in learnt),
            missing=tuple(lacks for _, lacks in learnt),
        )

    def _probed(self, messages: Sequence[Message], tools: Tools, blanks: Blanks) -> Probed:
        word = fresh_word(messages, tools)
        names: list[tuple[int, str]] = []
        probes = [
            probe(message, index, word, names, blanks) for index, message in enumerate(messages)
        ]
        text, marks = self.rendering.with_marks(probes, tools)
        found = [(names[int(one[1])], one.start(), one.end()) for one in words(word, text)]
        return Probed(probes, tools, word, text, marks, found)

    def _answer(self, probed: Probed, index: int) -> tuple[Answer, str]:
        """An answer, and what its generation prompt has more than the text before it."""
        start, lacks = self._start(probed, index)
        end, stop = self._end(probed, index, start)
        parts = clipped(probed.marks, start, end) if self.rendering.marks else ((start, end),)
        fixed = max(edge for edge in probed.edges[::2] if edge <= start)
        head = self._head(probed.text[fixed:start])
        return Answer(index, start, end, stop, parts, head), lacks

    def _head(self, fixed: str) -> str | None:
        where = max((fixed.rfind(token) for token in self.rendering.added), default=-1)
        return fixed[where:] if where >= 0 else None

    def _start(self, probed: Probed, index: int) -> tuple[int, str]:
        """Where the answer begins: behind what the generation prompt ends with."""
        if index == 0:
            return self._first_start(probed), ""
        text = probed.text
        asked = self.rendering.render(probed.messages[:index], probed.tools, for_answer=True)
        anchor = list(words(probed.word, asked))[-1:]
        tail = asked[anchor[0].end() :] if anchor else asked
        after = text.find(anchor[0][0]) + len(anchor[0][0]) if anchor else 0
        if anchor and anchor[0][0] not in text:
            raise MaskError(f"the chat template leaves out what comes before message {index + 1}")
        for lacks in self.endings.lacking:
            ending = tail[: len(tail) - len(lacks)]
            if tail.endswith(lacks) and text.startswith(ending, after):
                return after + len(ending), lacks
        raise MaskError(
            f"the chat template does not put message {index + 1} behind its generation prompt"
        )

    def _first_start(self, probed: Probed) -> int:
        """Where an answer begins that nothing comes before."""
        prompt = self.endings.prompt
        first = next((start for _, start, _ in probed.found), len(probed.text))
        where = probed.text.rfind(prompt, 0, first) if prompt else -1
        if where < 0:
            raise MaskError("the conversation begins with an answer")
        return where + len(prompt)

    def _end(self, probed: Probed, index: int, start: int) -> tuple[int, str]:
        """Where the answer ends, with the stop token that the template puts behind it."""
        message, found = probed.messages[index], probed.found
        own = [(name, end) for (place, name), _, end in found if place == index]
        calls = "tool_calls" in message
        shown = own and own[-1][1] >= start
        if (message["content"] or "").strip() and not calls and not shown:
            raise MaskError(f"the chat template leaves out the answer in message {index + 1}")
        last, behind = own[-1] if own else ("content", start)
        limit = min((first for _, first, _ in found if first >= behind), default=len(probed.text))
        rest = probed.text[behind:limit]
        if calls or last != "content":
            where, stop = self._stop_alone(probed, index, rest)
        else:
            where, stop = first_of(self.endings.stops, rest)
        if where >= 0:
            return behind + where + len(stop), self.endings.last_token(stop)
        if calls:
            raise MaskError(f"no end is to be seen of the tool call in message {index + 1}")
        return behind, ""

    def _stop_alone(self, probed: Probed, index: int, rest: str) -> tuple[int, str]:
        """Where in `rest` the token stands that ends the conversation were it to end there."""
        alone = self.rendering.render(probed.messages[: index + 1], probed.tools)
        stop = self.endings.last_stop(alone)
        return (rest.rfind(stop) if stop else -1), stop
