"""Which device holds what."""

import re
from collections.abc import Mapping
from typing import Any

from runner import hardware

SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")
"""How accelerate spreads a model over the GPUs, and what does not fit over the CPU."""
DEVICE = re.compile(r"(cpu|mps|(cuda|xpu|npu)(:\d+)?)")
SIZE = re.compile(r"\d+(\.\d+)? ?([KMGT]i?B|B)?", re.IGNORECASE)


def settings(device_map: Any, max_memory: Mapping[str, int | str] | None) -> dict[str, Any]:
    """What `from_pretrained` is told; "one" is this machine's first GPU, else its CPU."""
    if device_map == "one":
        return {"device_map": hardware.device()}
    if isinstance(device_map, Mapping):
        return {"device_map": dict(device_map)}
    limits = {int(k) if k.isdigit() else k: v for k, v in (max_memory or {}).items()}
    return {"device_map": device_map} | ({"max_memory": limits} if limits else {})


def is_one(device_map: Any) -> bool:
    """Whether everything goes onto one device."""
    return isinstance(device_map, str) and device_map not in SPREAD


def devices(model: Any) -> str:
    """The devices that hold a model, in words: `cuda:0, cuda:1, cpu`."""
    placed = getattr(model, "hf_device_map", None) or {"": model.device}
    names = (f"cuda:{each}" if isinstance(each, int) else str(each) for each in placed.values())
    return ", ".join(dict.fromkeys(names))


def fault(device_map: Any, max_memory: Mapping[str, int | str] | None) -> tuple[str, str] | None:
    """The option that is wrong, and why."""
    named = device_map.values() if isinstance(device_map, Mapping) else [device_map]
    known = ("one", *SPREAD) if isinstance(device_map, str) else ()
    for each in named:
        if not isinstance(each, int) and each not in known and not DEVICE.fullmatch(each):
            where = "a device for a module" if isinstance(device_map, Mapping) else "a device map"
            return "device_map", f'"{each}" is no {where.removeprefix("a ")}: say cpu or cuda:0.'
    if max_memory and device_map not in SPREAD:
        return "max_memory", f"max_memory limits a device_map of {', '.join(SPREAD)} only."
    for device, size in (max_memory or {}).items():
        if isinstance(size, str) and not SIZE.fullmatch(size):
            return "max_memory", f'"{size}" for {device} is no size: say 20GB or 20GiB.'
    return None
