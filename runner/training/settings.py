"""The options of adapt."""

from dataclasses import dataclass
from typing import Literal

from runner.options import option

Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "sigmoid_norm",
    "kto",
    "apo_zero_unpaired",
    "grpo",
    "bnpo",
    "dr_grpo",
    "dapo",
]


@dataclass(frozen=True, kw_only=True)
class Reward:
    """A function of yours that scores what the model writes."""

    path: str = option(
        help="File and function, `reward.py:score`; it takes lists of prompts, completions and"
        " expected answers, and gives a number for each",
        keyed=False,
    )
    weight: float = option(1.0, "What its numbers count among those of other functions")
    source: str | None = option(None, "The function and blake3 of its file, found where left out")


@dataclass(frozen=True, kw_only=True)
class Options:
    """LoRA (arXiv:2106.09685) with the AdamW of transformers' Trainer."""

    rank: int = option(8, "Rank of the adapter's matrices", at_least=1)
    alpha: float = option(16.0, "Scale of the adapter: its output counts alpha / rank")
    dropout: float = option(0.0, "Dropout before the adapter", at_least=0, at_most=1)
    target_modules: tuple[str, ...] = option(
        ("all-linear",), "Names of the layers to adapt, or all-linear"
    )
    objective: Literal["sft", "dpo", "orpo", "kto", "reward", "grpo"] = option(
        "sft",
        "What is learned: answers, pairs (dpo, orpo, reward), good and bad ones (kto), rewards",
    )
    loss: Loss | None = option(
        None, "Variant of dpo (else sigmoid), of kto (else kto) or of grpo (else grpo)"
    )
    beta: float | None = option(
        None,
        "dpo, kto (else 0.1), grpo (else 0): how much the model is held to what it was;"
        " orpo (else 0.1): what the odds ratio counts",
        at_least=0,
    )
    label_smoothing: float | None = option(
        None,
        "dpo: the share of pairs that may be the wrong way round",
        at_least=0,
        at_most=1,
    )
    sft_weight: float | None = option(
        None, "dpo (else 0): what the likelihood of the better answer counts too", at_least=0
    )
    desirable_weight: float | None = option(
        None, "kto (else 1): what good answers count", at_least=0
    )
    undesirable_weight: float | None = option(
        None, "kto (else 1): what bad answers count", at_least=0
    )
    rewards: tuple[Reward, ...] = option(
        (), "grpo: your functions that score what it writes", beside="path"
    )
    generations: int | None = option(
        None, "grpo (else 8): answers to a prompt that are compared", at_least=2
    )
    max_new_tokens: int | None = option(
        None, "grpo (else 128): the longest answer, in tokens", at_least=1
    )
    temperature: float | None = option(
        None, "grpo (else 1): how freely answers are drawn", at_least=0.01
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
