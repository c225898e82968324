"""The canonical example that each shape makes of its rows."""

from collections.abc import Iterator, Sequence
from typing import Any

from runner.data.reading.lines import BadRow
from runner.data.shapes.conversations import (
    Message,
    is_conversation,
    messages_of,
    spoken,
    tools_of,
    turns,
)
from runner.data.shapes.values import Row, as_label, as_list, as_text, is_ids, kind_of, parsed


def from_messages(row: Row) -> dict[str, Any]:
    """A chat, of a row that has its messages."""
    return _chat(messages_of(row["messages"], "messages"), row)


def from_sharegpt(row: Row) -> dict[str, Any]:
    """A chat, of a row that has its turns as `from` and `value`."""
    return _chat(messages_of(row["conversations"], "conversations"), row)


def from_alpaca(row: Row) -> dict[str, Any]:
    """The input stands below the instruction, as LLaMA-Factory puts it."""
    messages = [*_history(row), _asked(row), spoken("assistant", row["output"], "output")]
    return _chat(messages, row)


def from_question(row: Row) -> dict[str, Any]:
    """What the question is about stands above it."""
    parts = [as_text(row.get(name, ""), name) for name in ("context", "question")]
    question = spoken("user", "\n\n".join(part for part in parts if part))
    return _chat([question, spoken("assistant", row["answer"], "answer")], row)


def from_completion(row: Row) -> dict[str, Any]:
    """Two texts stay two texts; messages become a chat in which the prompt is not trained."""
    prompt, completion = row["prompt"], row["completion"]
    if not (is_conversation(prompt) or is_conversation(completion)):
        return {
            "prompt": as_text(prompt, "prompt"),
            "completion": as_text(completion, "completion"),
        }
    before = [
        {**message, "weight": 0.0} if message["role"] == "assistant" else message
        for message in turns(prompt, "user", "prompt")
    ]
    return _chat(before + turns(completion, "assistant", "completion"), row)


def from_text(row: Row) -> dict[str, Any]:
    """A text as it stands."""
    return {"text": as_text(row["text"], "text")}


def from_tokens(row: Row) -> dict[str, Any]:
    """Token ids and labels, without the padding that an attention mask of 0 marks."""
    lists = {name: as_list(row[name], name) for name in ("input_ids", "labels") if name in row}
    mask = row.get("attention_mask", [1] * len(lists["input_ids"]))
    for name, ids in (*lists.items(), ("attention_mask", mask)):
        if not is_ids(ids):
            raise BadRow(f"{name} must be a list of whole numbers.")
        if len(ids) != len(lists["input_ids"]):
            raise BadRow(f"{name} has {len(ids)} values, input_ids has {len(lists['input_ids'])}.")
    return {n: [i for i, kept in zip(ids, mask, strict=True) if kept] for n, ids in lists.items()}


def from_preference(row: Row) -> dict[str, Any]:
    """Answers alone, or whole conversations, whose common beginning is then the prompt."""
    prompt = _prompt(row)
    answers = [turns(row[name], "assistant", name) for name in ("chosen", "rejected")]
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
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **tools_of(row)}


def from_unpaired(row: Row) -> dict[str, Any]:
    """An answer and whether it is a good one; it may also be the end of a whole conversation."""
    label = as_label(row["label"])
    if label is None:
        raise BadRow(f"label must be true or false, not {kind_of(row['label'])}.")
    said = turns(row["completion"], "assistant", "completion")
    whole = said if said[0]["role"] != "assistant" else _prompt(row) + said
    if whole[-1]["role"] != "assistant":
        raise BadRow("completion must end with a message of the assistant.")
    if len(whole) == 1:
        raise BadRow("has no prompt.")
    start = len(whole) - (1 if whole is said else len(said))
    if start and whole[start - 1]["role"] == "assistant":
        raise BadRow("has a prompt that ends with a message of the assistant.")
    made = {"prompt": whole[:start], "completion": whole[start:], "label": label}
    return {**made, **tools_of(row)}


def _chat(messages: list[Message], row: Row) -> dict[str, Any]:
    """The example of a conversation, with the row's own system text and tools."""
    messages = _opening(row, messages) + messages
    if all(message["role"] != "assistant" for message in messages):
        raise BadRow("has no message of the assistant: there is nothing to learn.")
    if messages[-1]["role"] != "assistant":
        role = messages[-1]["role"]
        raise BadRow(f"ends with a message of the role {role}; the last must be the assistant's.")
    return {"messages": messages, **tools_of(row)}


def _opening(row: Row, messages: Sequence[Message]) -> list[Message]:
    """The message that the column `system` makes, if it says anything new."""
    if not (system := as_text(row.get("system", ""), "system")):
        return []
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"] != system:
            raise BadRow("has a system text in its own column and another in the conversation.")
        return []
    return [spoken("system", system)]


def _asked(row: Row) -> Message:
    parts = [as_text(row.get(name, ""), name) for name in ("instruction", "input")]
    return spoken("user", "\n".join(part for part in parts if part))


def _history(row: Row) -> Iterator[Message]:
    """Earlier pairs of a question and its answer."""
    history = parsed(row.get("history")) or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow("history must be a list of pairs, a question and its answer.")
        yield spoken("user", pair[0], "history")
        yield spoken("assistant", pair[1], "history")


def _prompt(row: Row) -> list[Message]:
    if "conversations" in row:
        prompt = messages_of(row["conversations"], "conversations")
    elif "prompt" in row:
        prompt = turns(row["prompt"], "user", "prompt")
    else:
        prompt = [*_history(row), _asked(row)] if "instruction" in row else []
    return _opening(row, prompt) + prompt


def _common(first: list[Message], second: list[Message]) -> tuple[list[Message], list[Any]]:
    """What two conversations begin with, and how each goes on."""
    pairs = zip(first[:-1], second[:-1], strict=False)
    alike = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)) - 1)
    return first[:alike], [first[alike:], second[alike:]]
