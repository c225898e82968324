"""Conversations as text, and the mark of a token that is not trained."""

from collections.abc import Mapping, Sequence
from typing import Any

IGNORED = -100
"""The label of a token that is not trained (torch's cross entropy passes over it)."""

Message = Mapping[str, Any]


def render(tokenizer: Any, messages: Sequence[Message], *, for_answer: bool) -> str:
    """The conversation as text; `for_answer` ends it where the assistant is to go on."""
    return str(
        tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=for_answer
        )
    )
