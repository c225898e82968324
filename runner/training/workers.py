"""Training in several processes on this machine, one for each device."""

import gc
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from runner import hardware, products
from runner.errors import StepError
from runner.options import Fault
from runner.products import Model
from runner.stage import Context
from runner.training import handing, processes
from runner.training.settings import Options

FULL = 0.8
"""Share of a device's memory that a model and its training may fill before it is sharded."""
ADVICE = "The same command goes on from the last checkpoint; adapt.retries=N tries N times itself."


def count(options: Options) -> int:
    """How many processes train: as many as asked for, or as devices that the rows divide among."""
    if options.devices != "auto":
        return options.devices
    found = len(hardware.gpus()) or 1
    return next(n for n in range(found, 0, -1) if options.batch_size % n == 0)


def check(options: Options) -> list[Fault]:
    """What is wrong with the devices that were asked for."""
    wanted, found = options.devices, len(hardware.gpus())
    faults = []
    if options.sharding == "full" and not found:  # accelerate 1.15 would share out nothing there
        faults.append(Fault(("sharding",), "a model is shared out among GPUs, and there are none."))
    if wanted == "auto":
        return faults
    if found and wanted > found:
        faults.append(Fault(("devices",), f"there are {found} GPUs, not {wanted}."))
    if options.batch_size % wanted:
        fact = f"{options.batch_size} rows a step do not divide among {wanted} devices."
        faults.append(Fault(("devices",), fact))
    return faults


def train(inputs: Mapping[str, Any], options: Options, context: Context) -> Model:
    """What single.train gives, by `count(options)` processes.

    The model is let go of here before they start, and opened again with what they have learned.
    """
    from runner.training import methods

    folder, devices = context.draft / "workers", count(options)
    tokenizer = _hand_over(folder, inputs, options, context)
    _free_memory()
    _train(folder, devices, options.retries, context)
    context.facts["devices"] = devices
    base = handing.open_model(folder)
    return Model(methods.read(base.model, folder / handing.RESULT).eval(), tokenizer)


def _hand_over(folder: Path, inputs: Mapping[str, Any], options: Options, context: Context) -> Any:
    """Write down what the processes need; of the model, its tokenizer alone stays here."""
    dataset = inputs["dataset"]
    source = products.with_template(inputs["model"], dataset.template)
    options = replace(options, sharding=_sharding(source.model, options))
    handing.hand_over(folder, source, dataset, options, context)
    return source.tokenizer


def _sharding(model: Any, options: Options) -> Literal["none", "full"]:
    """`full` where one device cannot hold the model and its training.

    Full training holds gradients and AdamW's two averages beside the weights, in their format;
    an adapter's are small beside them.
    """
    if options.sharding != "auto" or not hardware.gpus():
        return "full" if options.sharding == "full" else "none"
    copies = 4 if getattr(options, "method", "lora") == "full" else 1
    room = FULL * min(gpu.memory for gpu in hardware.gpus())
    return "full" if copies * model.get_memory_footprint() > room else "none"


def _free_memory() -> None:
    torch: Any = sys.modules["torch"]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _train(folder: Path, devices: int, retries: int, context: Context) -> None:
    """Have the processes train; where one dies, they start again from the last checkpoint."""
    group = processes.Group(folder, devices, context)
    for attempt in range(1, retries + 2):
        death = group.run()
        if not (folder / handing.RESULT).is_dir():
            context.stop_here()
        if death is None:
            return
        if attempt > retries:
            raise StepError(f"{death}\n{death.last_lines()}", ADVICE)
        context.note(f"{death} Going on from the last checkpoint (retry {attempt} of {retries}).")
