"""The options of adapt."""

from dataclasses import dataclass
from typing import Literal

from runner.options import option


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is trained and how, with the AdamW of transformers' Trainer.

    Options that only some methods have are null where left out; `kinds.py` has their defaults.
    """

    method: Literal[
        "lora", "rslora", "dora", "qlora", "full", "ia3", "vera", "prompt", "prefix"
    ] = option("lora", "Which weights are trained: a kind of adapter or prompt, or all (full)")
    rank: int | None = option(
        None, "Rank of the adapter's matrices; 8 where left out, of vera 256", at_least=1
    )
    alpha: float | None = option(
        None, "Scale of the adapter, 16 where left out: its output counts alpha / rank", at_least=0
    )
    dropout: float | None = option(
        None, "Dropout before the adapter, 0 where left out", at_least=0, at_most=1
    )
    target_modules: Literal["auto"] | tuple[str, ...] = option(
        "auto",
        "Layers to adapt, by names or regular expressions; auto is every linear layer but the"
        " output layer",
    )
    layers: tuple[int, ...] | None = option(
        None, "Only those in the model's layers of these numbers, from 0 on"
    )
    initialization: Literal["kaiming", "gaussian", "orthogonal"] | None = option(
        None, "The first values of the adapter's matrix A, kaiming where left out"
    )
    feedforward_modules: tuple[str, ...] | None = option(
        None, "Of ia3's layers, those whose input is scaled instead of their output"
    )
    virtual_tokens: int | None = option(
        None, "Length of the trained prompt or prefix, 20 where left out", at_least=1
    )
    base: Literal["nf4", "int8"] | None = option(
        None, "The format that qlora holds the model in, nf4 where left out"
    )
    double_quantization: bool | None = option(
        None, "Quantize nf4's scales too, false where left out: 0.4 bits a weight less"
    )
    master_weights: Literal["float32", "loaded"] | None = option(
        None,
        "The number format in which full trains, float32 where left out; bfloat16, if loaded so,"
        " loses most updates of a small learning rate. The result has the format that was loaded",
    )
    merge: bool = option(
        False, "Add the adapter to the weights: the result is a whole model, unquantized"
    )
    epochs: float = option(1.0, "How often every row is seen", at_least=0)
    max_steps: int = option(-1, "Stop after this many steps; -1 for no such limit", at_least=-1)
    batch_size: int = option(8, "Rows a step", at_least=1)
    learning_rate: float = option(2e-4, "The highest learning rate", at_least=0)
    schedule: Literal["linear", "cosine", "constant"] = option(
        "linear", "How the learning rate falls"
    )
    warmup_steps: int = option(5, "Steps in which the learning rate rises", at_least=0)
    weight_decay: float = option(0.0, "Weight decay of AdamW", at_least=0)
    seed: int = option(0, "Decides the adapter's first values and the order of rows", at_least=0)
    checkpoint_every: int = option(
        20, "Training steps between two checkpoints", keyed=False, at_least=1
    )
    keep_checkpoints: int = option(
        2,
        "Checkpoints kept; the one before counts where the last is damaged",
        keyed=False,
        at_least=1,
    )
