"""Answers of conversations whose own text decides what the template does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner.data.templates.layout import Answer, Layout, Shape, clipped
from runner.data.templates.learner import Learner
from runner.data.templates.messages import MaskError, Message, Tools
from runner.data.templates.probes import BLANKS, fresh_word, probe, words


def by_difference(
    learner: Learner,
    messages: Sequence[Message],
    tools: Tools,
    text: str,
    problem: MaskError | None,
) -> Layout:
    """Put a word in the place of one answer at a time: what stays is not that answer."""
    shapes = [learner.shape(messages, tools, blanks) for blanks in BLANKS]
    shape = next((one for one in shapes if isinstance(one, Shape)), None)
    if shape is None:
        raise problem or MaskError("the chat template leaves out messages")
    rendering = learner.rendering
    marks = rendering.with_marks(messages, tools)[1] if rendering.marks else []
    difference = Difference(learner, messages, tools, text, fresh_word(messages, tools))
    answers = []
    for answer, lacks in zip(shape.answers, shape.missing, strict=True):
        start, end = difference.between(shape, answer)
        start += len(lacks) if lacks and text.startswith(lacks, start) else 0
        parts = clipped(marks, start, end) if rendering.marks else ((start, end),)
        answers.append(Answer(answer.message, start, end, answer.stop, parts))
    return Layout(text, tuple(answers), ())


@dataclass(frozen=True)
class Difference:
    """A rendered conversation, and the word to put in the place of its answers."""

    learner: Learner
    messages: Sequence[Message]
    tools: Tools
    text: str
    word: str

    def between(self, shape: Shape, answer: Answer) -> tuple[int, int]:
        """Where the answer begins and ends in the text."""
        if any(message == answer.message for message, _ in shape.slots):
            return self._span(shape, answer)
        filled = self._with({**self.messages[answer.message], "content": self.word}, answer)
        other = self.learner.shape(filled, self.tools, BLANKS[0])
        if isinstance(other, MaskError):
            return self._by_prefix(answer)
        own = next(one for one in other.answers if one.message == answer.message)
        return replace(self, messages=filled)._span(other, own)

    def _with(self, message: Message, answer: Answer) -> list[Message]:
        """The conversation with another message in the place of an answer."""
        index = answer.message
        return [*self.messages[:index], message, *self.messages[index + 1 :]]

    def _span(self, shape: Shape, answer: Answer) -> tuple[int, int]:
        found = self._by_word(shape, answer)
        return self._by_prefix(answer) if found is None else found

    def _by_word(self, shape: Shape, answer: Answer) -> tuple[int, int] | None:
        """What changes with a word in its place, and the fixed text of the answer around it."""
        pairs = zip(shape.spans, shape.slots, strict=True)
        own = [span for span, (message, _) in pairs if message == answer.message]
        other = probe(self.messages[answer.message], answer.message, self.word, [], BLANKS[0])
        tried = self.learner.rendering.render(self._with(other, answer), self.tools)
        found = list(words(self.word, tried))
        if not own or not found:
            return None
        lead = shape.text[answer.start : own[0][0]]
        trail = shape.text[own[-1][1] : answer.end]
        start, behind = found[0].start() - len(lead), found[-1].end()
        if not (tried.startswith(lead, start) and tried.startswith(trail, behind)):
            return None
        after = tried[behind + len(trail) - len(answer.stop) :]
        end = len(self.text) - len(after) + len(answer.stop)
        alike = self.text[:start] == tried[:start] and self.text.endswith(after)
        return (start, end) if alike and start + len(answer.stop) <= end else None

    def _by_prefix(self, answer: Answer) -> tuple[int, int]:
        """What the text has more than its generation prompt, where it merely goes on."""
        index, stop, render = answer.message, answer.stop, self.learner.rendering.render
        asked = render(self.messages[:index], self.tools, for_answer=True) if index else "\0"
        upto = render(self.messages[: index + 1], self.tools)
        end = upto.rfind(stop) + len(stop) if stop else len(upto.rstrip())
        for lacks in self.learner.endings.lacking:
            before = asked.removesuffix(lacks)
            if upto.startswith(before) and self.text.startswith(upto[:end]) and end >= len(before):
                return len(before), end
        raise MaskError(
            f"the chat template rewrites message {index + 1} by what stands in it: "
            "which part of the text is the answer cannot be told"
        )
