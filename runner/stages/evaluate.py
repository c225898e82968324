"""Score answers and models: what was expected, your own judges, perplexity, lm-eval's tasks."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from runner import products
from runner.errors import StepError
from runner.options import Fault, option
from runner.products import Model, Row
from runner.recipe import Step
from runner.resources import Resources
from runner.scoring import checks, sources
from runner.scoring.judging import Judge
from runner.scoring.sources import Task
from runner.stage import (
    Context,
    Facts,
    Need,
    never_stale,
    pins_nothing,
    takes_little_room,
    writes_text,
)

if TYPE_CHECKING:
    from runner.scoring.intervals import Measured

NEEDS: Mapping[str, Need] = {
    "texts": Need(kind="text", many=True, optional=True),
    "dataset": Need(kind="dataset", optional=True),
    "reference": Need(kind="model", named=True),
    "model": Need(kind="model", optional=True),
}
GIVES = "scores"
VERSION = 2
PARTS = False
HOLDS = True
RESOURCES = Resources(gpus=1, cpus=2, memory=16, minutes=120)

Metric = Literal["exact_match", "contains", "regex", "f1", "rouge", "bleu", "perplexity"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and what it must be."""

    metrics: tuple[Metric, ...] = option(
        ("exact_match", "perplexity"),
        "Of texts: the answer is the expected one to the letter, contains it, matches a pattern;"
        " F1 of words (SQuAD), ROUGE, BLEU. Of models: perplexity on rows held out",
    )
    pattern: str | None = option(
        None,
        "regex: counts where this is found in the answer; with a group, where what the last one"
        " found holds is the expected answer",
    )
    judges: tuple[Judge, ...] = option(
        (), "Functions of yours that score answers: [{path: judge.py:polite}]", beside="path"
    )
    tasks: tuple[Task, ...] = option(
        (), "Tasks of lm-evaluation-harness, with data of yours: [{path: task.yaml}]", beside="path"
    )
    samples: int = option(3, "Answers shown side by side", at_least=0)
    perplexity_rows: int = option(
        64, "Rows held out to measure perplexity on; 0 is none", at_least=0
    )
    perplexity_on: Literal["answers", "all"] = option(
        "answers", "Which tokens count: those that are trained, or every one"
    )
    resamples: int = option(
        1000, "Draws of the bootstrap that tells how sure a figure is; 0 is none", at_least=0
    )
    confidence: float = option(
        0.95, "The share of draws between the ends of an interval", at_least=0, at_most=1
    )
    seed: int = option(0, "Decides those draws", at_least=0)
    batch_size: int = option(8, "Rows a forward pass", keyed=False, at_least=1)
    require: dict[str, str] = option(
        {},
        "What figures must be, else the run ends with exit code 1 after all is kept:"
        ' {exact_match: ">= 0.8"}; one of several texts is STEP.exact_match',
        keyed=False,
    )


pins = pins_nothing
stale = never_stale
room = takes_little_room
save = products.save_scores
restore = products.restore_scores


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """There must be something to score, and what is named must be there."""
    texts = [step.name for step in inputs.get("texts", ())]
    roles = [role for role in ("reference", "model") if inputs.get(role)]
    if not texts and "model" not in roles:
        return [Fault((), "there is neither text nor a model to score before this step.")]
    return [*checks.faults(options, texts, roles), *writes_text(inputs)]


def resolve(options: Options, locked: Facts) -> Options:
    """With what the files of judges and tasks say now."""
    return dataclasses.replace(
        options,
        judges=tuple(
            dataclasses.replace(each, source=sources.judge(each)) for each in options.judges
        ),
        tasks=tuple(dataclasses.replace(each, source=sources.task(each)) for each in options.tasks),
    )


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """Measure every text and every model; the rows keep what each of them got."""
    texts: Mapping[str, list[Row]] = inputs.get("texts", {})
    tally = _Tally(options)
    for name, rows in texts.items():
        tally.add_text(name, rows)
    _perplexities(options, inputs, context, tally)
    if options.tasks:
        _harness(options, inputs["model"], context, tally)
    scores = tally.scores | {"samples": _samples(texts, options.samples)}
    context.facts |= scores
    return scores | {"rows": tally.rows}


