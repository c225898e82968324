"""Options of adapt that contradict one another, and those that a machine decides."""

import dataclasses
import importlib.util
from collections.abc import Iterator

from runner import hardware
from runner.options import Fault
from runner.training.settings import Options

LENGTHS = ("epochs", "max_steps", "max_tokens")
FALLING = ("cosine", "warmup_stable_decay")


def resolve(options: Options) -> Options:
    """What is left to the machine and changes the result, decided."""
    decided = {
        "precision": "bfloat16" if _has_bfloat16_gpu() else "as_loaded",
        "kernels": "liger" if hardware.gpus() and _has_liger() else "torch",
    }
    changes = {name: to for name, to in decided.items() if getattr(options, name) == "auto"}
    return dataclasses.replace(options, **changes)  # type: ignore[arg-type]


def contradictions(options: Options) -> list[Fault]:
    """Everything that options say against one another or against this machine."""
    found = [_lengths, _rows, _rates, _looks, _machine]
    return [fault for look in found for fault in look(options)]


def _lengths(options: Options) -> Iterator[Fault]:
    given = [name for name in LENGTHS if getattr(options, name) is not None]
    for name in given[1:]:
        yield Fault((name,), f"{given[0]} says already how long to train.", "Leave out one.")
    if options.epochs == 0:
        yield Fault(("epochs",), "0 epochs train nothing.")


def _rows(options: Options) -> Iterator[Fault]:
    micro, effective = options.micro_batch_size, options.effective_batch_size
    if micro is not None and micro > effective:
        yield Fault(
            ("micro_batch_size",), f"{micro} rows are more than the {effective} of a whole batch."
        )


def _rates(options: Options) -> Iterator[Fault]:
    if options.warmup_steps is not None and options.warmup_ratio is not None:
        yield Fault(("warmup_ratio",), "warmup_steps says already how long the warmup is.")
    steps, warmup = options.max_steps, options.warmup_steps
    if steps is not None and warmup is not None and warmup > steps:
        yield Fault(("warmup_steps",), f"{warmup} steps of warmup are more than all {steps} steps.")
    if options.learning_rate_floor and options.schedule not in FALLING:
        yield Fault(
            ("learning_rate_floor",),
            f'"{options.schedule}" does not end at a floor.',
            "Try cosine.",
        )
    if 1 in (options.beta1, options.beta2):
        yield Fault(("beta1",), "a beta of 1 never learns anything; it must be below 1.")


def _looks(options: Options) -> Iterator[Fault]:
    wants = [("keep", options.keep == "best"), ("patience", options.patience is not None)]
    for name in (name for name, wanted in wants if wanted):
        if options.evaluate_every is None:
            yield Fault((name,), f"{name} needs looks while it trains.", "Set evaluate_every.")
        elif options.evaluate_rows == 0:
            yield Fault((name,), f"{name} needs rows to look at, and evaluate_rows is 0.")
    if options.evaluate_every is not None and options.evaluate_rows == 0:
        yield Fault(("evaluate_every",), "there is nothing to look at where evaluate_rows is 0.")


def _machine(options: Options) -> Iterator[Fault]:
    if options.precision == "float16" and not hardware.gpus():
        yield Fault(("precision",), "float16 needs a GPU, and there is none.", "Try bfloat16.")
    if options.optimizer.startswith("paged") and not hardware.gpus():
        yield Fault(
            ("optimizer",),
            "paged memory needs a GPU, and there is none.",
            "Try adamw or adamw_8bit.",
        )
    if options.kernels == "liger" and not hardware.gpus():
        yield Fault(("kernels",), "Liger's kernels need a GPU, and there is none.")
    elif options.kernels == "liger" and not _has_liger():
        yield Fault(
            ("kernels",), "Liger is not installed.", "Try: pip install 'recipe-runner[liger]'"
        )


def _has_bfloat16_gpu() -> bool:
    return bool(hardware.gpus()) and hardware.computes_bfloat16()


def _has_liger() -> bool:
    return importlib.util.find_spec("liger_kernel") is not None
