"""Load a model and its tokenizer onto this machine's devices; adapters on it, if it has some."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from runner import files, hardware, products
from runner.options import Fault, build, keyed, option
from runner.products import Model
from runner.recipe import Step
from runner.resources import Resources
from runner.stage import Context, Facts, Need, Room, never_stale, pins_nothing

NEEDS: Mapping[str, Need] = {
    "files": Need(kind="files", part="model", restores=True),
    "base": Need(kind="files", named=True, optional=True, restores=True),
    "adapters": Need(kind="files", named=True, optional=True, many=True, restores=True),
}
GIVES = "model"
VERSION = 2
PARTS = False
HOLDS = True
RESOURCES = Resources(gpus=1, cpus=2, memory=16, minutes=60)

SETTINGS = "load.json"


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Weights that bitsandbytes quantizes while they are read; on disk they stay as they are."""

    method: Literal["int8", "nf4", "fp4"] = option(
        help="LLM.int8() (arXiv:2208.07339), 4-bit normal float (arXiv:2305.14314) or 4-bit float"
    )
    threshold: float = option(
        6.0, "int8: columns with an input above this are computed whole", at_least=0
    )
    double_quantization: bool = option(
        False, "nf4, fp4: quantize the scales too, 0.4 bits a weight less"
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = option(
        "auto", "nf4, fp4: the format that layers compute in; auto is that of the other layers"
    )


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The code that may run: of this repository, at this commit."""

    repo: str = option(help="The repository, `user/name`, that fetch.model brings")
    commit: str = option(help="The commit whose code you have read, 40 digits")


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One adapter made of several."""

    weights: dict[str, float] = option(help="How much each adapter counts, by its part of fetch")
    method: Literal[
        "linear", "cat", "svd", "ties", "dare_linear", "dare_ties", "magnitude_prune"
    ] = option("linear", "How they are added up, as peft names it; linear wants equal ranks")
    density: float | None = option(
        None, "ties, dare, magnitude_prune: the share of values kept", at_least=0, at_most=1
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the weights are held in memory, and what is put on them."""

    dtype: Literal["auto", "checkpoint", "bfloat16", "float16", "float32"] = option(
        "auto", "Number format; auto is the checkpoint's own where this machine computes it"
    )
    attention: Literal[
        "auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"
    ] = option("auto", "How attention is computed; auto is the best that is there and fits")
    quantization: Quantization | None = option(
        None, "Quantize the weights by bitsandbytes while they are read"
    )
    device_map: str | dict[str, int | str] = option(
        "one",
        "one (the first GPU, else the CPU), auto, balanced, balanced_low_0, sequential, a device"
        " as torch names it, or a device for each module",
        keyed=False,
    )
    max_memory: dict[str, int | str] | None = option(
        None, "The most that each device may hold: {0: 20GB, cpu: 60GB}", keyed=False
    )
    trust_remote_code: Trust | None = option(
        None, "Run the code that this repository brings at this commit"
    )
    active: str | None = option(None, "The adapter in use; the first where left out")
    combine: Combination | None = option(None, "Use a weighted sum of the adapters")
    merge: bool = option(False, "Add the adapter to the weights, and have no adapter any more")
    preflight: bool = option(
        True, "Refuse what the memory cannot hold before any weight is fetched", keyed=False
    )


@dataclass(frozen=True)
class Loaded(Model):
    """A model that knows how it was loaded: the options of its key, attention as chosen."""

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


pins = pins_nothing
stale = never_stale


def resolve(options: Options, locked: Facts) -> Options:
    """Decide each `auto` as far as the hardware decides it."""
    found: dict[str, Any] = {}
    if options.dtype == "auto":
        found["dtype"] = "checkpoint" if hardware.computes_bfloat16() else "float32"
    if options.attention == "auto":
        from runner.models import attention

        found["attention"] = attention.best()
    return dataclasses.replace(options, **found) if found else options


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """Contradictions, missing libraries, code that is not what was trusted."""
    from runner.models import rules

    return rules.check(options, inputs)


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """No disk: the model is as large as its files; the memory of its weights."""
    base = inputs.get("base") or inputs["files"]
    size, origin = base.get("bytes", 0), base.get("origin", {})
    gives = {"bytes": size, "origin": origin, "load": options}
    gives |= {"config": base["config"]} if "config" in base else {}
    has_adapter = bool(inputs.get("base") or inputs.get("adapters"))
    gives |= {"adapted": True} if has_adapter and not options.merge else {}
    return Room(gives=gives, memory=partial(_claim, options, origin, size))


def _claim(options: Options, origin: Facts, size: int) -> Any:
    """What the weights take; None where that is not known yet, or not to be asked."""
    from runner.memory import preflight
    from runner.models import claim

    config = preflight.configuration(origin) if options.preflight else None
    return claim.claim(options, config, size) if config else None


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Loaded:
    """Read the weights."""
    begun = time.monotonic()
    loaded = _open(resolve(options, {}), inputs, context.note)
    context.facts |= _facts(loaded.model, begun)
    context.note(_said(context.facts))
    return loaded


def save(product: Loaded, folder: Path) -> None:
    """Keep how it was loaded; the weights lie where fetch put them."""
    files.write_json(folder / SETTINGS, product.settings)


def restore(folder: Path, inputs: Mapping[str, Any]) -> Loaded:
    """Load it again in the same way, on the devices that are asked for now."""
    kept, faults = build(Options, files.read_json(folder / SETTINGS))
    assert kept, faults
    now = getattr(inputs, "options", kept)
    placed = {name: getattr(now, name) for name in ("device_map", "max_memory")}
    return _open(dataclasses.replace(kept, preflight=False, **placed), inputs, _unsaid)


def _open(options: Options, inputs: Mapping[str, Any], note: Callable[[str], None]) -> Loaded:
    from runner.models import assembly

    made = assembly.assemble(options, inputs, note)
    settings = keyed(options) | {"attention": made.attention}
    return Loaded(made.model, made.tokenizer, made.folder, made.reference, settings)


def _unsaid(text: str) -> None:
    """What was said when it was loaded first is not said again."""


def _facts(model: Any, begun: float) -> dict[str, Any]:
    from runner.memory import shape
    from runner.models import placement

    config, method = model.config, getattr(model, "quantization_method", None)
    return {
        "parameters": shape.parameters_of(model),
        "dtype": str(config.dtype).removeprefix("torch."),
        "bytes": shape.held_by(model),
        "device": placement.devices(model),
        "attention": config._attn_implementation,
        "quantized": str(getattr(method, "value", method)) if method else None,
        "adapters": sorted(getattr(model, "peft_config", {})),
        "linear_width": products.linear_width(model),
        "load_seconds": round(time.monotonic() - begun, 3),
    }


def _said(facts: Mapping[str, Any]) -> str:
    """What was loaded, in one line."""
    parts = [
        f"{facts['parameters'] / 1e6:,.1f} M parameters",
        f"{facts['dtype']}{', ' + facts['quantized'] if facts['quantized'] else ''}",
        files.human_bytes(facts["bytes"]),
        f"on {facts['device']}",
        f"{facts['attention']} attention",
        f"{facts['load_seconds']:.1f} s",
    ]
    return ", ".join(parts)
