"""Everything that is measured of the answers of one step."""

from collections.abc import Callable, Sequence
from typing import Any

from runner.errors import StepError
from runner.products import Row
from runner.scoring import judging, overlap, texts
from runner.scoring.intervals import Measured

OVERLAP: dict[str, Callable[[Sequence[str], Sequence[str]], list[Measured]]] = {
    "rouge": overlap.rouge,
    "bleu": overlap.bleu,
}


def measure(options: Any, of: str, rows: Sequence[Row]) -> list[Measured]:
    """Each figure of a step's answers; a row that got no answer counts as an empty one.

    StepError where a measure compares with an expected answer and a row has none.
    """
    found = [each for name in options.metrics for each in _measured(name, options, of, rows)]
    return found + [
        Measured.mean_of(judge.name, judging.judged(judge, of, rows)) for judge in options.judges
    ]


def _measured(name: str, options: Any, of: str, rows: Sequence[Row]) -> list[Measured]:
    if name == "perplexity":
        return []
    if not rows:
        raise StepError(f"{of} has no answers to measure.")
    answers = [str(row["answer"] or "") for row in rows]
    if name == "regex":
        compare = texts.regex(options.pattern)
        pairs = zip(answers, (row.get("expected") for row in rows), strict=True)
        return [Measured.mean_of(name, [compare(*pair) for pair in pairs])]
    expected = _expected(name, of, rows)
    if name in OVERLAP:
        return OVERLAP[name](answers, expected)
    one = texts.COMPARISONS[name]
    values = [one(given, wanted) for given, wanted in zip(answers, expected, strict=True)]
    return [Measured.mean_of(name, values)]


def _expected(metric: str, of: str, rows: Sequence[Row]) -> list[str]:
    lacking = [number for number, row in enumerate(rows) if row.get("expected") is None]
    if lacking:
        raise StepError(
            f"{metric} compares answers with expected ones, and {len(lacking)} of {len(rows)} rows"
            f" of {of} have none (the first is row {lacking[0]}).",
            "Leave it out of metrics; regex and judges need no expected answer.",
        )
    return [str(row["expected"]) for row in rows]
