"""The shapes in which training rows come, told apart by their columns, and their one form.

Canonical examples, by what a shape gives:

    chat        {"messages": [message, ...], "tools"?: [tool, ...]}
    completion  {"prompt": str, "completion": str}
    text        {"text": str}
    tokens      {"input_ids": [int, ...], "labels"?: [int, ...]}
    preference  {"prompt": [message, ...], "chosen": [...], "rejected": [...], "tools"?: [...]}

A message has `role` (system, user, assistant or tool), `content` (a text) and, where given,
`reasoning_content`, `tool_calls`, `tool_call_id`, `name` and `weight` (how much it is trained,
1 where left out). Tools and calls have the form of OpenAI's API, with arguments as a mapping.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runner.data.read import BadRow
from runner.errors import did_you_mean, listing

Row = Mapping[str, Any]
Message = dict[str, Any]
Names = Mapping[str, tuple[str, ...]]

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response"), "tool"),
}
"""The words for a role in OpenAI's and ShareGPT's forms, and what each means."""

REASONING = ("reasoning_content", "thinking", "reasoning")
WEIGHTS = ("weight", "loss_weight", "train")
MEDIA = ("images", "videos", "audios")


@dataclass(frozen=True)
class Shape:
    """A usual set of columns; each with the other names that it goes by."""

    name: str
    gives: Literal["chat", "completion", "text", "tokens", "preference"]
    needs: Names
    takes: Names
    fits: Callable[[Any], bool]
    """Whether a value may stand in a needed column."""
    make: Callable[[Row], dict[str, Any]]
    """The canonical example of a row that has the shape's own column names and no nulls."""


def detect(columns: Iterable[str], row: Row) -> Shape | None:
    """The shape of a source with these columns, of which `row` is one row.

    The more a shape says, the earlier it is tried: a row with both `messages` and `text` is a
    conversation with a note.
    """
    there = set(columns)
    for shape in SHAPES.values():
        found = [[n for n in (name, *others) if n in there] for name, others in shape.needs.items()]
        values = [row.get(names[0]) for names in found if names]
        if all(found) and all(value is None or shape.fits(value) for value in values):
            return shape
    return None


def convert(shape: str, row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    """The canonical example of a row; `columns` says which of its columns is which of the shape's.

    Raises BadRow where the row is not of the shape.
    """
    kind = SHAPES[shape]
    if media := [name for name in MEDIA if row.get(name) and name not in columns.values()]:
        raise BadRow(f"has {listing(media)}; only text is read.")
    return kind.make(_picked(kind, row, columns))


def _picked(shape: Shape, row: Row, columns: Mapping[str, str]) -> Row:
    """The columns that a shape reads, under its own names, without nulls."""
    known = {**shape.needs, **shape.takes}
    for name in columns:
        if name not in known:
            guess = did_you_mean(name, known) or f"It has: {listing(list(known))}."
            raise BadRow(f'is read as {shape.name}, which has no column "{name}".', guess)
    found = {}
    for name, others in known.items():
        names = (columns[name],) if name in columns else (name, *others)
        here = [each for each in names if row.get(each) is not None]
        if here:
            found[name] = row[here[0]]
        elif name in shape.needs or (name in columns and names[0] not in row):
            raise _missing(names, row)
    return found


def _missing(names: Sequence[str], row: Row) -> BadRow:
    if nulls := [name for name in names if name in row]:
        return BadRow(f'has null in the column "{nulls[0]}".')
    guess = did_you_mean(names[0], row) or f"It has: {listing(list(row))}."
    return BadRow(f'has no column "{names[0]}".', guess)


# Values


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise BadRow(f"{where} must be a text, not {_kind(value)}.")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"{value!r:.40}")


