"""Shards of rows to shards of tokens, side by side, each one once and whole."""

import ctypes
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from runner import files, products
from runner.chat import IGNORED
from runner.data.masks.mask import ROLES, Encoded, Encoder, MaskError, OnLong, TooLong, TrainOn
from runner.data.rows import Example, rows_of
from runner.errors import StepError
from runner.stage import Context

BATCH = 512
"""Rows that are tokenized at once."""
WORTH_IT = 20_000
"""Rows from which a second process has earned its start."""
PLACES_SHOWN = 3
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What decides the tokens of a row."""

    tokenizer: Path
    template: str | None
    train_on: TrainOn
    max_length: int
    on_long: OnLong
    skips: bool


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
        workers, mp_context=spawn, initializer=_serve, initargs=(os.getpid(),)
    ) as pool:
        for _ in pool.map(encode_shard, jobs):
            yield


def _serve(parent: int) -> None:
    """Leave signals to the parent, and end with it, however that ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def encode_shard(job: Job) -> None:
    """Write the tokens of a shard, then its figures, which say that it is whole."""
    import pyarrow as pa

    how = job.encoding
    tokenizer = products.open_tokenizer(how.tokenizer)
    encoder = Encoder(tokenizer, how.template, how.train_on, how.max_length, how.on_long)
    figures = Figures()
    rows = ((i, *row) for i, row in enumerate(rows_of(job.source)) if i not in job.left_out)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(job.target), "wb") as sink, pa.ipc.new_stream(sink, schema()) as writer:
        while batch := list(islice(rows, BATCH)):
            _refuse_pairs(batch)
            made = [
                _row(index, example, encoded)
                for (index, place, example), encoded in zip(
                    batch, encoder.encode_many([row for _, _, row in batch]), strict=True
                )
                if figures.count(place, encoded, how)
            ]
            writer.write_table(pa.Table.from_pylist(made, schema()))
    files.sync(job.target)
    files.write_json(_figures(job.target), figures.plain())


def _refuse_pairs(batch: Sequence[tuple[int, str, Example]]) -> None:
    for _, place, example in batch:
        if "chosen" in example:
            raise StepError(f"{place}: is a preference pair, and no stage learns from pairs yet.")


def schema() -> Any:
    """What a row of tokens is on disk."""
    import pyarrow as pa

    ids = pa.list_(pa.int32())
    columns = {"index": pa.int64(), "example": pa.string(), "input_ids": ids, "labels": ids}
    return pa.schema({**columns, "weights": pa.list_(pa.float32())})


class Figures:
    """What an audit wants to know of the rows, added up."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.roles: Counter[int] = Counter()
        self.lengths: Counter[int] = Counter()
        self.places: dict[str, list[str]] = {}

    def count(self, place: str, encoded: Encoded | MaskError, how: Encoding) -> bool:
        """Whether the row stays; StepError where it is at fault and rows are not left out."""
        if isinstance(encoded, MaskError):
            self._refuse(place, encoded, how)
            return False
        trained = len(encoded.labels) - encoded.labels.count(IGNORED)
        self.counts.update(rows=1, tokens=len(encoded.input_ids), trained=trained)
        self.roles.update(encoded.roles)
        self.lengths[max(16, 1 << (len(encoded.input_ids) - 1).bit_length())] += 1
        self._note("truncated", place, encoded.truncated)
        self._note("untrained", place, not trained)
        self._note(
            "unstopped", place, bool(trained) and not encoded.stops and not encoded.truncated
        )
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


def _row(index: int, example: Example, encoded: Encoded | MaskError) -> dict[str, Any]:
    assert isinstance(encoded, Encoded)
    return {
        "index": index,
        "example": json.dumps(example, ensure_ascii=False),
        "input_ids": encoded.input_ids,
        "labels": encoded.labels,
        "weights": encoded.weights,
    }


def _figures(target: Path) -> Path:
    return target.with_suffix(".json")
