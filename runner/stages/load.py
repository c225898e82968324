"""Load a model and its tokenizer onto this machine's device."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner import files, hardware, products
from runner.errors import StepError
from runner.options import option
from runner.products import Files, Model
from runner.stage import Context, Facts, Need, Room, checks_nothing, never_stale, pins_nothing

NEEDS: Mapping[str, Need] = {"files": Need(kind="files", part="model", restores=True)}
GIVES = "model"
VERSION = 1
PARTS = False
HOLDS = True

SETTINGS = "load.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the weights are held in memory."""

    dtype: Literal["auto", "checkpoint", "bfloat16", "float16", "float32"] = option(
        "auto", "Number format; auto is the checkpoint's own where this machine computes it"
    )
    attention: Literal["sdpa", "eager"] = option("sdpa", "How attention is computed")


check = checks_nothing
pins = pins_nothing
stale = never_stale


def resolve(options: Options, locked: Facts) -> Options:
    """Decide `auto` by what the hardware computes."""
    if options.dtype != "auto":
        return options
    native = hardware.computes_bfloat16()
    return dataclasses.replace(options, dtype="checkpoint" if native else "float32")


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """Nothing; the model is as large as its files."""
    return Room(gives={"bytes": inputs["files"].get("bytes", 0)} | _config(inputs["files"]))


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Model:
    """Read the weights."""
    loaded = _open(inputs["files"], options.dtype, options.attention)
    if loaded.tokenizer.chat_template is None:
        raise StepError("the model's tokenizer has no chat template.")
    context.facts |= {
        "parameters": loaded.model.num_parameters(),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "bytes": loaded.model.get_memory_footprint(),
        "device": str(loaded.model.device),
        "linear_width": _linear_width(loaded.model),
    }
    return loaded


def _linear_width(model: Any) -> int:
    """Inputs and outputs of all linear layers but the last: an adapter's parameters per rank."""
    from torch.nn import Linear

    layers = [each for each in model.modules() if isinstance(each, Linear)]
    inner = [each for each in layers if each is not model.get_output_embeddings()]
    return sum(each.in_features + each.out_features for each in inner)


def save(product: Model, folder: Path) -> None:
    """Keep how it was loaded; the weights lie where fetch put them."""
    config = product.model.config
    files.write_json(
        folder / SETTINGS,
        {
            "dtype": "checkpoint" if product.folder else str(config.dtype).removeprefix("torch."),
            "attention": config._attn_implementation,
        },
    )


def restore(folder: Path, inputs: Mapping[str, Any]) -> Model:
    """Load it again in the same way."""
    settings = files.read_json(folder / SETTINGS)
    return _open(inputs["files"], settings["dtype"], settings["attention"])


def _config(facts: Facts) -> dict[str, Any]:
    return {"config": facts["config"]} if "config" in facts else {}


def _open(source: Files, dtype: str, attention: str) -> Model:
    folder = source.folder
    try:
        opened = products.open_model(
            folder,
            dtype="auto" if dtype == "checkpoint" else dtype,
            attn_implementation=attention,
        )
    except (OSError, ValueError) as error:
        raise StepError(f"{folder} does not open as a model: {error}") from error
    opened = dataclasses.replace(opened, reference=source.reference)
    # in another number format it is no longer the model that lies in the folder
    return opened if dtype == "checkpoint" else dataclasses.replace(opened, folder=None)
