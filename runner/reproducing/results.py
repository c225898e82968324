"""Step by step, what was made again beside what it was: equal, close, or not the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from runner import files
from runner.plan import differences
from runner.report.comparing import Change, compare, said
from runner.report.folder import Run, RunStep
from runner.reproducing import values
from runner.reproducing.original import Original
from runner.saving.formats import MARK
from runner.saving.papers import PAPERS
from runner.stages import known

TOLERANCE = 0.01
NAMED = 3
"""Files that a line names at most."""


class Verdict(StrEnum):
    """How a result is, beside what it was."""

    EQUAL = "equal"
    CLOSE = "close"
    DIFFERS = "differs"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Result:
    """What a step made: the digest of all of it, each file's, and where they lie, if they do."""

    digest: str | None
    files: Mapping[str, Mapping[str, Any]]
    folder: Path | None
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Repeated:
    """One step: how its result is, and in which words."""

    step: str
    verdict: Verdict
    said: str = ""


def repeated(original: Original, run: Run, tolerance: float = TOLERANCE) -> list[Repeated]:
    """Every step of a run that made the original again, in order.

    `tolerance` is what numbers may differ by: those of a tensor of its largest, others of the
    larger one or of 1.
    """
    found = []
    for step in run.steps:
        before = _before(original, step)
        after = _result(run, step)
        if after is None:
            found.append(Repeated(step.name, Verdict.DIFFERS, f"it was not done: {step.said}"))
        elif before is None:
            found.append(Repeated(step.name, Verdict.UNKNOWN, "nothing is recorded of it"))
        else:
            found.append(_beside(step, before, after, tolerance))
    return found


def explained(original: Original, run: Run, found: list[Repeated]) -> Iterator[str]:
    """What the first step that differs says, and the versions and hardware that differ."""
    first = next((each for each in found if each.verdict is Verdict.DIFFERS), None)
    if first is None:
        close = sum(each.verdict is Verdict.CLOSE for each in found)
        yield f"equal but for {close} steps within tolerance" if close else "equal, byte for byte"
        return
    yield f"{first.step} is the first step that differs: {first.said}"
    yield from (f"  {line}" for line in _asked(original, run, first.step))
    compared = compare(original.run, run)
    changes = [each for each in (*compared.versions, *compared.machine) if _is_told(each)]
    yield from (f"  {said(change)}" for change in changes)
    if not changes:
        yield "  versions and machine are the same, as far as they are recorded"


def _is_told(change: Change) -> bool:
    return change.before is not None and change.after is not None


def _asked(original: Original, run: Run, name: str) -> Iterator[str]:
    """How what the step was asked for differs, where that is recorded of both."""
    before, after = (_parts(each, name) for each in (original.run, run))
    if before and after:
        yield from (line for line in differences(before, after) if not _is_own_place(line))


def _is_own_place(line: str) -> bool:
    """Whether a line speaks of the folder that a step writes, which is another one on purpose."""
    return line.startswith("options changed: to ")


def _parts(run: Run, name: str) -> Mapping[str, Any]:
    product = run.product(name)
    record = files.read_json(product.parent / "record.json") if product else None
    return record.get("parts", {}) if isinstance(record, dict) else {}


def _before(original: Original, step: RunStep) -> Result | None:
    if step.name == original.saved:
        return _of_folder(original.place, {})
    there = {each.name: each for each in original.run.steps}
    return _result(original.run, there[step.name]) if step.name in there else None


def _result(run: Run, step: RunStep) -> Result | None:
    """What a run made in a step; None where it was not done."""
    if not step.done:
        return None
    product, stage = run.product(step.name), known().get(step.stage)
    if product is None:
        return Result(str(step.done["digest"]), {}, None, step.facts)
    if stage and stage.GIVES == "files" and not stage.PARTS:
        return _of_folder(stage.restore(product, {}).folder, step.facts)
    record = files.read_json(product.parent / "record.json") or {}
    return Result(str(step.done["digest"]), record.get("files", {}), product, step.facts)


def _of_folder(folder: Path, facts: Mapping[str, Any]) -> Result:
    """A saved model without its papers, which hold times; with the files that it was saved with."""
    listed = (files.read_json(folder / MARK) or {}).get("files", {})
    names = [name for name in listed if name not in PAPERS and (folder / name).is_file()]
    return Result(None, {name: files.file_facts(folder / name) for name in names}, folder, facts)


def _beside(step: RunStep, before: Result, after: Result, tolerance: float) -> Repeated:
    if before.digest is not None and before.digest == after.digest:
        return Repeated(step.name, Verdict.EQUAL)
    if not before.files or before.folder is None:
        return _by_figures(step, before, after, tolerance)
    if {*before.files} != {*after.files}:
        odd = sorted({*before.files} ^ {*after.files})
        return Repeated(step.name, Verdict.DIFFERS, f"not in both: {_few(odd)}")
    other = [name for name in before.files if before.files[name] != after.files[name]]
    if not other:
        return Repeated(step.name, Verdict.EQUAL)
    assert after.folder is not None
    return _by_numbers(step, other, before.folder, after.folder, tolerance)


def _by_numbers(
    step: RunStep, names: list[str], before: Path, after: Path, tolerance: float
) -> Repeated:
    """Files with other bytes, as far as what they hold can be compared."""
    apart = {name: values.of_files(before / name, after / name) for name in names}
    largest = max(apart.values())
    if largest <= tolerance:
        text = f"other bytes in {_few(names)}; numbers differ by {largest:.1g} at most"
        return Repeated(step.name, Verdict.CLOSE, text)
    far = [name for name in names if apart[name] > tolerance]
    text = f"other bytes in {_few(far)}"
    if rows := next((name for name in far if name.endswith(".jsonl")), None):
        count, total = values.rows_apart(before / rows, after / rows, tolerance)
        text = f"{count} of {total} rows are others"
    elif largest < values.OTHER:
        text += f": numbers differ by up to {largest:.1g}, and {tolerance:g} may be"
    return Repeated(step.name, Verdict.DIFFERS, text)


def _by_figures(step: RunStep, before: Result, after: Result, tolerance: float) -> Repeated:
    """A step whose bytes are not here: scores are in its record, of the others only a digest."""
    here = "the original's bytes are not here to be compared"
    if step.gives != "scores":
        return Repeated(step.name, Verdict.DIFFERS, f"another digest; {here}")
    apart = values.of_values(_scores(before.facts), _scores(after.facts))
    if apart <= tolerance:
        return Repeated(step.name, Verdict.CLOSE, f"scores differ by {apart:.1g} at most")
    return Repeated(step.name, Verdict.DIFFERS, "other scores")


def _scores(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name != "samples"}


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
