"""What is known of a sweep, written by hand, with whatever texts a test wants in every place."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

from runner.launch import Failure
from runner.store import Entry
from runner.sweep import results
from runner.sweep.manifest import Job, Manifest, Row
from runner.sweep.pruned import Pruned
from runner.sweep.settings import Sweep
from runner.sweep.standing import Standing

STAGES = {"learn": SimpleNamespace(GIVES="model"), "score": SimpleNamespace(GIVES="scores")}
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
RANKS = (4, 8, 16)
METHODS = ("nf4", "int8")


def make_standing(folder: Path, word: str = "plain", *, looks: int = 20, **settings) -> Standing:
    """Thirty jobs of three options; of the dearest, one was given up, one failed, one waits."""
    rows, jobs, entries = [], [], {}
    values = [(rate, rank, method) for rate in RATES for rank in RANKS for method in METHODS]
    for number, (rate, rank, method) in enumerate(values):
        texts = {"learn.rate": f"{rate}", "learn.rank": f"{rank}", "learn.note": f"{method}-{word}"}
        learn = Row("learn", "learn", {}, {}, f"{number:031d}a")
        score = Row("score", "score", {}, {}, f"{number:031d}b")
        overrides = tuple(f"{name}={value}" for name, value in texts.items())
        jobs.append(Job(f"{number:016x}", overrides, (len(rows), len(rows) + 1)))
        rows += [learn, score]
        if number < len(values) - 3:
            entries |= _done(folder, learn, score, rate, rank, method, looks)
    settings = {"objective": "score.match", **settings}
    manifest = Manifest(
        f"pages {word}",
        Path("pages.yaml"),
        (f"learn.note={word}",),
        Sweep(**settings),
        ("learn.rate", "learn.rank", "learn.note"),
        None,
        "note",
        tuple(rows),
        tuple(jobs),
    )
    gone, failed = jobs[-3], rows[jobs[-2].rows[0]]
    fact = f"CUDA out of memory {word}"
    failure = Failure(failed.key, "learn", "out of memory", fact, (f"a line {word}", word), 2)
    reported = {step: 2.5 - 0.01 * step for step in range(1, 8)}
    given_up = {gone.id: Pruned(gone.id, "learn.held_out_loss", reported)}
    return Standing(manifest, entries, frozenset(), {failed.key: failure}, given_up)


def _done(
    folder: Path, learn: Row, score: Row, rate: float, rank: int, method: str, looks: int
) -> dict[str, Entry]:
    far = abs(math.log10(rate) + 4) / 2
    rows = [
        {"step": step * 10, "held_out_loss": 1 + far + 2 / step + 0.3 / rank, "loss": 1.2 + far}
        for step in range(1, looks + 1)
    ]
    place = folder / "entries" / learn.key
    place.mkdir(parents=True, exist_ok=True)
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = rank * 1_000_000 * (1 if method == "nf4" else 2)
    match = max(0.0, 0.9 - far - 0.5 / rank - (0.03 if method == "nf4" else 0))
    facts = {learn.key: {"bytes_after": size}, score.key: {"match": match}}
    record = {"seconds": 60 + 5.0 * rank, "peak_memory": 2_000_000_000 + 10 * size}
    return {
        row.key: Entry(row.key, folder / "entries" / row.key, {**record, "facts": facts[row.key]})
        for row in (learn, score)
    }


def table(now: Standing) -> results.Table:
    """The rows of its jobs."""
    return results.table(now, STAGES)
