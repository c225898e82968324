"""The options of adapt."""

from dataclasses import dataclass
from typing import Literal

from runner.options import option


@dataclass(frozen=True, kw_only=True)
class Options:
    """LoRA (arXiv:2106.09685) with the AdamW of transformers' Trainer."""

    rank: int = option(8, "Rank of the adapter's matrices", at_least=1)
    alpha: float = option(16.0, "Scale of the adapter: its output counts alpha / rank")
    dropout: float = option(0.0, "Dropout before the adapter", at_least=0, at_most=1)
    target_modules: tuple[str, ...] = option(
        ("all-linear",), "Names of the layers to adapt, or all-linear"
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
    devices: Literal["auto"] | int = option(
        "auto", "GPUs to train on, each with a process of its own", keyed=False, at_least=1
    )
    sharding: Literal["auto", "none", "full"] = option(
        "auto",
        "Whether each device holds a share of the model (FSDP2) or all of it (DDP); auto shards a"
        " model that one device cannot hold",
        keyed=False,
    )
    retries: int = option(
        1,
        "How often to go on by itself after one of several processes died",
        keyed=False,
        at_least=0,
    )
    track: tuple[Literal["trackio", "tensorboard", "wandb", "mlflow"], ...] = option(
        (), "Experiment trackers that follow the training", keyed=False
    )
