"""Tasks of lm-evaluation-harness on a model in memory: local data, and no code of the task's."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from runner.errors import StepError
from runner.products import Model, Row
from runner.scoring import sources
from runner.scoring.intervals import Measured
from runner.scoring.sources import Task

CLOSE = 1e-6
"""How far the mean of the rows' figures may be from the task's own, for it to be that mean."""


@dataclass(frozen=True)
class Found:
    """What a task measured: figures that are means over rows, others, and what each row got."""

    name: str
    measured: Sequence[Measured]
    others: Mapping[str, float]
    rows: Sequence[Row]


def measure(task: Task, model: Model, batch_size: int) -> Found:
    """Run a task as its file says; StepError where the harness cannot."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    if task.source != sources.task(task):
        raise StepError(f"{task.path} or its data changed while it was read; run again.")
    config = sources.read(Path(task.path))
    with _sandbox():
        try:
            found = simple_evaluate(
                HFLM(pretrained=model.model, tokenizer=model.tokenizer, batch_size=batch_size),
                tasks=[config],
                limit=task.limit,
                bootstrap_iters=0,
                task_manager=TaskManager(include_defaults=False),
            )
        except (ValueError, KeyError, TypeError, OSError, AttributeError, ImportError) as error:
            said = f"{type(error).__name__}: {error}"
            raise StepError(f"{task.path} cannot be run by lm-eval: {said}") from error
    name = config["task"]
    return _found(name, found["results"][name], found["samples"][name])


def _found(name: str, results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> Found:
    measured, others = [], {}
    for key, value in results.items():
        metric, _, chosen = key.partition(",")
        if not isinstance(value, Real) or not chosen or metric.endswith("_stderr"):
            continue
        title = metric if chosen == "none" else f"{metric}_{chosen}".replace("-", "_")
        rows = [each[metric] for each in samples if each.get("filter", "none") == chosen]
        if rows and all(isinstance(row, Real) for row in rows) and _is_mean(rows, float(value)):
            measured.append(Measured.mean_of(title, [float(row) for row in rows]))
        else:
            others[title] = float(value)
    count = max((len(each.rows) for each in measured), default=0)
    told = [{"of": name, "row": number} for number in range(count)]
    return Found(name, measured, others, told)


def _is_mean(rows: Sequence[Any], value: float) -> bool:
    return abs(sum(map(float, rows)) / len(rows) - value) < CLOSE


@contextmanager
def _sandbox() -> Iterator[None]:
    """Render the templates of a task file where they can reach nothing but the row."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    before = utils.env
    safe = ImmutableSandboxedEnvironment(
        undefined=before.undefined, keep_trailing_newline=before.keep_trailing_newline
    )
    safe.filters |= before.filters
    utils.env = safe
    try:
        yield
    finally:
        utils.env = before
