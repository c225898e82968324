"""Rows of a dataset as a person reads them: what is trained stands out."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from runner.products import IGNORED, Dataset, Row

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


def rows(dataset: Dataset, tokenizer: Any, count: int, *, color: bool) -> Iterator[str]:
    """The first rows, decoded.

    Trained text is green, or stands in double brackets; a rejected answer is red and struck out,
    or stands in double braces.
    """
    show = _row if dataset.kind == "sft" else _preference
    for number, row in enumerate(dataset.train.select(range(min(count, len(dataset.train))))):
        head, *texts = show(row, tokenizer, *(COLORED if color else BARE))
        yield f"--- row {number + 1}: {head}"
        yield from texts


def _row(row: Row, tokenizer: Any, trained: Style, _: Style) -> Iterator[str]:
    """How long a row is, and its text."""
    yield f"{len(row['input_ids'])} tokens"
    yield "".join(
        _marked(text, trained) if learnt else text
        for learnt, text in _stretches(row["input_ids"], row["labels"], tokenizer)
    )


def _preference(row: Row, tokenizer: Any, wanted: Style, unwanted: Style) -> Iterator[str]:
    """How long prompt and answers are; the prompt with the first answer, then the other."""
    good = row.get("label", True)
    names = ["completion"] if "label" in row else ["chosen", "rejected"]
    said = [f"{name} {len(row[f'{name}_ids'])}" for name in names]
    yield ", ".join([f"{len(row['prompt_ids'])} tokens of prompt", *said])
    styles = [wanted, unwanted] if good else [unwanted]
    answers = [
        _marked(tokenizer.decode(row[f"{name}_ids"]), style)
        for name, style in zip(names, styles, strict=False)
    ]
    yield tokenizer.decode(row["prompt_ids"]) + answers[0]
    yield from answers[1:]


def _marked(text: str, style: Style) -> str:
    return f"{style[0]}{text}{style[1]}"


def _stretches(
    ids: Sequence[int], labels: Sequence[int], tokenizer: Any
) -> Iterator[tuple[bool, str]]:
    """The text in stretches that are trained or not."""
    pairs = zip(ids, labels, strict=True)
    for trained, stretch in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        yield trained, tokenizer.decode([token for token, _ in stretch])
