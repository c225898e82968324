"""What became of the data, for the report: figures, and rows with what is trained."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runner.report import rows
from runner.report.folder import Run, RunStep, presentable

ROWS, TOKENS = 4, 1200
"""The most rows that are shown, and tokens of each."""


@dataclass(frozen=True)
class Bar:
    """A count, and how much it is of the largest (0 to 100)."""

    name: str
    count: int
    percent: float


@dataclass(frozen=True)
class ShownRow:
    """A row as text, in stretches, and the tokens that are left out.

    A stretch is "trained", "rejected" (the worse answer of a pair, or a bad one) or "" (neither).
    """

    tokens: int
    left_out: int
    stretches: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Audit:
    """What became of the data in one step."""

    step: str
    flow: Sequence[tuple[str, str, str]]
    """What, how many, and a remark."""
    roles: Sequence[Bar]
    lengths: Sequence[Bar]
    shown: Sequence[ShownRow]
    trained_share: float | None


def audits(run: Run) -> Iterator[Audit]:
    """One for each step that gave a dataset with figures."""
    for step in run.steps:
        facts = step.facts
        if step.gives == "dataset" and {"counts", "reading"} <= {*facts}:
            counts = facts["counts"]
            share = counts.get("trained", 0) / counts["tokens"] if counts.get("tokens") else None
            lengths = facts.get("rows_up_to_tokens", {})
            yield Audit(
                step=step.name,
                flow=list(_flow(facts)),
                roles=_bars(facts.get("tokens_by_role", {})),
                lengths=_bars({f"up to {length}": n for length, n in lengths.items()}),
                shown=_shown(run, step),
                trained_share=share,
            )


def _flow(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """From the rows that were read to those that are left, and what each filter did."""
    counts, read = facts["counts"], facts["reading"]
    yield "rows read", f"{read['read']:,}", ""
    for each in [*read["filters"], *facts.get("leaks", [])]:
        yield f"filter {each['kind']}", f"-{each['dropped']:,}", f"{each['changed']:,} changed"
    for fact, count in read["bad"].items():
        yield "left out", f"-{count:,}", str(fact)
    yield "rows kept", f"{read['kept']:,}", ""
    places = facts.get("places", {})
    for name in ("too long", "without a mask", "truncated", "unstopped"):
        if counts.get(name):
            yield name, f"{counts[name]:,}", ", ".join(places.get(name, ()))
    yield "rows tokenized", f"{counts.get('rows', 0):,}", ""
    yield "tokens", f"{counts.get('tokens', 0):,}", ""
    yield "of these trained", f"{counts.get('trained', 0):,}", ""
    if "pack_efficiency" in facts:
        yield "places of packs that hold a token", f"{facts['pack_efficiency']:.1%}", ""


def _bars(counts: Mapping[str, int]) -> list[Bar]:
    most = max(counts.values(), default=0) or 1
    return [Bar(name, count, round(100 * count / most, 1)) for name, count in counts.items()]


def _shown(run: Run, step: RunStep) -> list[ShownRow]:
    """The first rows; none where the store no longer has them or their tokenizer."""
    product, decode = run.product(step.name), _decoder(run, step)
    if product is None or decode is None or not (product / "train.arrow").is_file():
        return []
    found = rows.first(product, ROWS)
    return [_shown_row(row, decode) for row in found if {"input_ids", "prompt_ids"} & {*row}]


def _shown_row(row: Mapping[str, Any], decode: rows.Decode) -> ShownRow:
    if "prompt_ids" in row:
        return _shown_preference(row, decode)
    ids, labels = row["input_ids"], row["labels"]
    stretches = rows.stretches(ids[:TOKENS], labels[:TOKENS], decode)
    shown = [("trained" if trained else "", presentable(text)) for trained, text in stretches]
    return ShownRow(len(ids), max(0, len(ids) - TOKENS), shown)


def _shown_preference(row: Mapping[str, Any], decode: rows.Decode) -> ShownRow:
    """The prompt and its answers, the better one before the worse."""
    if "label" in row:
        answers = [("trained" if row["label"] else "rejected", row["completion_ids"])]
    else:
        answers = [("trained", row["chosen_ids"]), ("rejected", row["rejected_ids"])]
    parts = [("", row["prompt_ids"]), *answers]
    shown = [(kind, presentable(decode(ids[:TOKENS]))) for kind, ids in parts]
    left_out = sum(max(0, len(ids) - TOKENS) for _, ids in parts)
    return ShownRow(sum(len(ids) for _, ids in parts), left_out, shown)


def _decoder(run: Run, step: RunStep) -> rows.Decode | None:
    """The tokenizer that the step was given."""
    from runner.stages import known

    names = {each.name: each for each in run.steps}
    for name in step.inputs.get("tokenizer", ()):
        folder, stage = run.product(name), known().get(names[name].stage)
        if folder and stage:
            with suppress(OSError):
                return rows.decoder(stage.restore(folder, {}).folder)
    return None
