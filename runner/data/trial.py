"""A look at the first rows before any work: whether they can be read, and what a mask trains."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runner.checkpoint import Checkpoints
from runner.errors import Finding, Problem, Severity, StepError
from runner.stage import Context, Looked

if TYPE_CHECKING:
    from runner.data.audit import Encoded

ROWS = 64
"""How many rows are looked at."""

Options = TypeVar("Options")


def few(options: Options) -> Options:
    """The options of process for the first rows alone, none of them held out."""
    first = getattr(options, "first", None) or ROWS
    changes = {"first": min(first, ROWS), "held_out": 0, "workers": 1}
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


def context(scratch: Path) -> Context:
    """What the look works in."""
    return Context(scratch / "work", Checkpoints(scratch / "checkpoints", lambda _: None))


def told(look: Callable[[], Looked]) -> Looked:
    """What a look tells; what a row is refused for is a finding."""
    try:
        return look()
    except StepError as error:
        return Looked([Finding(Severity.ERROR, Problem("", error.fact, command=error.command))])


def unseen(what: str, lacking: str) -> Finding:
    """What was not looked at, and why."""
    fact = f"{what} not looked at: {lacking} would have to be brought or converted first."
    return Finding(Severity.NOTE, Problem("", fact))


def read(about: Mapping[str, Any]) -> Looked:
    """What reading alone has told, where there is no tokenizer yet."""
    fact = f"the first {about['read']} rows can be read."
    said = Finding(Severity.NOTE, Problem("", fact))
    return Looked((said, unseen("template and masks are", "the tokenizer")), {"reading": about})


def judged(encoded: "Encoded", most_truncated: float, *, strict: bool) -> Looked:
    """What an audit of these rows has found, and their figures."""
    severity = Severity.ERROR if strict else Severity.WARNING
    found = [
        Finding(severity, Problem("", fact, command=change))
        for fact, change in encoded.findings(math.inf)
    ]
    counts = encoded.figures["counts"]
    rows, tokens = counts.get("rows", 0), counts.get("tokens", 0)
    if not rows:
        fact = f"none of the first {encoded.about['read']} rows is left to train on."
        found = [Finding(Severity.WARNING, Problem("", fact))]
    elif counts.get("truncated", 0) > most_truncated * rows:
        fact = f"{counts['truncated']} of the first {rows} rows are truncated."
        change = "Allow longer rows (process.max_length), or more such (process.max_truncated)."
        found.append(Finding(Severity.WARNING, Problem("", fact, command=change)))
    else:
        share = counts.get("trained", 0) / tokens
        fact = f"of the first {rows} rows, {share:.0%} of {tokens:,} tokens are trained."
        found.append(Finding(Severity.NOTE, Problem("", fact)))
    return Looked(found, {"reading": encoded.about})


def hints(max_length: int, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Rows that may be longer than what the model was made for."""
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int) and max_length > positions:
        fact = f"rows may have {max_length} tokens, and the model was made for {positions}."
        change = f"Allow fewer: process.max_length={positions}"
        yield Finding(Severity.WARNING, Problem("", fact, command=change))
