"""Turn rows of conversations into tokens, with a mask that trains what the assistant says."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import chat, products
from runner.errors import StepError, did_you_mean, listing
from runner.options import option
from runner.products import Dataset, Files, Row
from runner.stage import (
    Context,
    Facts,
    Need,
    Room,
    checks_nothing,
    never_stale,
    pins_nothing,
    resolves_nothing,
)

NEEDS: Mapping[str, Need] = {
    "data": Need(kind="files", part="data"),
    "tokenizer": Need(kind="files", part="model"),
}
GIVES = "dataset"
VERSION = 1
PARTS = False
HOLDS = False

ROLES = ("system", "user", "assistant", "tool")
REPORT_EVERY = 200


@dataclass(frozen=True, kw_only=True)
class Options:
    """How rows become tokens."""

    messages: str = option("messages", "The column with the conversation: role and content")
    held_out: int = option(64, "Rows kept from training, to score with", at_least=0)
    max_length: int = option(1024, "Rows with more tokens than this are refused", at_least=1)
    seed: int = option(0, "Decides which rows are held out", at_least=0)


resolve = resolves_nothing
pins = pins_nothing
check = checks_nothing
stale = never_stale
save = products.save_dataset
restore = products.restore_dataset


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """At least the text itself."""
    return Room(kept=inputs["data"].get("bytes", 0))


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Dataset:
    """Read, check, split and tokenize the rows."""
    import datasets

    source: Files = inputs["data"]
    rows = [row for path in source.find("*.json*") for row in _read(path, options.messages)]
    if not rows:
        raise StepError("the data has no rows: there is no .jsonl or .json file with any.")
    train, held_out = _split(rows, options)
    tokenizer = products.open_tokenizer(inputs["tokenizer"].folder)
    encoded, done = [], 0
    for part in (train, held_out):
        kept = []
        for row in part:
            kept.append(_encoded(tokenizer, row, options))
            done += 1
            if done % REPORT_EVERY == 0 or done == len(rows):
                context.progress(done, len(rows), "rows")
        encoded.append(kept)
        context.stop_here()
    _audit(encoded[0], tokenizer, context)
    columns = ("messages", "input_ids", "labels")
    return Dataset(
        *(
            datasets.Dataset.from_dict({name: [row[name] for row in part] for name in columns})
            for part in encoded
        )
    )


def _read(path: Path, column: str) -> Iterator[Row]:
    """The rows of a JSON or JSON-lines file, each checked where it stands."""
    text = path.read_text(encoding="utf-8")
    lines: Sequence[tuple[int, Any]]
    if path.suffix == ".json":
        lines = list(enumerate(_parsed(text, path.name), start=1))
    else:
        lines = [
            (number, _parsed(line, f"{path.name}:{number}"))
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    for number, row in lines:
        yield {"messages": _messages(row, column, f"{path.name}:{number}")}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise StepError(f"{where}: is not valid JSON ({error}).") from None


def _messages(row: Any, column: str, where: str) -> list[dict[str, str]]:
    if not isinstance(row, Mapping) or column not in row:
        names = list(row) if isinstance(row, Mapping) else []
        guess = did_you_mean(column, names) or f"It has: {listing(names)}."
        raise StepError(f'{where}: has no column "{column}". {guess}')
    messages = row[column]
    if not isinstance(messages, list) or not messages:
        raise StepError(f"{where}: {column} must be a list of messages.")
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
            raise StepError(f"{where}: a message needs a role and a text as its content.")
        if message.get("role") not in ROLES:
            role = message.get("role")
            raise StepError(f'{where}: "{role}" is no role; the roles are {listing(ROLES)}.')
    if messages[-1]["role"] != "assistant":
        raise StepError(f"{where}: the last message must be the assistant's: it is what is taught.")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _split(rows: list[Row], options: Options) -> tuple[list[Row], list[Row]]:
    """Shuffle by the seed and hold rows out; their questions then stand nowhere else."""
    import random

    if options.held_out >= len(rows):
        raise StepError(
            f"{options.held_out} rows are to be held out, and there are only {len(rows)}."
        )
    order = list(range(len(rows)))
    random.Random(options.seed).shuffle(order)  # noqa: S311  a split that can be repeated
    held_out = [rows[index] for index in sorted(order[: options.held_out])]
    train = [rows[index] for index in sorted(order[options.held_out :])]
    asked = {_question(row) for row in held_out}
    if leaked := sum(_question(row) in asked for row in train):
        raise StepError(
            f"{leaked} questions stand both among the rows held out and among those to train on.",
            "Remove the repeated rows, or hold none out: process.held_out=0",
        )
    return train, held_out


def _question(row: Row) -> str:
    return json.dumps(row["messages"][:-1], sort_keys=True)


def _encoded(tokenizer: Any, row: Row, options: Options) -> Row:
    ids, labels = chat.encode(tokenizer, row["messages"])
    if len(ids) > options.max_length:
        raise StepError(
            f"a row has {len(ids)} tokens: {row['messages'][0]['content'][:60]!r}...",
            f"Allow it: process.max_length={len(ids)}",
        )
    return {**row, "input_ids": ids, "labels": labels}


def _audit(rows: Sequence[Row], tokenizer: Any, context: Context) -> None:
    """Refuse a mask that would teach nothing, or never to stop."""
    trained = [sum(label != chat.IGNORED for label in row["labels"]) for row in rows]
    stops = sum(tokenizer.eos_token_id in row["labels"] for row in rows)
    if not all(trained):
        raise StepError(f"{trained.count(0)} rows train no token: the chat template hides them.")
    if stops < len(rows):
        raise StepError(
            f"in {len(rows) - stops} rows the stop token {tokenizer.eos_token} is not trained: "
            "the model would never learn to stop."
        )
    context.facts |= {
        "rows": len(rows),
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "trained_tokens": sum(trained),
    }
