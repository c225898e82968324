"""Conversations as tokens: which of them are trained, found from the chat template itself."""

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


def encode(tokenizer: Any, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Input ids and labels: what the assistant says is trained, its stop token included.

    A span that the assistant wrote is what the template adds to the conversation before it once
    the message is there. What the template puts after the stop token (a line end) is not trained.
    """
    text = render(tokenizer, messages, for_answer=False)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before = render(tokenizer, messages[:index], for_answer=True)
            upto = render(tokenizer, messages[: index + 1], for_answer=False)
            if not upto.startswith(before) or not text.startswith(upto):
                raise ValueError("the chat template rewrites earlier messages")
            spans.append((len(before), len(upto)))
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = tokens["input_ids"], tokens["offset_mapping"]
    labels = [IGNORED] * len(ids)
    for start, end in spans:
        _train(ids, offsets, labels, start, end, tokenizer.eos_token_id)
    return ids, labels


def _train(
    ids: list[int],
    offsets: list[tuple[int, int]],
    labels: list[int],
    start: int,
    end: int,
    stop: int,
) -> None:
    """Mark the tokens of one span, up to and with its stop token."""
    for index, (first, last) in enumerate(offsets):
        if start <= first and last <= end and last > first:
            labels[index] = ids[index]
            if ids[index] == stop:
                return
