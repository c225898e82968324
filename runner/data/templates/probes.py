"""Conversations of words that occur nowhere else, to see what a template does to them."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from runner.data.templates.messages import REASONING, Message, Tools

Blanks = tuple[str, ...]

BLANKS = (("system", "user", "tool"), ("user", "tool"), ())
"""Roles whose messages have a place even without text; some templates leave those out."""


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
