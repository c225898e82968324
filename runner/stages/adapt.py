"""Teach a model by training a LoRA adapter on the trained tokens of a dataset."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import products
from runner.options import Fault
from runner.products import Model
from runner.recipe import Step
from runner.stage import (
    Context,
    Facts,
    Need,
    Room,
    never_stale,
    pins_nothing,
    writes_text,
)
from runner.training import checks, settings

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", consumes=True, restores=True),
    "dataset": Need(kind="dataset"),
}
GIVES = "model"
VERSION = 3
PARTS = False
HOLDS = True

Options = settings.Options
pins = pins_nothing
stale = never_stale


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """Options that contradict one another, or that this machine cannot follow."""
    from runner.training import objectives, trackers, workers

    return [
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
    """The adapter in float32, and with AdamW's two averages in every checkpoint."""
    model = inputs["model"]
    width = model.get("linear_width", 0) if options.target_modules == ("all-linear",) else 0
    adapter = 4 * options.rank * width
    return Room(kept=adapter, work=3 * adapter * (options.keep_checkpoints + 1), gives=model)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Model:
    """Train from the newest checkpoint, or from the start."""
    from runner.training import single, workers

    if workers.count(options) > 1:
        return workers.train(inputs, options, context)
    return single.train(inputs["model"], inputs["dataset"], options, context)


def save(product: Model, folder: Path) -> None:
    """Write the adapter alone, and the chat template that it was taught with."""
    from runner.training import methods

    methods.write(product.model, folder)
    template = product.tokenizer.chat_template
    (folder / products.TEMPLATE).write_text(template or "", encoding="utf-8")


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Put the adapter onto its base again."""
    from runner.training import methods

    template = (folder / products.TEMPLATE).read_text(encoding="utf-8")
    base = products.with_template(inputs["model"], template or None)
    return Model(methods.read(base.model, folder).eval(), base.tokenizer)
