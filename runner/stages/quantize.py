"""Squeeze a model's weights into fewer bits, and measure the result before it is believed."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from runner import products
from runner.options import Fault, plain
from runner.products import Files, Model
from runner.quantizing import calibration, gate, making, methods, settings, source
from runner.quantizing.settings import Gate
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

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", consumes=True),
    "dataset": Need(kind="dataset", optional=True),
    "calibration_data": Need(kind="dataset", named=True, optional=True),
}
ROWS = ("calibration_data", "dataset")
"""The roles that give rows to calibrate with, the one that counts first."""
GIVES = "model"
VERSION = 2
PARTS = False
HOLDS = False  # the model that later steps use is the one that was written, read back
RESOURCES = Resources(gpus=1, cpus=4, memory=32, minutes=240)

Options = settings.Options
pins = pins_nothing
stale = never_stale
save = products.save_files


def resolve(options: Options, locked: Facts) -> Options:
    """Say what the method decides where it is left out."""
    return methods.resolved(options)


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """Contradictions, a missing library, weights that are quantized already, no rows to look at."""
    faults = [*writes_text(inputs), *methods.check(options)]
    for step in inputs.get("model", ()):
        if step.stage_name == "quantize":
            fact = f"{step.name} is quantized already; quantize the model before it."
            faults.append(Fault((), fact))
        elif getattr(step.options, "quantization", None) is not None:
            fact = f"{step.name} quantizes already; leave {step.name}.quantization out."
            faults.append(Fault((), fact))
    if methods.of(options).calibrates and not any(map(inputs.get, ROWS)):
        fact = f"{options.method} looks at rows, and no step before gives a dataset."
        faults.append(Fault((), fact, "Put a process step before, or take nf4 or fp8."))
    return faults


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """The model as it was, while it is quantized, and its weights at their bits.

    StepError where the model is known to be quantized already.
    """
    source.check(inputs["model"])
    whole = inputs["model"].get("bytes", 0)
    name = _calibrating(inputs) if methods.of(options).calibrates else ""
    squeezed = whole * (options.bits or 16) // 16
    return Room(
        kept=squeezed,
        work=whole + squeezed,
        gives={"bytes": squeezed},
        memory=partial(_fitting, options, inputs["model"]),
        hints=[*calibration.hints(options.calibration, inputs[name])] if name else [],
    )


def _fitting(options: Options, model: Facts) -> None:
    """StepError where groups do not fit the layers, if the configuration is known by now."""
    from runner.memory import preflight
    from runner.quantizing import shapes

    if options.group_size and (config := preflight.configuration(model.get("origin", {}))):
        shapes.insist(config, options)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Files:
    """Write the model whole, quantize it in a process of its own, measure it in another."""

    def whole() -> Path:
        folder = context.draft / "whole"
        source.write(folder, lambda: _fit(inputs["model"], options), context.note)
        context.facts["bytes_before"] = products.weight_bytes(folder)
        return folder

    calibrating = _calibrating(inputs) if methods.of(options).calibrates else ""

    def make(folder: Path) -> None:
        rows = []
        if calibrating:
            rows = calibration.rows(inputs[calibrating], options.calibration, context.note)
        making.make(whole(), folder, rows, options, context)

    said = plain(replace(options, gate=Gate(rows=0)))
    made = context.part("weights", said, ["model", *filter(None, [calibrating])], make)
    context.facts |= {"method": options.method, "bytes_after": products.weight_bytes(made)}
    if options.gate.rows:
        context.facts |= gate.stand(whole(), made, inputs.get("dataset"), options, context)
    source.forget(context.draft / "whole")
    return Files(made)


def _fit(model: Model, options: Options) -> Model:
    """The model, once its layers are known to fit the groups."""
    from runner.quantizing import shapes

    if options.group_size:
        shapes.insist(model.model.config, options)
    return model


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Open the quantized weights."""
    return products.open_model(folder)


def _calibrating(inputs: Mapping[str, Any]) -> str:
    """The role that gives the rows to calibrate with; empty where none does."""
    return next((role for role in ROWS if role in inputs), "")
