"""Messages as chat templates want them."""

import json
from collections.abc import Mapping
from typing import Any

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None

REASONING = ("reasoning_content", "thinking", "reasoning")
"""What templates call the thoughts before an answer; rows have the first."""


class MaskError(ValueError):
    """A row whose mask cannot be right; the message is the fact."""


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
