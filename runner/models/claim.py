"""What a model takes of memory once it is loaded by the options of `load`, and while it answers."""

from contextlib import suppress
from typing import Any

from runner import hardware
from runner.memory import estimate, preflight
from runner.memory.estimate import Answering
from runner.memory.preflight import Claim
from runner.memory.shape import BYTES, Held
from runner.models import form, opening, placement
from runner.stage import Facts


def held(options: Any, config: Any, file_bytes: int) -> Held:
    """How the weights will be held; `file_bytes` is what those of a quantized checkpoint take."""
    as_is = options.dtype in ("auto", "checkpoint")
    said = opening.dtype_of(config) if as_is else options.dtype
    how = options.quantization
    return Held(
        dtype=said if said in BYTES else "float32",
        method=how.method if how else None,
        double_quantization=bool(how and how.double_quantization),
        quantized=form.quantized_by(config.to_dict()),
        file_bytes=file_bytes,
    )


def claim(options: Any, config: Any, file_bytes: int, *, trust: bool = False) -> Claim | None:
    """What loading takes; None where accelerate decides how much goes where."""
    if not placement.is_one(options.device_map):
        return None
    device = hardware.device() if options.device_map == "one" else options.device_map
    how = held(options, config, file_bytes)
    more = {"trust_remote_code": True} if trust else {}
    found = estimate.to_load(config, how, **more)
    return Claim(estimate=found, device=device, try_instead=_instead(options, how))


def to_answer(model: Facts, how: Answering) -> Claim | None:
    """What a stage that asks a model takes: its weights, a cache of keys and values, one pass.

    `model` is what is known of the step that gives it. None where nobody can tell so far.
    """
    if "load" not in model or not placement.is_one(model["load"].device_map):
        return None
    config = preflight.configuration(model.get("origin", {}))
    if config is None:
        return None
    device = model["load"].device_map
    device = hardware.device() if device == "one" else device
    weights = held(model["load"], config, model.get("bytes", 0))
    with suppress(Exception):  # an estimate that cannot be made must keep nobody from asking
        found = estimate.to_answer(config, weights, how)
        return Claim(estimate=found, device=device, try_instead=_shorter(how))
    return None


def _shorter(how: Answering) -> list[str]:
    """Options of the asking step that would make it less."""
    fewer = [f"batch_size={how.batch_size // 2}"] if how.batch_size > 1 else []
    return [*fewer, f"max_new_tokens={max(1, how.max_new_tokens // 2)}"]


def _instead(options: Any, how: Held) -> list[str]:
    """What would make it less, the gentlest first."""
    found = []
    if how.dtype == "float32" and not how.quantized:
        found.append("load.dtype=bfloat16")
    if not (how.method or how.quantized) and not options.merge:
        found.append("load.quantization={method: nf4}")
    if len(hardware.gpus()) > 1:
        found.append("load.device_map=auto")
    return found
