"""What a training takes of memory, told from options and configurations before anything is read."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from runner import hardware
from runner.memory.estimate import STATES, Training, to_train
from runner.memory.preflight import Claim, configuration
from runner.memory.shape import Held
from runner.stage import Facts
from runner.training import kinds
from runner.training.settings import Options

ROWS_OF_A_PAIR = {"dpo": 2, "orpo": 2, "reward": 2}


def claim(options: Options, model: Facts, dataset: Facts) -> Claim | None:
    """What one step takes with as few rows at once as there can be; None where nobody can tell.

    More rows at once are only taken where they fit, so these decide whether training can be.
    """
    from runner.models import claim as loading

    config = configuration(model.get("origin", {})) if "load" in model else None
    length = _longest(dataset)
    if config is None or length is None or options.objective == "grpo":
        return None
    held = _held(options, loading.held(model["load"], config, model.get("bytes", 0)))
    step = _step(options, length, options.micro_batch_size or 1, _checkpoints(options))
    with suppress(Exception):  # an estimate that cannot be made must keep nobody from training
        found = to_train(config, held, step, device=hardware.device().partition(":")[0])
        return Claim(estimate=found, device=hardware.device(), try_instead=_instead(options, step))
    return None


def beside_weights(
    options: Options, model: Any, length: int, rows: int, *, checkpointing: bool
) -> int | None:
    """What one step of a model in memory takes beside its weights; None where nobody can tell."""
    from runner import quantized
    from runner.training.methods import adapters

    base = adapters.base_of(model)
    attention = "eager" if base.config._attn_implementation == "eager" else "sdpa"
    with suppress(Exception):  # as above
        said = quantized.description(base) or {}
        held = Held(dtype=str(base.dtype).removeprefix("torch."), quantized=said.get("method"))
        step = _step(options, length, rows, checkpointing)
        found = to_train(base.config, held, step, attention, hardware.device().partition(":")[0])
        return found.peak - found.weights
    return None


def _longest(dataset: Facts) -> int | None:
    """The most tokens of a row: as they were counted, else as they are allowed."""
    counted = [int(length) for length in dataset.get("rows_up_to_tokens", ())]
    allowed = dataset.get("max_length")
    return min(filter(None, (max(counted, default=None), allowed)), default=None)


def _held(options: Options, loaded: Held) -> Held:
    """How the weights are held while they are trained."""
    if options.method == "qlora" and not (loaded.method or loaded.quantized):
        double = kinds.value(options, "double_quantization")
        base = kinds.value(options, "base")
        return replace(loaded, method=base, double_quantization=double)
    if options.method == "full" and kinds.value(options, "master_weights") == "float32":
        return replace(loaded, dtype="float32")
    return loaded


def _checkpoints(options: Options) -> bool:
    """Whether activations are computed twice where that takes least."""
    chosen = options.gradient_checkpointing
    return bool(hardware.gpus()) if chosen == "auto" else bool(chosen)


def _step(options: Options, length: int, rows: int, checkpointing: bool) -> Training:
    return Training(
        rank=_rank(options),
        micro_batch_size=rows * ROWS_OF_A_PAIR.get(options.objective, 1),
        max_length=length,
        gradient_checkpointing=checkpointing,
        optimizer=options.optimizer if options.optimizer in STATES else "adamw",  # type: ignore[arg-type]
    )


def _rank(options: Options) -> int | None:
    """Of an adapter on all layers; the small ones of other kinds count as the smallest."""
    if options.method == "full":
        return None
    return int(kinds.value(options, "rank")) if "alpha" in kinds.KINDS[options.method].takes else 1


def _instead(options: Options, step: Training) -> list[str]:
    """What would make it less, the gentlest first."""
    found = []
    if (options.micro_batch_size or 1) > 1:
        found.append("adapt.micro_batch_size=1")
    if not step.gradient_checkpointing:
        found.append("adapt.gradient_checkpointing=true")
    if options.method == "full":
        found.append("adapt=lora")
    elif options.method != "qlora":
        found.append("adapt=qlora")
    return [*found, f"process.max_length={max(1, step.max_length // 2)}"]
