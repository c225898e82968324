"""What a chat template does to a conversation: where in the text each answer stands.

A template is learnt from conversations of words that occur nowhere else. Rendered, they show its
fixed text and, between, where each message goes. A real conversation of the same shape must then
be that fixed text with its own messages between, letter by letter: so a message that looks like
a header, or like a stop token, can never be taken for one.
"""

from collections.abc import Sequence
from typing import Any

from runner.data.templates.difference import by_difference
from runner.data.templates.endings import Endings
from runner.data.templates.layout import Layout, match, placed
from runner.data.templates.learner import Learner
from runner.data.templates.messages import MaskError, Message, Tools, in_form
from runner.data.templates.probes import BLANKS
from runner.data.templates.rendering import Rendering


class Template:
    """A chat template of a tokenizer, or a text instead of it."""

    def __init__(self, tokenizer: Any, text: str | None = None) -> None:
        self.rendering = Rendering(tokenizer, text)
        self.endings = Endings(self.rendering)
        self._learner = Learner(self.rendering, self.endings)
        self._form = 0

    def layout(
        self, messages: Sequence[Message], tools: Tools = None, text: str | None = None
    ) -> Layout:
        """Where each answer stands; `text` is the conversation where it is already rendered."""
        if any("tool_calls" in message for message in messages):
            return self._layout_of_calls(messages, tools)
        return self._layout(
            messages, tools, self.rendering.render(messages, tools) if text is None else text
        )

    def _layout_of_calls(self, messages: Sequence[Message], tools: Tools) -> Layout:
        """Arguments as a mapping, else as text; no content as an empty text, else as none."""
        problem: MaskError | None = None
        for form in (self._form, *range(4)):
            tried = [in_form(message, form) for message in messages]
            try:
                found = self._layout(tried, tools, self.rendering.render(tried, tools))
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
            shape = self._learner.shape(messages, tools, blanks)
            if isinstance(shape, MaskError):
                problem = problem or shape
            elif (starts := match(shape, messages, text)) is not None:
                return placed(shape, messages, text, starts)
        return by_difference(self._learner, messages, tools, text, problem)


def must_show_calls(layout: Layout, messages: Sequence[Message]) -> None:
    """Refuse a text in which a call is left out: the model would be taught to say nothing."""
    for answer in layout.answers:
        said = layout.text[answer.start : answer.end]
        for call in messages[answer.message].get("tool_calls", ()):
            if call["function"]["name"] not in said:
                raise MaskError(
                    f"the chat template leaves out the tool call in message {answer.message + 1}"
                )
