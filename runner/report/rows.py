"""Rows of a dataset as a person reads them: what is trained stands out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from runner import products
from runner.products import IGNORED, Dataset, Row

Decode = Callable[[list[int]], str]
Style = tuple[str, str]
"""What stands before and behind a text that stands out."""
COLORED: tuple[Style, Style] = ("\x1b[32m", "\x1b[0m"), ("\x1b[9;31m", "\x1b[0m")
BARE: tuple[Style, Style] = ("[[", "]]"), ("{{", "}}")
"""Trained, and rejected."""


def figures(facts: Mapping[str, Any]) -> Iterator[str]:
    """The audit of a processed dataset, a line each."""
    counts, read = facts["counts"], facts["reading"]
    yield f"rows       {read['read']} read, {read['kept']} kept, {counts.get('rows', 0)} tokenized"
    for name, source in read["sources"].items() if len(read["sources"]) > 1 else ():
        again = f", begun anew {source['rounds']} times" if source["rounds"] else ""
        yield f"source     {name}: {source['read']} read{again}"
    for each in [*read["filters"], *facts["leaks"]]:
        yield f"filter     {each['kind']}: {each['dropped']} dropped, {each['changed']} changed"
    for fact, count in read["bad"].items():
        yield f"left out   {count} times: {fact}"
    for name in ("too long", "without a mask", "truncated", "unstopped"):
        if counts.get(name):
            yield f"{name:<10} {counts[name]} ({', '.join(facts['places'][name])})"
    by_role = ", ".join(f"{role} {count}" for role, count in facts["tokens_by_role"].items())
    yield f"tokens     {counts['tokens']} in all, {counts['trained']} trained; {by_role}"
    lengths = ", ".join(f"{n} up to {at}" for at, n in facts["rows_up_to_tokens"].items())
    yield f"lengths    {lengths}"
    if "pack_efficiency" in facts:
        yield f"packs      {facts['pack_efficiency']:.1%} of their places hold a token"


def rows(dataset: Dataset, decode: Decode, count: int, *, color: bool) -> Iterator[str]:
    """The first rows, decoded.

    Trained text is green, or stands in double brackets; a rejected answer is red and struck out,
    or stands in double braces.
    """
    show = _row if dataset.kind == "sft" else _preference
    for number, row in enumerate(dataset.train.select(range(min(count, len(dataset.train))))):
        head, *texts = show(row, decode, *(COLORED if color else BARE))
        yield f"--- row {number + 1}: {head}"
        yield from texts


def _row(row: Row, decode: Decode, trained: Style, _: Style) -> Iterator[str]:
    """How long a row is, and its text."""
    yield f"{len(row['input_ids'])} tokens"
    yield "".join(
        _marked(text, trained) if learnt else text
        for learnt, text in stretches(row["input_ids"], row["labels"], decode)
    )


def _preference(row: Row, decode: Decode, wanted: Style, unwanted: Style) -> Iterator[str]:
    """How long prompt and answers are; the prompt with the first answer, then the other."""
    good = row.get("label", True)
    names = ["completion"] if "label" in row else ["chosen", "rejected"]
    said = [f"{name} {len(row[f'{name}_ids'])}" for name in names]
    yield ", ".join([f"{len(row['prompt_ids'])} tokens of prompt", *said])
    styles = [wanted, unwanted] if good else [unwanted]
    answers = [
        _marked(decode(row[f"{name}_ids"]), style)
        for name, style in zip(names, styles, strict=False)
    ]
    yield decode(row["prompt_ids"]) + answers[0]
    yield from answers[1:]


def _marked(text: str, style: Style) -> str:
    return f"{style[0]}{text}{style[1]}"


def stretches(
    ids: Sequence[int], labels: Sequence[int], decode: Decode
) -> Iterator[tuple[bool, str]]:
    """The text in stretches that are trained or not."""
    pairs = zip(ids, labels, strict=True)
    for trained, stretch in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        yield trained, decode([token for token, _ in stretch])


def first(product: Path, count: int) -> list[dict[str, Any]]:
    """The first rows to train on of a dataset as the store has it, without the datasets library."""
    import pyarrow as pa

    with pa.memory_map(str(product / "train.arrow")) as source:
        for batch in pa.ipc.open_stream(source):
            return list(batch.slice(0, count).to_pylist())
    return []


def decoder(folder: Path) -> Decode:
    """What makes text of tokens, with all that is special; light where the tokenizer is a file."""
    if not (folder / "tokenizer.json").is_file():
        opened: Decode = products.open_tokenizer(folder).decode
        return opened
    from tokenizers import Tokenizer

    return partial(
        Tokenizer.from_file(str(folder / "tokenizer.json")).decode, skip_special_tokens=False
    )
