"""Training in several processes on this machine, one for each device."""

import gc
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner import hardware, products
from runner.errors import StepError
from runner.options import Fault
from runner.products import Model
from runner.stage import Context
from runner.training import handing, health, processes
from runner.training.settings import Options

ADVICE = "The same command goes on from the last checkpoint; adapt.retries=N tries N times itself."


def count(options: Options) -> int:
    """How many processes train: as many as asked for, or as there are GPUs; with grpo one."""
    if options.devices != "auto":
        return options.devices
    return 1 if options.objective == "grpo" else len(hardware.gpus()) or 1


def check(options: Options) -> list[Fault]:
    """What is wrong with the devices that were asked for."""
    wanted, found = count(options), len(hardware.gpus())
    if found and wanted > found:
        return [Fault(("devices",), f"there are {found} GPUs, not {wanted}.")]
    if wanted > 1 and options.objective == "grpo":
        fact = "each process of grpo would draw answers of its own: with more devices, others."
        return [Fault(("devices",), fact, "Leave devices out.")]
    if wanted > options.effective_batch_size:
        fact = f"{options.effective_batch_size} rows a step are fewer than {wanted} devices."
        return [Fault(("devices",), fact, "Set a larger adapt.effective_batch_size.")]
    return []


def train(
    inputs: Mapping[str, Any], options: Options, context: Context, adapter: Path | None
) -> Model:
    """What single.train gives, by `count(options)` processes.

    The model is let go of here before they start, and opened again with what they have learned.
    """
    from runner.training import taught

    folder, devices = context.draft / "workers", count(options)
    _hand_over(folder, inputs, options, context, adapter)
    _free_memory()
    _train(folder, devices, options, context)
    context.facts["devices"] = devices
    return taught.read(folder / handing.RESULT, lambda: handing.open_model(folder))


def _hand_over(
    folder: Path,
    inputs: Mapping[str, Any],
    options: Options,
    context: Context,
    adapter: Path | None,
) -> None:
    """Write down what the processes need; nothing of the model stays here."""
    dataset = inputs["dataset"]
    source = products.with_template(inputs["model"], dataset.template)
    handing.hand_over(folder, source, dataset, options, context, adapter)


def _free_memory() -> None:
    torch: Any = sys.modules["torch"]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _train(folder: Path, devices: int, options: Options, context: Context) -> None:
    """Have the processes train; where one dies, they start again from the last checkpoint.

    One that has no memory for its rows leaves a checkpoint of the last step; all of them go on from
    there with half as many rows at once.
    """
    group, retries = processes.Group(folder, devices, context), 0
    while death := group.run():
        if not (folder / handing.RESULT).is_dir():
            context.stop_here()
        if group.starved:
            fewer = group.starved.fewer
            context.note(health.goes_on(group.starved.step_number, fewer))
            handing.change(folder, replace(options, micro_batch_size=fewer))
        elif retries < options.retries:
            retries += 1
            said = f"Going on from the last checkpoint (retry {retries} of {options.retries})."
            context.note(f"{death} {said}")
        else:
            raise StepError(f"{death}\n{death.last_lines()}", ADVICE)
    if not (folder / handing.RESULT).is_dir():
        context.stop_here()
