"""What a run shows in a terminal, or as plain lines where there is none."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TextIO

from runner.events import Dropped, Event, Finished, Noted, Outcome, Progressed, Started, Tell
from runner.files import human_bytes
from runner.forecast import Forecast
from runner.plan import Plan, Verdict

LINE_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@contextmanager
def screen(plan: Plan, stream: TextIO, form: str = "") -> Iterator[Tell]:
    """A live table in a terminal, lines elsewhere; made for `stream` before it is redirected.

    The form `json` is a line of JSON for each event, and `quiet` is nothing.
    """
    if form == "quiet":
        yield lambda _: None
    elif form == "json":
        from runner.report.machine import JsonLines

        yield JsonLines(stream).hear
    elif stream.isatty() and plan.work:
        from runner.report.live import live

        with live(plan, stream) as tell:
            yield tell
    else:
        yield Lines(plan, stream).hear


class Lines:
    """One line for each thing that happens, without escape codes."""

    def __init__(self, plan: Plan, stream: TextIO) -> None:
        self.stream = stream
        self.width = max(len(planned.step.name) for planned in plan.steps)
        self.last_line = time.monotonic()

    def hear(self, event: Event) -> None:
        """Print what an event says."""
        match event:
            case Started(planned):
                self._line(planned.step.name, f"{planned.verdict:<7} {planned.reason}")
            case Noted(step, text):
                self._line(step, text)
            case Progressed(step, done, total, unit, figures):
                if time.monotonic() - self.last_line > LINE_EVERY:
                    self._line(step, f"{amount(done, total, unit)} {shown(figures)}".rstrip())
            case Finished(outcome):
                self._line(outcome.planned.step.name, ending(outcome))
            case Dropped(step, size):
                self._line(step, f"{human_bytes(size)} dropped: nothing needs them any more")

    def _line(self, step: str, text: str) -> None:
        self.last_line = time.monotonic()
        print(f"{step:<{self.width}}  {text}" if step else text, file=self.stream, flush=True)


def ending(outcome: Outcome) -> str:
    """How a step came to its result."""
    if outcome.verdict is Verdict.REUSE:
        return f"{outcome.verdict:<7} {outcome.reason}"
    return f"done in {outcome.seconds:.1f} s"


def amount(done: float, total: float, unit: str) -> str:
    """How far a step is: `20/50 steps`, `40.0 MB/98.4 MB`."""
    if unit == "bytes":
        return f"{human_bytes(done)}/{human_bytes(total)}"
    return f"{done:g}/{total:g} {unit}"


def shown(figures: Mapping[str, Any]) -> str:
    """Figures of the moment: `loss 0.12  350 tokens/s`."""
    words = []
    for name, value in figures.items():
        if name.endswith("_per_second"):
            words.append(f"{value} {name.removesuffix('_per_second')}/s")
        else:
            words.append(f"{name} {value}")
    return "  ".join(words)


def plan_table(
    plan: Plan, room: int = 0, expected: Mapping[str, Forecast] = MappingProxyType({})
) -> Iterator[str]:
    """The plan as lines: step, verdict, reason, and what earlier records let expect.

    `room` is the disk that it takes, in bytes.
    """
    width = max(len(planned.step.name) for planned in plan.steps)
    for planned in plan.steps:
        told = _expected(expected.get(planned.step.name))
        yield f"{planned.step.name:<{width}}  {planned.verdict:<7} {planned.reason}{told}"
    yield from plan.notes
    work = len(plan.work)
    disk = f", with at least {human_bytes(room)} of disk" if room else ""
    done = f"{work} of {len(plan.steps)} steps to run{disk}{_in_all(work, expected)}"
    yield done if work else "nothing to do"


def _expected(forecast: Forecast | None) -> str:
    """What a step took before."""
    if forecast is None:
        return ""
    peak = f", {human_bytes(forecast.memory)} of memory" if forecast.memory else ""
    return f" (about {duration(forecast.seconds)}{peak})"


def _in_all(work: int, expected: Mapping[str, Forecast]) -> str:
    """What the steps to run took before, and how many of them are known to."""
    if not expected:
        return ""
    whose = "" if len(expected) == work else f" for {len(expected)} of them"
    return f", about {duration(sum(each.seconds for each in expected.values()))}{whose}"


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.4 s`, `12 s`, `3.5 min`, `2.1 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def summary(outcomes: Sequence[Outcome], seconds: float, peak: int = 0) -> Iterator[str]:
    """What came out: scores, samples, sizes, where it is and how to use it."""
    facts = {o.planned.step.stage_name: o.entry.record["facts"] for o in outcomes}
    worked = [o for o in outcomes if o.verdict is not Verdict.REUSE]
    done = f"{len(worked)} steps run, {len(outcomes) - len(worked)} reused, {seconds:.1f} s"
    done += f", peak memory {human_bytes(peak)}" if worked and peak else ""
    yield f"\n{outcomes[0].entry.record['recipe']}: {done}"
    yield from _rows(figures(facts))
    for sample in facts.get("evaluate", {}).get("samples", []):
        yield f"\n  {sample['prompt']}"
        yield from _rows(
            (f"  {_before_and_after(sample['answers'])[name]}", " ".join(answer.split())[:100])
            for name, answer in sample["answers"].items()
        )
    if saved := facts.get("save"):
        prompt = next(iter(facts.get("evaluate", {}).get("samples", [])), {"prompt": "Hello"})
        yield from _use(saved, str(prompt["prompt"]))


def _use(saved: Mapping[str, Any], prompt: str) -> Iterator[str]:
    """Where the result is, and how to use it."""
    place = saved["to"] or (saved.get("pushed") or {}).get("repo")
    if place is None:
        return
    if saved.get("library") == "peft":
        yield f"\nThe result is in {place}, an adapter. How to use it: {place}/README.md"
        return
    yield f"\nThe result is in {place}. To use it:"
    yield "  from transformers import pipeline"
    message = {"role": "user", "content": prompt}
    yield f'  print(pipeline("text-generation", "{place}")([{message}]))'


def figures(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Scores and sizes in words, from the records of a run by stage."""
    scores = facts.get("evaluate", {})
    for metric, of in scores.items():
        if isinstance(of, Mapping) and of and metric not in ("perplexity", "intervals"):
            names = _before_and_after(of)
            shares = (f"{names[name]} {value:.2f}" for name, value in of.items())
            yield metric.replace("_", " "), ", ".join(shares)
    squeezed = facts.get("quantize", {})
    if perplexity := scores.get("perplexity"):
        names = {"reference": "before quantizing", "model": "after" if squeezed else "model"}
        yield (
            "perplexity",
            ", ".join(f"{names[name]} {value:.3f}" for name, value in perplexity.items()),
        )
    if squeezed:
        before, after = squeezed["bytes_before"], squeezed["bytes_after"]
        sizes = f"{human_bytes(before)} before, {human_bytes(after)} in {squeezed['method']}"
        yield "size on disk", sizes


def _before_and_after(texts: Mapping[str, Any]) -> Mapping[str, str]:
    """What the steps that gave texts are called: two are before and after, more have names."""
    shown_as = ("before", "after") if len(texts) == 2 else tuple(texts)
    return dict(zip(texts, shown_as, strict=True))


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, text in listed:
        yield f"  {name:<{width}}  {text}"


@contextmanager
def own_stdout() -> Iterator[TextIO]:
    """A handle on the screen that stays when libraries' output is sent to the log."""
    sys.stdout.flush()
    handle = _redirected(sys.stdout)
    if handle is None:
        yield sys.stdout
        return
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as stream:
        yield stream


def _redirected(stream: TextIO) -> int | None:
    """Another handle on the file of a stream; None where the stream is what must be written to.

    A notebook's stream has a file, which is the terminal of the notebook's server.
    """
    if stream is not sys.__stdout__:
        return None
    try:
        return os.dup(stream.fileno())
    except (OSError, ValueError):
        return None
