"""Shards of rows to shards of tokens, side by side, each one once and whole."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from runner import child, files, products
from runner.data.masks.answers import Answered, encode_answers
from runner.data.masks.mask import ROLES, Encoded, Encoder, MaskError, OnLong, TooLong, TrainOn
from runner.data.rows import Example, rows_of
from runner.errors import StepError
from runner.products import COLUMNS, Kind
from runner.stage import Context

BATCH = 512
"""Rows that are tokenized at once."""
WORTH_IT = 20_000
"""Rows from which a second process has earned its start."""
PLACES_SHOWN = 3
Tokens = Encoded | Answered


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What decides the tokens of a row."""

    tokenizer: Path
    template: str | None
    train_on: TrainOn
    max_length: int
    on_long: OnLong
    skips: bool
    kind: Kind = "sft"


@dataclass(frozen=True)
class Job:
    """One shard to encode: the rows without `left_out`, from a file of rows into one of tokens."""

    encoding: Encoding
    source: Path
    target: Path
    left_out: frozenset[int]


def encode(jobs: Sequence[Job], rows: int, workers: int, context: Context) -> list[dict[str, Any]]:
    """Encode what is not encoded yet; gives the figures of every shard, in order."""
    todo = [job for job in jobs if not _figures(job.target).exists()]
    many = workers if rows >= WORTH_IT and len(todo) > 1 else 1
    done = len(jobs) - len(todo)
    for _ in _done(todo, min(many, len(todo))):
        done += 1
        context.progress(round(rows * done / len(jobs)), rows, "rows")
        context.stop_here()
    return [files.read_json(_figures(job.target)) for job in jobs]


def _done(jobs: Sequence[Job], workers: int) -> Iterator[None]:
    """Do every job, in processes of their own where there is more than one worker."""
    if workers <= 1:
        for job in jobs:
            encode_shard(job)
            yield
        return
    spawn = get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=spawn, initializer=child.serve, initargs=(os.getpid(),)
    ) as pool:
        for _ in pool.map(encode_shard, jobs):
            yield


def encode_shard(job: Job) -> None:
    """Write the tokens of a shard, then its figures, which say that it is whole."""
    import pyarrow as pa

    how = job.encoding
    encoder = _encoder(how)
    figures, schema = Figures(), schema_of(how.kind)
    rows = ((i, *row) for i, row in enumerate(rows_of(job.source)) if i not in job.left_out)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(job.target), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while batch := list(islice(rows, BATCH)):
            examples = [example for _, _, example in batch]
            encoded = (
                encoder.encode_many(examples)
                if how.kind == "sft"
                else encode_answers(encoder, examples, how.max_length, how.on_long)
            )
            made = [
                _row(index, example, one)
                for (index, place, example), one in zip(batch, encoded, strict=True)
                if figures.count(place, one, how)
            ]
            writer.write_table(pa.Table.from_pylist(made, schema))
    files.sync(job.target)
    files.write_json(_figures(job.target), figures.plain())


def _encoder(how: Encoding) -> Encoder:
    """A fresh encoder: what it learns from the rows of a shard has no effect on another shard."""
    tokenizer = _tokenizer(how.tokenizer)
    if how.kind != "sft":  # which have a length of their own
        return Encoder(tokenizer, how.template)
    return Encoder(tokenizer, how.template, how.train_on, how.max_length, how.on_long)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Any:
    return products.open_tokenizer(folder)


def schema_of(kind: Kind) -> Any:
    """What a row of tokens is on disk."""
    import pyarrow as pa

    columns = {"index": pa.int64(), "example": pa.string()}
    columns |= dict.fromkeys(COLUMNS[kind], pa.list_(pa.int32()))
    if kind == "sft":
        columns["weights"] = pa.list_(pa.float32())
    if kind == "unpaired":
        columns["label"] = pa.bool_()
    return pa.schema(columns)


class Figures:
    """What an audit wants to know of the rows, added up."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.roles: Counter[int] = Counter()
        self.lengths: Counter[int] = Counter()
        self.places: dict[str, list[str]] = {}

    def count(self, place: str, encoded: Tokens | MaskError, how: Encoding) -> bool:
        """Whether the row stays; StepError where it is at fault and rows are not left out."""
        if isinstance(encoded, MaskError):
            self._refuse(place, encoded, how)
            return False
        self.counts.update(rows=1, tokens=len(encoded.roles), trained=encoded.trained)
        self.roles.update(encoded.roles)
        self.lengths[max(16, 1 << (encoded.size - 1).bit_length())] += 1
        self._note("truncated", place, encoded.truncated)
        self._note("unstopped", place, not encoded.stops and not encoded.truncated)
        return True

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "counts": dict(self.counts),
            "roles": {ROLES[role]: count for role, count in sorted(self.roles.items())},
            "lengths": {str(length): count for length, count in sorted(self.lengths.items())},
            "places": self.places,
        }

    def _refuse(self, place: str, error: MaskError, how: Encoding) -> None:
        too_long = isinstance(error, TooLong)
        if too_long and how.on_long == "error":
            allow = "Allow it, or cut or drop such rows: process.max_length=, process.on_long="
            raise StepError(f"{place}: {error}.", allow)
        if not too_long and not how.skips:
            raise StepError(f"{place}: {error}.", "Leave such rows out: process.on_bad_row=skip")
        self._note("too long" if too_long else "without a mask", place, True)

    def _note(self, name: str, place: str, found: bool) -> None:
        if found:
            self.counts[name] += 1
            self.places.setdefault(name, [])
            self.places[name] = [*self.places[name], place][:PLACES_SHOWN]


def _row(index: int, example: Example, encoded: Tokens | MaskError) -> dict[str, Any]:
    row = {"index": index, "example": json.dumps(example, ensure_ascii=False)}
    if isinstance(encoded, Answered):
        kind: Kind = "unpaired" if "label" in example else "preference"
        ids = dict(zip(COLUMNS[kind], [encoded.prompt_ids, *encoded.answers], strict=False))
        return {**row, **ids, **({"label": example["label"]} if kind == "unpaired" else {})}
    assert isinstance(encoded, Encoded)
    return {
        **row,
        "input_ids": encoded.input_ids,
        "labels": encoded.labels,
        "weights": encoded.weights,
    }


def _figures(target: Path) -> Path:
    return target.with_suffix(".json")
