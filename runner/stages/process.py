"""Turn rows of any common shape into tokens, with a mask that trains exactly what was meant."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner import files, hardware, products
from runner.errors import StepError
from runner.options import Fault, option, plain
from runner.products import Dataset
from runner.recipe import Step
from runner.stage import (
    Context,
    Facts,
    Looked,
    Need,
    Products,
    Room,
    never_stale,
    pins_nothing,
)

if TYPE_CHECKING:
    from runner.data.audit import Encoded
    from runner.data.cleaning.filters import Filter
    from runner.data.encode import Encoding, Job

NEEDS: Mapping[str, Need] = {
    "data": Need(kind="files", part="data", many=True),
    "tokenizer": Need(kind="files", part="model"),
}
GIVES = "dataset"
VERSION = 3
PARTS = False
HOLDS = False

Shape = Literal[
    "auto",
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "question_answer",
    "text",
    "tokens",
    "preference",
    "unpaired",
]
Strategy = Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]
READING = (
    "weights",
    "stopping_strategy",
    "shape",
    "columns",
    "split",
    "first",
    "on_bad_row",
    "rules",
    "seed",
)
"""The options that decide the rows; the others only decide their tokens."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which rows there are, and how they become tokens."""

    weights: dict[str, float] = option(
        {},
        "Draws rows at random from several sources, before filters, `fetch.chats: 2`: two for every"
        " one of weight 1. Without, one source follows the other",
    )
    stopping_strategy: Strategy = option(
        "first_exhausted",
        "Of a draw by weights, as datasets.interleave_datasets: ends when the first source has no"
        " more rows; or when all have none, the others beginning anew, or without that",
    )
    shape: Shape = option("auto", "What the columns mean; auto tells by them, and says it")
    columns: dict[str, str] = option({}, "The shape's columns by yours, `question: frage`")
    split: str | None = option(None, "The split; train where left out, or the only one")
    first: int | None = option(None, "Only the first rows", at_least=1)
    on_bad_row: Literal["error", "skip"] = option(
        "error", "A row that cannot be read or trained: refused, or left out and counted"
    )
    filters: tuple[dict[str, Any], ...] = option(
        (), "What rows must be like, and how they are cleaned, in order", keyed=False, beside="path"
    )
    rules: tuple[dict[str, Any], ...] | None = option(
        None, "The filters with the digests of your own functions, found where left out"
    )
    template: Path | None = option(
        None, "A chat template to use and save instead of the tokenizer's", keyed=False
    )
    template_digest: str | None = option(None, "blake3 of that file, found where left out")
    train_on: Literal["assistant", "last", "completion", "all"] = option(
        "assistant", "All answers, the last one (completion is the same), or every token"
    )
    held_out: int = option(64, "Rows kept from training, to score with", at_least=0)
    max_length: int = option(1024, "The most tokens of a row, or of a pack", at_least=1)
    on_long: Literal["error", "truncate", "drop"] = option("error", "What to do with longer rows")
    pack: bool = option(False, "Several rows in one sequence; none sees another")
    audit: Literal["error", "warn"] = option("error", "What to do where the audit finds a fault")
    max_truncated: float = option(0.2, "The share of rows that may be truncated", at_least=0)
    seed: int = option(0, "Decides which rows are held out", at_least=0)
    workers: int | None = option(
        None, "Processes that tokenize; the cores where left out", keyed=False, at_least=1
    )


pins = pins_nothing
stale = never_stale
save = products.save_dataset
restore = products.restore_dataset


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """The filters must be ones that there are; what is found from them cannot be given."""
    from runner.data import checks

    filters = _filters(options)[1] if options.filters else []
    sources = [step.name for step in inputs.get("data", ())]
    return [*filters, *checks.faults(options, sources)]


def resolve(options: Options, locked: Facts) -> Options:
    """Find what the template and the user's functions say now."""
    digest = files.digest(options.template) if options.template else None
    rules = _rules(options) if options.filters else ()
    return dataclasses.replace(options, template_digest=digest, rules=rules)


def _rules(options: Options) -> tuple[dict[str, Any], ...]:
    from runner.data.cleaning.filters import keyed_filters

    return tuple(keyed_filters(_filters(options)[0]))


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """At least the text itself."""
    from runner.data import trial

    most = {"max_length": options.max_length}
    kept = inputs["data"].get("bytes", 0) if options.first is None else 0
    return Room(
        gives=most,
        kept=kept,
        hints=[*trial.hints(options.max_length, inputs["tokenizer"].get("config", {}))],
        look=partial(_look, options),
    )


def _look(options: Options, products: Products, scratch: Path) -> Looked:
    """Make tokens of the first rows; only read them where there is no tokenizer yet."""
    from runner.data import trial

    if "data" not in products:
        return Looked([trial.unseen("rows are", "the data")])
    look = _look_at_tokens if "tokenizer" in products else _look_at_rows
    return trial.told(lambda: look(options, products, trial.context(scratch)))


def _look_at_tokens(options: Options, products: Products, context: Context) -> Looked:
    from runner.data import trial

    tokenizer = next(iter(products["tokenizer"].values()))
    inputs = {"data": products["data"], "tokenizer": tokenizer}
    encoded = _encoded(trial.few(options), inputs, context)
    return trial.judged(encoded, options.max_truncated, strict=options.audit == "error")