class _Tally:
    """Figures by what they measure and of what, their intervals, and the rows behind them."""

    def __init__(self, options: Options) -> None:
        from runner.scoring.intervals import Bootstrap

        self.options, self.rows = options, list[Row]()
        named = [name for name in ("exact_match", "perplexity") if name in options.metrics]
        self.scores: dict[str, Any] = {**{name: {} for name in named}, "intervals": {}}
        self.bootstrap = Bootstrap(options.resamples, options.confidence, options.seed)

    def add_text(self, of: str, rows: Sequence[Row]) -> None:
        """Everything that is measured of the answers of one step."""
        from runner.scoring.answers import measure

        found = measure(self.options, of, rows)
        prompts = [str(row.get("prompt")) for row in rows]
        told = ({"of": of, "row": n, "id": row.get("id")} for n, row in enumerate(rows))
        self.add(of, found, prompts, list(told))

    def add(
        self, of: str, found: "Sequence[Measured]", prompts: Sequence[Any], rows: list[Row]
    ) -> None:
        """Figures measured on the same rows."""
        for each in found:
            self.scores.setdefault(each.name, {})[of] = round(each.value, 4)
            for row, value in zip(rows, each.rows, strict=True):
                row[each.name] = round(value, 4)
            if self.options.resamples:
                interval = self.bootstrap.interval(each, prompts)
                self.scores["intervals"].setdefault(each.name, {})[of] = [
                    round(bound, 4) for bound in interval
                ]
        self.rows += rows


def _perplexities(
    options: Options, inputs: Mapping[str, Any], context: Context, tally: _Tally
) -> None:
    """Perplexity of the models on the same rows held out."""
    roles = [role for role in ("reference", "model") if role in inputs]
    if "perplexity" not in options.metrics or not options.perplexity_rows:
        return
    if "dataset" not in inputs:
        return
    rows = inputs["dataset"].scored(options.perplexity_rows)
    if not rows:
        raise StepError("no rows are held out to measure perplexity on.")
    for done, role in enumerate(roles):
        report = partial(_report, context, done * len(rows), len(roles) * len(rows))
        found = _perplexity(inputs[role], rows, options, report)
        told: list[Row] = [{"of": role, "row": number} for number in range(len(rows))]
        for row, (_, count) in zip(told, found.sums, strict=True):
            row["tokens"] = count
        tally.add(role, [found], range(len(rows)), told)
        context.stop_here()


def _perplexity(model: Model, rows: Sequence[Row], options: Options, report: Any) -> "Measured":
    from runner.scoring import likelihood

    return likelihood.measured(
        model,
        rows,
        column="labels" if options.perplexity_on == "answers" else "input_ids",
        batch_size=options.batch_size,
        report=report,
    )


def perplexity(model: Model, rows: Sequence[Row], options: Options, report: Any) -> float:
    """exp of the mean negative log-likelihood of the tokens that count, given those before."""
    return round(_perplexity(model, rows, options, report).value, 4)


def _harness(options: Options, model: Model, context: Context, tally: _Tally) -> None:
    """Every task of lm-eval, one after the other."""
    from runner.scoring import harness

    for done, task in enumerate(options.tasks):
        found = harness.measure(task, model, options.batch_size)
        tally.add(found.name, found.measured, range(len(found.rows)), list(found.rows))
        for name, value in found.others.items():
            tally.scores.setdefault(name, {})[found.name] = round(value, 4)
        context.progress(done + 1, len(options.tasks), "tasks")
        context.stop_here()


def _report(context: Context, before: int, total: int, rows: int) -> None:
    context.progress(before + rows, total, "rows")


def _samples(texts: Mapping[str, list[Row]], count: int) -> list[Row]:
    """The first rows, with the answer of every text."""
    found: dict[str, Row] = {}
    for name, rows in texts.items():
        for row in rows[:count]:
            new = {"prompt": row["prompt"], "expected": row.get("expected"), "answers": {}}
            sample = found.setdefault(str(row["prompt"]), new)
            sample["answers"].setdefault(name, row["answer"])
    return list(found.values())[:count]
