"""What training will take on disk, and whether the layers it names are there: known beforehand."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

from runner import files, merging
from runner.errors import StoreError
from runner.stage import Facts, Room
from runner.store import default_root
from runner.training import kinds
from runner.training.kinds import ANYTHING
from runner.training.settings import Options

if TYPE_CHECKING:
    from runner.training.methods.layers import Skeleton

MOST = 20
"""How many models' skeletons are remembered at most."""
BYTES = {"float32": 4}
"""Of a weight; every other number format that is trained in has 2."""


def room(options: Options, model: Facts) -> Room:
    """What is trained in float32, and with AdamW's two averages in every checkpoint.

    StepError where a layer that is named is not among the model's, if its config is known by now.
    """
    _check_layers(options, model)
    if options.merge:
        merging.check_base(model)
    parameters = model.get("parameters", model.get("bytes", 0) // 2)
    whole = parameters * BYTES.get(model.get("dtype", ""), 2)
    if options.method == "full":
        trained = whole if options.master_weights == "loaded" else 4 * parameters
    else:
        trained = 4 * _adapter(options, model.get("linear_width", 0))
    becomes_whole = options.merge or options.method == "full"
    return Room(
        kept=whole if becomes_whole else trained,
        work=3 * trained * (options.keep_checkpoints + 1),
        gives={**_whole(model), "bytes": whole} if becomes_whole else {**model, "adapted": True},
    )


def _whole(model: Facts) -> Facts:
    """What is known of a model once it has no adapter any more and nothing quantized."""
    config = {k: v for k, v in model.get("config", {}).items() if k != "quantization_config"}
    return {**model, **({"config": config} if config else {}), "adapted": False}


def _adapter(options: Options, width: int) -> int:
    """The most parameters of an adapter on layers of so many inputs and outputs together.

    VeRA's two projections, which all layers share, are not in it; nor is a prompt.
    """
    kind = kinds.KINDS[options.method]
    if kind.is_prompt:
        return 0
    ranks = kinds.value(options, "rank") if "alpha" in kind.takes else 1
    return int(width * (ranks + (options.method == "dora")))


def _check_layers(options: Options, model: Facts) -> None:
    config = model.get("config")
    if not config or (options.target_modules == ANYTHING and options.layers is None):
        return
    from runner.training.methods import layers

    if skeleton := _skeleton(config):
        layers.choose(skeleton, options)


def _skeleton(config: Mapping[str, Any]) -> "Skeleton | None":
    """The skeleton of a model, remembered on disk: to build one costs the import of torch."""
    from runner.training.methods import layers

    place = default_root() / "skeletons.json"
    known = _read(place)
    name = files.digest_json([config, metadata.version("transformers")])[:32]
    if name in known:
        found = known[name]
        return layers.Skeleton(**{k: _frozen(v) for k, v in found.items()}) if found else None
    made = layers.of_config(config)
    rows = {**known, name: asdict(made) if made else None}
    try:
        files.make_folder(place.parent)
        files.write_json(place, dict(list(rows.items())[-MOST:]))
    except (OSError, StoreError):
        pass  # a memory that cannot be written only costs time
    return made


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _read(place: Any) -> dict[str, Any]:
    try:
        found = files.read_json(place)
    except StoreError:
        return {}
    return found if isinstance(found, dict) else {}