def _parsed(value: Any) -> Any:
    """A value; or the one whose JSON text it is, as csv files and some data sets hold lists."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _items(value: Any, where: str) -> list[Any]:
    items = _parsed(value)
    if not isinstance(items, list):
        raise BadRow(f"{where} must be a list, not {_kind(items)}.")
    if not items:
        raise BadRow(f"{where} is an empty list.")
    return items


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_conversation(value: Any) -> bool:
    items = _parsed(value)
    if not isinstance(items, list) or (isinstance(value, str) and not items):
        return False  # the text "[]" is a text like any other
    return all(_is_message(item) for item in items)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def _is_answer(value: Any) -> bool:
    return _is_text(value) or _is_message(value) or _is_conversation(value)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


# Messages


def _messages(value: Any, where: str) -> list[Message]:
    return [_message(item, f"{where}[{i}]") for i, item in enumerate(_items(value, where))]


def _message(item: Any, where: str) -> Message:
    """A message in either form: role and content, or from and value."""
    if not isinstance(item, Mapping):
        raise BadRow(f"{where} must be a message with a role and a content, not {_kind(item)}.")
    speaker, said = ("from", "value") if "from" in item else ("role", "content")
    word, content = item.get(speaker), item.get(said)
    role = ROLES.get(word) if isinstance(word, str) else None
    if role is None:
        guess = did_you_mean(str(word), ROLES) or f"The roles are {listing(list(ROLES))}."
        raise BadRow(f'{where} has the role "{word}", which is none.', guess)
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
        found[kind] += _calls(value, where) if kind == "tool_call" else [_text(value, where)]
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
                raise BadRow(f"{where}.{key} must be a number from 0 on, not {_kind(weight)}.")
            made["weight"] = float(weight)
    return made


# Tools


def _calls(value: Any, where: str) -> list[dict[str, Any]]:
    value = _parsed(value)
    return [_call(item, where) for item in (value if isinstance(value, list) else [value])]


def _call(value: Any, where: str) -> dict[str, Any]:
    """A call in OpenAI's form; it may come bare, and its arguments as a JSON text."""
    value = _parsed(value)
    function = _parsed(value.get("function") or value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadRow(f"{where} must call a tool by its name, with arguments.", f"Got {value!r:.60}")
    arguments = _parsed(function.get("arguments"))
    if not isinstance(arguments, Mapping | None) and arguments != "":
        raise BadRow(f"{where}: the arguments of {function['name']} must be a mapping.")
    call = {"function": {"name": function["name"], "arguments": dict(arguments or {})}}
    identity = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
    return {**identity, "type": "function", **call}


def _tools(row: Row) -> dict[str, Any]:
    """The tools that a conversation may call, in OpenAI's form; nothing where there are none."""
    tools = _parsed(row.get("tools"))
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


# What each shape makes


def _chat(messages: list[Message], row: Row) -> dict[str, Any]:
    """The example of a conversation, with the row's own system text and tools."""
    messages = _opening(row, messages) + messages
    if all(message["role"] != "assistant" for message in messages):
        raise BadRow("has no message of the assistant: there is nothing to learn.")
    if messages[-1]["role"] != "assistant":
        role = messages[-1]["role"]
        raise BadRow(f"ends with a message of the role {role}; the last must be the assistant's.")
    return {"messages": messages, **_tools(row)}


def _opening(row: Row, messages: Sequence[Message]) -> list[Message]:
    """The message that the column `system` makes, if it says anything new."""
    if not (system := _text(row.get("system", ""), "system")):
        return []
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"] != system:
            raise BadRow("has a system text in its own column and another in the conversation.")
        return []
    return [_said("system", system)]


def _said(role: str, content: Any, where: str = "") -> Message:
    return {"role": role, "content": _text(content, where or role)}


def _from_messages(row: Row) -> dict[str, Any]:
    return _chat(_messages(row["messages"], "messages"), row)


def _from_sharegpt(row: Row) -> dict[str, Any]:
    return _chat(_messages(row["conversations"], "conversations"), row)


def _from_alpaca(row: Row) -> dict[str, Any]:
    """The input stands below the instruction, as LLaMA-Factory puts it."""
    messages = [*_history(row), _asked(row), _said("assistant", row["output"], "output")]
    return _chat(messages, row)


def _asked(row: Row) -> Message:
    parts = [_text(row.get(name, ""), name) for name in ("instruction", "input")]
    return _said("user", "\n".join(part for part in parts if part))


def _history(row: Row) -> Iterator[Message]:
    """Earlier pairs of a question and its answer."""
    history = _parsed(row.get("history")) or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow("history must be a list of pairs, a question and its answer.")
        yield _said("user", pair[0], "history")
        yield _said("assistant", pair[1], "history")


def _from_question(row: Row) -> dict[str, Any]:
    """What the question is about stands above it."""
    parts = [_text(row.get(name, ""), name) for name in ("context", "question")]
    question = _said("user", "\n\n".join(part for part in parts if part))
    return _chat([question, _said("assistant", row["answer"], "answer")], row)


def _from_completion(row: Row) -> dict[str, Any]:
    """Two texts stay two texts; messages become a chat in which the prompt is not trained."""
    prompt, completion = row["prompt"], row["completion"]
    if not (_is_conversation(prompt) or _is_conversation(completion)):
        return {"prompt": _text(prompt, "prompt"), "completion": _text(completion, "completion")}
    before = [
        {**message, "weight": 0.0} if message["role"] == "assistant" else message
        for message in _turns(prompt, "user", "prompt")
    ]
    return _chat(before + _turns(completion, "assistant", "completion"), row)


def _turns(value: Any, role: str, where: str) -> list[Message]:
    """Messages, from a list of them, from one, or from the text that one of this role says."""
    if _is_message(value):
        return [_message(value, where)]
    if isinstance(value, str) and not _is_conversation(value):
        return _marked(value) or [_said(role, value)]
    return _messages(value, where)


def _marked(text: str) -> list[Message]:
    """The messages of a text with the marks of Anthropic's HH-RLHF data."""
    _, *parts = re.split(r"\n\n(Human|Assistant): ?", text)
    if not text.startswith("\n\nHuman:"):
        return []
    pairs = zip(parts[::2], parts[1::2], strict=True)
    messages = [_said("user" if who == "Human" else "assistant", said) for who, said in pairs]
    return messages if messages[-1]["content"] else messages[:-1]


def _from_text(row: Row) -> dict[str, Any]:
    return {"text": _text(row["text"], "text")}


def _from_tokens(row: Row) -> dict[str, Any]:
    """Token ids and labels, without the padding that an attention mask of 0 marks."""
    lists = {name: _items(row[name], name) for name in ("input_ids", "labels") if name in row}
    mask = row.get("attention_mask", [1] * len(lists["input_ids"]))
    for name, ids in (*lists.items(), ("attention_mask", mask)):
        if not _is_ids(ids):
            raise BadRow(f"{name} must be a list of whole numbers.")
        if len(ids) != len(lists["input_ids"]):
            raise BadRow(f"{name} has {len(ids)} values, input_ids has {len(lists['input_ids'])}.")
    return {n: [i for i, kept in zip(ids, mask, strict=True) if kept] for n, ids in lists.items()}


def _from_preference(row: Row) -> dict[str, Any]:
    """Answers alone, or whole conversations, whose common beginning is then the prompt."""
    prompt = _prompt(row)
    answers = [_turns(row[name], "assistant", name) for name in ("chosen", "rejected")]
    for name, answer in zip(("chosen", "rejected"), answers, strict=True):
        if answer[-1]["role"] != "assistant":
            raise BadRow(f"{name} must end with a message of the assistant.")
    if answers[0] == answers[1]:
        raise BadRow("has the same answer as chosen and as rejected.")
    if any(answer[0]["role"] != "assistant" for answer in answers):
        whole = [a if a[0]["role"] != "assistant" else prompt + a for a in answers]
        prompt, answers = _common(*whole)
    if prompt and prompt[-1]["role"] == answers[0][0]["role"]:
        raise BadRow("has a prompt that ends with a message of the assistant.")
    if not prompt:
        raise BadRow("has no prompt: chosen and rejected do not begin alike with a question.")
    chosen, rejected = answers
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **_tools(row)}


