"""Conversations to texts, by a tokenizer's chat template."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from runner.data.templates.messages import REASONING, MaskError, Message, Tools, content_as_text
from runner.data.templates.probes import fresh_word

PLAIN = {"role", "content"}


class Rendering:
    """Makes texts of conversations: a tokenizer's chat template, or a text instead of it."""

    def __init__(self, tokenizer: Any, text: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.text: str = text if text is not None else own_template(tokenizer)
        self.marks = re.search(r"\{%-?\s*generation\s*-?%\}", self.text) is not None
        added = tokenizer.added_tokens_decoder.values()
        self.special = {token.content for token in added if token.special}
        self.special |= set(tokenizer.all_special_tokens)
        self.added = self.special | {token.content for token in added}

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

    def with_marks(
        self, messages: Sequence[Message], tools: Tools
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the parts that the template itself marks as generated."""
        if not self.marks:
            return self.render(messages, tools), []
        word = fresh_word(messages, tools)
        text = self._rendered(self._marking(word), messages, tools, False)
        return unmarked(word, text)

    def _marking(self, word: str) -> str:
        """The template with a word, and A or B, where generated parts begin and end."""
        text = self.text
        for tag, letter in (("generation", "A"), ("endgeneration", "B")):
            text = re.sub(
                rf"(\{{%-?)\s*{tag}\s*(-?%\}})",
                rf"\1 if true %}}{{{{ '{word}{letter}' }}}}{{% endif \2",
                text,
            )
        return text

    def prepare(self, messages: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The messages as templates want them: no empty fields, reasoning under its name here."""
        return [self._prepared(message) for message in messages]

    def _prepared(self, message: Mapping[str, Any]) -> Message:
        if message.keys() == PLAIN and isinstance(message["content"], str):
            return dict(message)  # most are so plain
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


def own_template(tokenizer: Any) -> str:
    """The tokenizer's own template; one with several variants gives its default one."""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:
        raise MaskError("the tokenizer has no chat template") from None


def unmarked(word: str, text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without those words, and the parts between them."""
    pieces = re.split(f"({word}[AB])", text)
    spans, where, start = [], 0, 0
    for piece in pieces:
        if piece == word + "A":
            start = where
        elif piece == word + "B":
            spans.append((start, where))
        else:
            where += len(piece)
    return "".join(pieces[::2]), spans
