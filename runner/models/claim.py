"""What a model takes of memory once it is loaded by the options of `load`."""

from typing import Any

from runner import hardware
from runner.memory import estimate
from runner.memory.preflight import Claim
from runner.memory.shape import BYTES, Held
from runner.models import form, opening, placement


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
    found = estimate.to_load(config, how, device.partition(":")[0], **more)
    return Claim(estimate=found, device=device, try_instead=_instead(options, how))


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
