"""Teach a model by training an adapter, or all its weights, on the trained tokens of a dataset."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from runner.options import Fault
from runner.products import Model
from runner.recipe import Step
from runner.resources import Resources
from runner.stage import (
    Context,
    Facts,
    Need,
    Room,
    never_stale,
    pins_nothing,
    writes_text,
)
from runner.training import checks, kinds, settings, sizes

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", consumes=True, restores=True),
    "dataset": Need(kind="dataset"),
    "adapter": Need(kind="files", named=True),
}
GIVES = "model"
VERSION = 3
PARTS = False
HOLDS = True
RESOURCES = Resources(gpus=1, cpus=4, memory=32, minutes=240)

Options = settings.Options
pins = pins_nothing
stale = never_stale


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """Options that contradict one another, or that this machine cannot follow."""
    from runner.training import objectives, trackers, workers

    return [
        *kinds.check(options, inputs),
        *checks.contradictions(options),
        *objectives.check(options, inputs),
        *writes_text(inputs),
        *workers.check(options),
        *trackers.check(options),
    ]


def resolve(options: Options, locked: Facts) -> Options:
    """What is left to the machine or to the objective, and what the user's functions say now."""
    from runner.training import objectives

    return objectives.resolve(checks.resolve(options))


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """What is trained, with AdamW's two averages in every checkpoint; and the memory of a step.

    StepError where a layer that is named is not among the model's, if its config is known by now,
    or where the rows are known not to be ones that the objective learns from.
    """
    from runner.training import objectives

    objectives.insist(options, inputs["dataset"].get("reading", {}).get("kind"))
    room = sizes.room(options, inputs["model"])
    return replace(room, memory=partial(_claim, options, inputs["model"], inputs["dataset"]))


def _claim(options: Options, model: Facts, dataset: Facts) -> Any:
    from runner.training import claims

    return claims.claim(options, model, dataset)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Model:
    """Train from the newest checkpoint, or from the start."""
    from runner.training import single, workers

    adapter = inputs["adapter"].folder if "adapter" in inputs else None
    if workers.count(options) > 1:
        return workers.train(inputs, options, context, adapter)
    return single.train(inputs["model"], inputs["dataset"], options, context, adapter)


def save(product: Model, folder: Path) -> None:
    """Write the adapter alone, or the whole model, and the chat template it was taught with."""
    from runner.training import taught

    taught.write(product, folder)


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Open the whole model, or put the adapter onto its base again."""
    from runner.training import taught

    return taught.read(folder, lambda: inputs["model"])
