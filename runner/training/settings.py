"""The options of adapt."""

from dataclasses import dataclass
from typing import Literal

from runner.options import option

Schedule = Literal["linear", "cosine", "constant", "inverse_sqrt", "warmup_stable_decay"]
Optimizer = Literal[
    "adamw",
    "adamw_8bit",
    "paged_adamw",
    "paged_adamw_8bit",
    "lion",
    "lion_8bit",
    "adafactor",
    "rmsprop",
    "adagrad",
    "sgd",
]

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
    """What is trained and how, with the AdamW of transformers' Trainer.

    Options that only some methods have are null where left out; `kinds.py` has their defaults.
    """

    method: Literal[
        "lora", "rslora", "dora", "qlora", "full", "ia3", "vera", "prompt", "prefix", "ptuning"
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
    epochs: float | None = option(
        None, "How often every row is seen; 1 where no length is given", at_least=0
    )
    max_steps: int | None = option(None, "Train for this many steps instead", at_least=1)
    max_tokens: int | None = option(None, "Train for this many tokens instead", at_least=1)
    effective_batch_size: int = option(8, "Rows that each step learns from", at_least=1)
    micro_batch_size: int | None = option(
        None,
        "Rows that are in memory at once; chosen to fit where left out",
        keyed=False,
        at_least=1,
    )
    padding_free: Literal["auto"] | bool = option(
        "auto", "Rows in memory joined to one; auto: where the attention makes that cheaper"
    )
    group_by_length: bool = option(
        False, "Rows of similar length in one step: less padding, and an order less random"
    )
    learning_rate: float = option(2e-4, "The highest learning rate", at_least=0)
    schedule: Schedule = option("linear", "How the learning rate goes on after its warmup")
    learning_rate_floor: float = option(
        0.0, "What cosine and warmup_stable_decay end at, as a share", at_least=0, at_most=1
    )
    decay_ratio: float = option(
        0.2, "The share of the steps in which warmup_stable_decay falls", at_least=0, at_most=1
    )
    warmup_steps: int | None = option(None, "Steps in which the learning rate rises", at_least=0)
    warmup_ratio: float | None = option(
        None, "The same as a share of all steps; 0.03 where neither is given", at_least=0, at_most=1
    )
    optimizer: Optimizer = option("adamw", "What turns gradients into steps")
    weight_decay: float = option(0.0, "How fast weights shrink by themselves", at_least=0)
    beta1: float = option(0.9, "Memory of the optimizer for gradients", at_least=0, at_most=1)
    beta2: float = option(0.999, "Memory for their squares", at_least=0, at_most=1)
    epsilon: float = option(1e-8, "What keeps the optimizer from dividing by 0", at_least=0)
    max_grad_norm: float = option(
        1.0, "Longer gradients are shortened to this; 0 leaves all as they are", at_least=0
    )
    precision: Literal["auto", "as_loaded", "bfloat16", "float16", "float32"] = option(
        "auto", "What it computes in; auto: bfloat16 on a GPU that has it, else as loaded"
    )
    gradient_checkpointing: Literal["auto"] | bool = option(
        "auto", "Compute activations twice rather than keep them; auto: to fit", keyed=False
    )
    kernels: Literal["auto", "liger", "torch"] = option(
        "auto", "auto: those of Liger where installed and on a GPU, else those of torch"
    )
    compile: bool = option(False, "torch.compile the model: minutes at first, then faster steps")
    deterministic: bool = option(
        False, "On a GPU, only algorithms that give the same bits each time; slower"
    )
    loss_limit: float | None = option(
        10.0,
        "Stop where the loss stays this many times above its median (of at least 1)",
        keyed=False,
        at_least=1,
    )
    evaluate_every: int | None = option(
        None, "Steps between two looks at the rows held out; else only before and after", at_least=1
    )
    evaluate_rows: int | None = option(
        64, "How many of the rows held out; all where null, 0 for no look", at_least=0
    )
    keep: Literal["last", "best"] = option(
        "last", "The weights of the last step, or of the lowest loss on rows held out"
    )
    patience: int | None = option(
        None, "Stop after this many looks without a lower loss", at_least=1
    )
    seed: int = option(0, "Decides the adapter's first values and the order of rows", at_least=0)
    checkpoint_every: int | None = option(
        None,
        "Training steps between two checkpoints, where not only time counts",
        keyed=False,
        at_least=1,
    )
    checkpoint_seconds: float | None = option(
        300.0, "Seconds between two checkpoints", keyed=False, at_least=0
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
    retries: int = option(
        1,
        "How often to go on by itself after one of several processes died",
        keyed=False,
        at_least=0,
    )
    track: tuple[Literal["trackio", "tensorboard", "wandb", "mlflow"], ...] = option(
        (), "Experiment trackers that follow the training", keyed=False
    )
