"""Whether a step fits into memory, asked before anything is fetched: a line with the figures."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import hardware
from runner.errors import StepError
from runner.files import human_bytes
from runner.memory.estimate import BAND, Estimate

LIBRARIES = 600_000_000
"""Bytes that Python, torch and transformers take on the CPU beside every tensor; 0.5 GB were seen
before anything was loaded."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a step takes, where, and what would make it less."""

    estimate: Estimate
    device: str
    try_instead: Sequence[str] = ()


def shortage(claim: Claim) -> tuple[str, str] | None:
    """The fact and the advice, where a claim is more than its device has free."""
    room = hardware.free_memory(claim.device)
    needed = claim.estimate.needed
    needed += LIBRARIES if claim.device == "cpu" else 0
    if room is None or needed <= room:
        return None
    parts = {name: getattr(claim.estimate, name) for name in _PARTS}
    shown = ", ".join(f"{name} {human_bytes(size)}" for name, size in parts.items() if size)
    fact = (
        f"does not fit: it needs about {human_bytes(needed)} ({shown}), "
        f"and {claim.device} has {human_bytes(room)} free. Of such estimates: {BAND}."
    )
    return fact, f"Try {', or '.join(claim.try_instead)}" if claim.try_instead else ""


def refuse(claim: Claim) -> None:
    """StepError where a claim is more than its device has free."""
    if found := shortage(claim):
        raise StepError(*found)


def configuration(origin: Mapping[str, Any]) -> Any | None:
    """The configuration of a model that may not be here yet; None where it cannot be told so far.

    `origin` is what fetch says of the model: a `folder`, or a `repo` and a `commit`, of which
    config.json alone is fetched, into the user's Hub cache, where the rest will come too.
    """
    folder = Path(origin["folder"]) if origin.get("folder") else _fetched(origin)
    if folder is None or not (folder / "config.json").exists():
        return None
    from transformers import AutoConfig

    with suppress(OSError, ValueError, KeyError):  # the step itself will say what is wrong
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return None


def _fetched(origin: Mapping[str, Any]) -> Path | None:
    if not (origin.get("repo") and origin.get("commit")):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    with suppress(OSError, HfHubHTTPError, ValueError):  # fetch itself will say what is wrong
        found = hf_hub_download(origin["repo"], "config.json", revision=origin["commit"])
        return Path(found).parent
    return None


_PARTS = ("weights", "gradients", "optimizer", "activations", "cache")
