"""The options of quantize."""

from dataclasses import dataclass
from typing import Literal

from runner.options import option

Name = Literal[
    "int8",
    "nf4",
    "fp4",
    "gptq",
    "auto-gptq",
    "awq",
    "w8a8",
    "fp8",
    "torchao-int8",
    "torchao-int4",
    "none",
]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Rows that a method sees the model at work on."""

    rows: int = option(128, "How many; 128 to 512 are usual", at_least=1)
    max_length: int = option(512, "Tokens of a row that count; the rest is cut off", at_least=1)
    seed: int = option(0, "Decides which rows", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What the result must stand, read back from disk in a new process."""

    rows: int = option(64, "Rows held out that both models are shown; 0 leaves it out", at_least=0)
    max_length: int = option(128, "Tokens at the end of a row that are shown", at_least=2)
    max_perplexity_increase: float = option(
        0.5, "The step fails above this: 0.5 is half as much again", at_least=0
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which form, and how."""

    method: Name = option("nf4", "The form of the weights; none leaves them as they are")
    bits: int | None = option(None, "Bits of a weight; the method's usual where left out")
    group_size: int | None = option(
        None, "Weights in a row that share a scale, -1: all; the method's usual where left out"
    )
    symmetric: bool | None = option(
        None, "gptq, awq: zero is always zero; the method's usual where left out"
    )
    double_quantization: bool = option(
        False, "nf4, fp4: quantize the scales too, 0.4 bits a weight less"
    )
    skip: tuple[str, ...] = option((), "Layers left as they are, by a part of their name")
    calibration: Calibration = option(
        Calibration(), "gptq, awq, w8a8: the rows they see the model at work on"
    )
    gate: Gate = option(Gate(), "What the result must stand")