def _prompt(row: Row) -> list[Message]:
    if "conversations" in row:
        prompt = _messages(row["conversations"], "conversations")
    elif "prompt" in row:
        prompt = _turns(row["prompt"], "user", "prompt")
    else:
        prompt = [*_history(row), _asked(row)] if "instruction" in row else []
    return _opening(row, prompt) + prompt


def _common(first: list[Message], second: list[Message]) -> tuple[list[Message], list[Any]]:
    """What two conversations begin with, and how each goes on."""
    pairs = zip(first[:-1], second[:-1], strict=False)
    alike = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)) - 1)
    return first[:alike], [first[alike:], second[alike:]]


SYSTEM: Names = {"system": ("system_prompt",)}
CHAT: Names = {**SYSTEM, "tools": ("functions",)}

SHAPES: Mapping[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(
            "tokens",
            "tokens",
            {"input_ids": ()},
            {"labels": (), "attention_mask": ()},
            _is_ids,
            _from_tokens,
        ),
        Shape(
            "preference",
            "preference",
            {"chosen": ("chosen_messages",), "rejected": ("rejected_messages",)},
            {
                "prompt": ("question",),
                "conversations": ("conversation",),
                "instruction": (),
                "input": (),
                "history": (),
                **CHAT,
            },
            _is_answer,
            _from_preference,
        ),
        Shape("messages", "chat", {"messages": ()}, CHAT, _is_conversation, _from_messages),
        Shape(
            "sharegpt",
            "chat",
            {"conversations": ("conversation",)},
            CHAT,
            _is_conversation,
            _from_sharegpt,
        ),
        Shape(
            "prompt_completion",
            "completion",
            {"prompt": (), "completion": ()},
            CHAT,
            _is_answer,
            _from_completion,
        ),
        Shape(
            "alpaca",
            "chat",
            {"instruction": (), "output": ("response",)},
            {"input": ("context",), "history": (), **SYSTEM},
            _is_text,
            _from_alpaca,
        ),
        Shape(
            "question_answer",
            "chat",
            {"question": ("query", "prompt"), "answer": ("response",)},
            {"context": (), **SYSTEM},
            _is_text,
            _from_question,
        ),
        Shape("text", "text", {"text": ()}, {}, _is_text, _from_text),
    )
}
