"""The options of adapt in the words of transformers' TrainingArguments."""

from pathlib import Path
from typing import Any

from runner import hardware
from runner.training import world
from runner.training.fitting import Fit
from runner.training.settings import Options

WARMUP_RATIO = 0.03
"""Of all steps, where the options say nothing: what QLoRA (arXiv:2305.14314, table 9) used."""

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "lion": "lion_32bit",
    "lion_8bit": "lion_8bit",
    "adafactor": "adafactor",
    "rmsprop": "rmsprop",
    "adagrad": "adagrad",
    "sgd": "sgd",
}
SCHEDULES = {
    "linear": "linear",
    "cosine": "cosine_with_min_lr",
    "constant": "constant_with_warmup",
    "inverse_sqrt": "inverse_sqrt",
    "warmup_stable_decay": "warmup_stable_decay",
}


def arguments(options: Options, folder: Path, steps: int, fit: Fit) -> dict[str, Any]:
    """Fields of TrainingArguments for a training of so many steps.

    To the Trainer a batch is the effective one; a watched Trainer cuts it to what fits. Logs come
    each step; when to save and to evaluate is said by the loop's own callback.
    """
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": options.effective_batch_size,
        "per_device_eval_batch_size": fit.micro_batch_size,
        "seed": options.seed,
        "data_seed": options.seed,
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        "use_cpu": hardware.device() == "cpu",
        "dataloader_pin_memory": False,
        "torch_compile": options.compile,
        "report_to": [],
        "disable_tqdm": True,
        **world.arguments(),
        **_optimizer(options),
        **_schedule(options, steps),
        **_computing(options, checkpointing=fit.gradient_checkpointing),
    }


def _optimizer(options: Options) -> dict[str, Any]:
    return {
        "optim": OPTIMIZERS[options.optimizer],
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "adam_beta1": options.beta1,
        "adam_beta2": options.beta2,
        "adam_epsilon": options.epsilon,
        "max_grad_norm": options.max_grad_norm,
    }


def _schedule(options: Options, steps: int) -> dict[str, Any]:
    warmup = warmup_steps(options, steps)
    special: dict[str, dict[str, Any]] = {
        "cosine": {"min_lr_rate": options.learning_rate_floor},
        "warmup_stable_decay": {
            "num_decay_steps": min(round(options.decay_ratio * steps), steps - warmup),
            "min_lr_ratio": options.learning_rate_floor,
        },
    }
    return {
        "lr_scheduler_type": SCHEDULES[options.schedule],
        "lr_scheduler_kwargs": special.get(options.schedule, {}),
        "warmup_steps": warmup,
    }


def warmup_steps(options: Options, steps: int) -> int:
    """In how many of the steps the learning rate rises."""
    if options.warmup_steps is not None:
        return min(options.warmup_steps, steps)
    ratio = WARMUP_RATIO if options.warmup_ratio is None else options.warmup_ratio
    return min(steps, -int(-ratio * steps // 1))


def _computing(options: Options, *, checkpointing: bool) -> dict[str, Any]:
    return {
        "bf16": options.precision == "bfloat16",
        "fp16": options.precision == "float16",
        "use_liger_kernel": options.kernels == "liger",
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
    }
