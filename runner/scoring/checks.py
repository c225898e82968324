"""What can be known to be wrong with measures before any work."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runner import extras, functions
from runner.errors import StepError
from runner.options import Fault
from runner.scoring import gates, overlap, sources
from runner.scoring.addresses import addresses

GIVES = {"rouge": overlap.ROUGE}
"""The figures of a measure that gives several."""


def faults(options: Any, texts: Sequence[str], roles: Sequence[str]) -> Iterator[Fault]:
    """All that is wrong; `texts` are the steps whose answers are scored, `roles` the models'."""
    yield from _pattern(options)
    yield from _extras(options)
    yield from _judges(options)
    yield from _tasks(options, roles)
    yield from _without_texts(options, texts)
    if not options.tasks:  # what those measure is known once they have run
        yield from gates.faults(options.require, figures(options, texts, roles))


def figures(options: Any, texts: Sequence[str], roles: Sequence[str]) -> list[str]:
    """The addresses, below the step's own, of all that will be measured."""
    of_texts = [each for name in options.metrics for each in GIVES.get(name, (name,))]
    of_texts = [name for name in of_texts if name != "perplexity"]
    of_texts += [judge.name for judge in options.judges]
    facts: dict[str, Any] = {name: dict.fromkeys(texts, 0.0) for name in of_texts}
    if "perplexity" in options.metrics and options.perplexity_rows:
        facts["perplexity"] = dict.fromkeys(roles, 0.0)
    return [name.partition(".")[2] for name in addresses("step", facts)]


def _pattern(options: Any) -> Iterator[Fault]:
    wanted = "regex" in options.metrics
    if wanted and options.pattern is None:
        yield Fault(("metrics",), "regex needs a pattern.", r"Write pattern: '#### (\d+)'")
    if options.pattern is not None and not wanted:
        yield Fault(("pattern",), "pattern means nothing without regex among the metrics.")
    try:
        re.compile(options.pattern or "")
    except re.error as error:
        yield Fault(("pattern",), f'"{options.pattern}" is no regular expression: {error}.')


def _extras(options: Any) -> Iterator[Fault]:
    if {"rouge", "bleu"} & {*options.metrics} and (lacking := extras.missing("scores")):
        yield Fault(("metrics",), lacking)
    if options.tasks and (lacking := extras.missing("lm-eval")):
        yield Fault(("tasks",), lacking)


def _judges(options: Any) -> Iterator[Fault]:
    taken = {each for name in options.metrics for each in GIVES.get(name, (name,))}
    for index, judge in enumerate(options.judges):
        where = ("judges", str(index))
        if judge.source is not None:
            yield Fault((*where, "source"), "source is found, and not given.")
        if found := functions.fault(judge.path):
            yield Fault((*where, "path"), *found)
        if judge.name in taken:
            yield Fault((*where, "path"), f'there is a score "{judge.name}" already.')
        taken.add(judge.name)


def _tasks(options: Any, roles: Sequence[str]) -> Iterator[Fault]:
    if options.tasks and "model" not in roles:
        yield Fault(("tasks",), "tasks need a model, and no earlier step gives one.")
    for index, task in enumerate(options.tasks):
        where = ("tasks", str(index))
        if task.source is not None:
            yield Fault((*where, "source"), "source is found, and not given.")
        try:
            sources.read(Path(task.path))
        except StepError as error:
            yield Fault((*where, "path"), error.fact, error.command)


def _without_texts(options: Any, texts: Sequence[str]) -> Iterator[Fault]:
    """The measures that come by default are for what there is; another was asked for."""
    asked = [name for name in options.metrics if name not in ("exact_match", "perplexity")]
    asked += [judge.name for judge in options.judges]
    if asked and not texts:
        yield Fault((), f"{asked[0]} scores answers, and no earlier step gives any.")