def _look_at_rows(options: Options, products: Products, context: Context) -> Looked:
    from runner.data import rows, trial

    roots = {name: source.folder for name, source in products["data"].items()}
    folder = _rows(trial.few(options), _filters(options)[0], roots, context)
    return trial.read(files.read_json(folder / rows.ABOUT))


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Dataset:
    """Read and clean the rows (a part of its own), split them, make tokens, audit, pack."""
    from runner.data import audit, tables

    encoded = _encoded(options, inputs, context)
    audit.judge(encoded.findings(options.max_truncated), context, strict=options.audit == "error")
    train = encoded.train
    if options.pack:
        packs = context.draft / "packs.arrow"
        train, context.facts["pack_efficiency"] = tables.pack(train, options.max_length, packs)
    return Dataset(train, encoded.held_out, encoded.encoding.template)


def _encoded(options: Options, inputs: Mapping[str, Any], context: Context) -> "Encoded":
    """The rows as tokens, with what an audit wants to know of them."""
    from runner.data import audit, encode, rows, tables

    filters = _filters(options)[0]
    roots = {name: source.folder for name, source in inputs["data"].items()}
    folder = _rows(options, filters, roots, context)
    about = files.read_json(folder / rows.ABOUT)
    _check_kind(options, about["kind"])
    held_out = _held_out(about["kept"], options)
    leaking, leaks = _leaking(folder, held_out, filters, options)
    encoding = _encoding(options, inputs["tokenizer"].folder, about["kind"])
    jobs = _jobs(folder, encoding, context.draft / "tokens", leaking)
    workers = options.workers or hardware.cores()
    figures = audit.total(encode.encode(jobs, about["kept"], workers, context))
    context.facts |= {**figures, "reading": about, "leaks": leaks}
    train, kept = tables.split([job.target for job in jobs], rows.SHARD, held_out, encoding.kind)
    return audit.Encoded(encoding, figures, about, train, kept)


def _filters(options: Options) -> "tuple[tuple[Filter, ...], list[Fault]]":
    """The filters, and what is wrong with them; their functions' paths are whole by now."""
    from runner.data.cleaning.filters import build_filters

    return build_filters(options.filters, Path())


def _rows(
    options: Options, filters: "Sequence[Filter]", roots: Mapping[str, Path], context: Context
) -> Path:
    """The folder with the rows: a part that is made anew only where what decides it changed."""
    from runner.data import rows
    from runner.data.cleaning.filters import Leak

    reading = rows.Reading(
        roots=roots,
        weights=options.weights,
        strategy=options.stopping_strategy,
        split=options.split,
        shape=options.shape,
        columns=options.columns,
        first=options.first,
        skips=options.on_bad_row == "skip",
        filters=[one for one in filters if not isinstance(one, Leak)],
        seed=options.seed,
    )
    made_of = {name: plain(getattr(options, name)) for name in READING}
    return context.part("rows", made_of, ["data"], partial(rows.write, reading, context=context))


def _check_kind(options: Options, kind: products.Kind) -> None:
    """Preferences are learnt by their answers alone, one row at a time."""
    if kind == "sft":
        return
    if options.pack:
        raise StepError("preferences cannot be packed.", "Leave them apart: process.pack=false")
    if options.train_on == "all":
        fact = "of preferences only the answers are learnt, and train_on says all."
        raise StepError(fact, "Say so: process.train_on=assistant")


def _held_out(count: int, options: Options) -> list[int]:
    """The numbers of the rows held out, by the seed."""
    import random
    from array import array

    if options.held_out >= count:
        held = f"{options.held_out} rows are to be held out, and there are only {count}."
        raise StepError(held if count else "the data has no rows.")
    order = array("q", range(count))
    random.Random(options.seed).shuffle(order)  # noqa: S311  a split that can be repeated
    return sorted(order[: options.held_out])


def _leaking(
    folder: Path, held_out: Sequence[int], filters: "Sequence[Filter]", options: Options
) -> tuple[set[int], list[dict[str, Any]]]:
    """The numbers of the rows that say what rows held out say, where a filter looks for them."""
    from runner.data.cleaning.clean import Filters
    from runner.data.cleaning.filters import Leak

    leaks = [one for one in filters if isinstance(one, Leak)]
    if not leaks:
        return set(), []
    hidden = set(held_out)
    told = Filters(leaks, options.seed, [row for n, row in _numbered(folder) if n in hidden])
    there = ((n, row) for n, row in _numbered(folder) if n not in hidden)
    leaking = {n for n, row in there if not any(told.apply([(n, row)]))}
    return leaking, told.counts


def _numbered(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from runner.data import rows

    for shard, path in enumerate(rows.shards(folder)):
        for index, (_, example) in enumerate(rows.rows_of(path)):
            yield shard * rows.SHARD + index, example


def _encoding(options: Options, tokenizer: Path, kind: products.Kind) -> "Encoding":
    from runner.data.encode import Encoding

    template = options.template
    if template and files.digest(template) != options.template_digest:
        raise StepError(f"{template} changed while it was read; run again.")
    return Encoding(
        tokenizer=tokenizer,
        template=template.read_text(encoding="utf-8") if template else None,
        train_on=options.train_on,
        max_length=options.max_length,
        on_long=options.on_long,
        skips=options.on_bad_row == "skip",
        kind=kind,
    )


def _jobs(folder: Path, encoding: "Encoding", target: Path, left_out: set[int]) -> "list[Job]":
    """One for each shard of rows."""
    from runner.data import rows
    from runner.data.encode import Job

    return [
        Job(
            encoding,
            path,
            target / f"{path.stem}.arrow",
            frozenset(n % rows.SHARD for n in left_out if n // rows.SHARD == number),
        )
        for number, path in enumerate(rows.shards(folder))
    ]
