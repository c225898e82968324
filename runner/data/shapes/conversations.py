"""Messages, tools and tool calls of every usual form, in the one form of OpenAI's API."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner.data.reading.lines import BadRow
from runner.data.shapes.values import Row, as_list, as_text, is_text, kind_of, parsed
from runner.errors import did_you_mean, listing

Message = dict[str, Any]

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response"), "tool"),
}
"""The words for a role in OpenAI's and ShareGPT's forms, and what each means."""

REASONING = ("reasoning_content", "thinking", "reasoning")
WEIGHTS = ("weight", "loss_weight", "train")


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, or the JSON text of one."""
    items = parsed(value)
    if not isinstance(items, list) or (isinstance(value, str) and not items):
        return False  # the text "[]" is a text like any other
    return all(is_message(item) for item in items)


def is_message(value: Any) -> bool:
    """Whether a value says whose message it is."""
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def is_answer(value: Any) -> bool:
    """Whether a value may be what the assistant says: a text, a message or several."""
    return is_text(value) or is_message(value) or is_conversation(value)


def messages_of(value: Any, where: str) -> list[Message]:
    """The messages of a list; `where` names it in errors."""
    return [_message(item, f"{where}[{i}]") for i, item in enumerate(as_list(value, where))]


def turns(value: Any, role: str, where: str) -> list[Message]:
    """Messages, from a list of them, from one, or from the text that one of this role says."""
    if is_message(value):
        return [_message(value, where)]
    if isinstance(value, str) and not is_conversation(value):
        return _marked(value) or [spoken(role, value)]
    return messages_of(value, where)


def spoken(role: str, content: Any, where: str = "") -> Message:
    """The message of one role that is a plain text."""
    return {"role": role, "content": as_text(content, where or role)}


def _marked(text: str) -> list[Message]:
    """The messages of a text with the marks of Anthropic's HH-RLHF data."""
    _, *parts = re.split(r"\n\n(Human|Assistant): ?", text)
    if not text.startswith("\n\nHuman:"):
        return []
    pairs = zip(parts[::2], parts[1::2], strict=True)
    messages = [spoken("user" if who == "Human" else "assistant", said) for who, said in pairs]
    return messages if messages[-1]["content"] else messages[:-1]


def _message(item: Any, where: str) -> Message:
    """A message in either form: role and content, or from and value."""
    if not isinstance(item, Mapping):
        raise BadRow(f"{where} must be a message with a role and a content, not {kind_of(item)}.")
    speaker, said = ("from", "value") if "from" in item else ("role", "content")
    word, content = item.get(speaker), item.get(said)
    role = ROLES.get(word) if isinstance(word, str) else None
    if role is None:
        guess = did_you_mean(str(word), ROLES) or f"The roles are {listing(list(ROLES))}."
        raise BadRow(f'{where} has the role "{word}", which is none.', guess)
    if isinstance(content, str) and len(item) == 2 and word != "function_call":
        return {"role": role, "content": content}  # most are so plain
    if word == "function_call":
        return {
            "role": role,
            "content": "",
            "tool_calls": _calls(content, where),
            **_rest(item, where),
        }
    made = {"role": role, **_content(content, item, f"{where}.{said}"), **_rest(item, where)}
    if role != "assistant" and "tool_calls" in made:
        raise BadRow(f"{where} calls a tool, and is not the assistant's.")
    if "content" not in made and "tool_calls" not in made:
        raise BadRow(f"{where} has no {said}.")
    return {"role": role, "content": "", **made}


def _content(content: Any, item: Row, where: str) -> Message:
    """Content, reasoning and calls; each may also stand as a typed part in the content."""
    found: dict[str, list[Any]] = {"text": [], "reasoning": [], "tool_call": []}
    for kind, value in _parts(content, where):
        found[kind] += _calls(value, where) if kind == "tool_call" else [as_text(value, where)]
    found["reasoning"] += [item[key] for key in REASONING if isinstance(item.get(key), str)]
    found["tool_call"] += _calls(item["tool_calls"], where) if item.get("tool_calls") else []
    made: Message = {"content": "".join(found["text"])} if content is not None else {}
    if found["reasoning"]:
        made["reasoning_content"] = "\n".join(found["reasoning"])
    if found["tool_call"]:
        made["tool_calls"] = found["tool_call"]
    return made


def _parts(content: Any, where: str) -> Iterator[tuple[str, Any]]:
    """The kind and value of each part of a content; a text is one part."""
    if not isinstance(content, list):
        content = [] if content is None else [{"type": "text", "text": content}]
    for part in content:
        if not isinstance(part, Mapping):
            raise BadRow(f"{where} must be a text or a list of typed parts.")
        kind = str(part.get("type"))
        values = [part[key] for key in ("text", "value", kind) if part.get(key) is not None]
        kind = "reasoning" if kind in REASONING else kind
        if kind not in ("text", "reasoning", "tool_call"):
            raise BadRow(f"{where} has a part of the type {kind}; only text is read.")
        yield kind, values[0] if values else None


def _rest(item: Row, where: str) -> Message:
    """What else a message may carry."""
    made = {key: item[key] for key in ("tool_call_id", "name") if isinstance(item.get(key), str)}
    for key in WEIGHTS:
        if (weight := item.get(key)) is not None:
            if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise BadRow(f"{where}.{key} must be a number from 0 on, not {kind_of(weight)}.")
            made["weight"] = float(weight)
    return made


def tools_of(row: Row) -> dict[str, Any]:
    """The tools that a conversation may call, in OpenAI's form; nothing where there are none."""
    tools = parsed(row.get("tools"))
    if tools is None or tools in ("", []):
        return {}
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise BadRow("tools must be a list of tools.")
    return {
        "tools": [
            dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}
            for tool in tools
        ]
    }


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    value = parsed(value)
    return [_call(item, where) for item in (value if isinstance(value, list) else [value])]


def _call(value: Any, where: str) -> dict[str, Any]:
    """A call in OpenAI's form; it may come bare, and its arguments as a JSON text."""
    value = parsed(value)
    function = parsed(value.get("function") or value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRow(f"{where} must call a tool by its name, with arguments.", f"Got {value!r:.60}")
    arguments = parsed(function.get("arguments"))
    if not isinstance(arguments, Mapping | None) and arguments != "":
        raise BadRow(f"{where}: the arguments of {function['name']} must be a mapping.")
    call = {"function": {"name": function["name"], "arguments": dict(arguments or {})}}
    identity = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
    return {**identity, "type": "function", **call}
