"""What rows have become, in figures, and what of it is wrong."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner import files, products
from runner.data.encode import Encoding
from runner.data.leaking import leaked
from runner.data.masks.findings import check_template
from runner.errors import StepError
from runner.stage import Context

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens: how, their figures, what reading told of them, and the tables."""

    encoding: Encoding
    figures: Figures
    about: Mapping[str, Any]
    train: Any
    held_out: Any

    def findings(self, most_truncated: float) -> Iterator[tuple[str, str]]:
        """All that an audit finds."""
        yield from of_template(self.encoding, self.figures)
        yield from findings(self.figures, self.train, self.held_out, most_truncated)


def total(figures: Iterable[Figures]) -> dict[str, Any]:
    """The figures of all shards together."""
    counts: Counter[str] = Counter()
    roles: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    places: dict[str, list[str]] = {}
    for each in figures:
        counts.update(each["counts"])
        roles.update(each["roles"])
        lengths.update({int(length): count for length, count in each["lengths"].items()})
        for name, found in each["places"].items():
            places[name] = [*places.get(name, []), *found][:3]
    return {
        "counts": dict(counts),
        "tokens_by_role": dict(roles),
        "rows_up_to_tokens": {str(length): lengths[length] for length in sorted(lengths)},
        "places": places,
    }


def findings(
    figures: Figures, train: Any, held_out: Any, most_truncated: float
) -> Iterator[tuple[str, str]]:
    """Each thing that would teach something else than what was meant, and what to change."""
    counts: Counter[str] = Counter(figures["counts"])
    places = figures["places"]

    def named(name: str) -> str:
        return f"{counts[name]} of {counts['rows']} rows ({', '.join(places.get(name, ()))})"

    if not len(train):
        yield "no row is left to train on.", "The record of the step says what was dropped."
    if counts["unstopped"]:
        fact = f"{named('unstopped')} never train a stop token, and teach not to stop."
        yield fact, "Look at the chat template, or give another: process.template=FILE"
    if counts["truncated"] > most_truncated * counts["rows"]:
        fact = f"{named('truncated')} are truncated, more than {most_truncated:.0%}."
        yield fact, "Allow longer rows (process.max_length), or more such (process.max_truncated)."
    if known := leaked(train, held_out):
        fact = f"{known} rows stand both among those held out and among those to train on."
        yield fact, "Drop repeated rows by a filter (duplicates), or process.held_out=0."


def of_template(encoding: Encoding, figures: Figures) -> Iterator[tuple[str, str]]:
    """What is wrong with the chat template, where there were conversations."""
    if not figures["tokens_by_role"].get("user"):
        return
    tokenizer = products.open_tokenizer(encoding.tokenizer)
    tokenizer.chat_template = encoding.template or tokenizer.chat_template
    settings = files.read_json(encoding.tokenizer / "generation_config.json") or {}
    for finding in check_template(tokenizer, settings.get("eos_token_id")):
        if finding.wrong:
            yield finding.fact, "Give another template, process.template=FILE, or mend the model."


def judge(found: Iterable[tuple[str, str]], context: Context, *, strict: bool) -> None:
    """Refuse at the first finding, or only say them all."""
    for fact, change in found:
        if strict:
            raise StepError(fact, f"{change} To go on all the same: process.audit=warn")
        context.note(f"{fact} {change}")
