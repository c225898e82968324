"""GPTQ (arXiv:2210.17323) by gptqmodel: layer by layer, and from the last finished one on."""

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import files, hardware, products
from runner.quantizing import shapes
from runner.quantizing.work import Work

CONFIG, OWN_CONFIG = "config.json", "quantize_config.json"
LEFT_OUT = ("offload_to_disk", "offload_to_disk_path")
"""What gptqmodel writes into a configuration that is of this machine alone."""


def quantize(work: Work) -> None:
    """Write the model, going on after the last layer that an earlier process has finished."""
    from gptqmodel.looper.checkpoint_store import CheckpointError

    source = _own(work.whole, work.scratch / "source")
    try:
        _make(work, source)
    except CheckpointError as error:
        work.note(f"what was finished before does not count, it begins anew: {error}")
        files.remove(work.scratch / "finished")
        _make(work, source)


def _own(whole: Path, folder: Path) -> Path:
    """The model as files and not as links out of its folder, which gptqmodel refuses to resume."""
    _empty(folder)
    for path in whole.iterdir():
        products.place(path.resolve(), folder / path.name)
    return folder


def _empty(folder: Path) -> Path:
    """The folder as a new one."""
    files.remove(folder)
    folder.mkdir()
    return folder


def _make(work: Work, source: Path) -> None:
    saved = _saved(work, source)
    hardware.release_memory()  # the model's, before its weights are read again
    _take(saved, source, work.target)


def _saved(work: Work, source: Path) -> Path:
    """The folder that gptqmodel writes."""
    from gptqmodel import GPTQModel

    model = GPTQModel.load(str(source), _config(work), trust_remote_code=False)
    shapes.insist(model.model, work.options)
    model.layer_callback = _Layers(model.model.config, work.progress)
    model.quantize(
        [{"input_ids": list(row), "attention_mask": [1] * len(row)} for row in work.rows],
        batch_size=1,
        calibration_data_min_length=0,  # otherwise it drops those of up to 10 tokens
        checkpoint=_checkpoint(model, work),
    )
    saved = _empty(work.scratch / "saved")
    model.save(str(saved))
    return saved


def _config(work: Work) -> Any:
    from gptqmodel import QuantizeConfig

    options = work.options
    return QuantizeConfig(
        bits=options.bits,
        group_size=options.group_size,
        sym=options.symmetric,
        act_group_aware=options.group_size != -1,  # the order of groups, of which there are none
        dynamic={f"-:.*{re.escape(part)}": {} for part in options.skip} or None,
        offload_to_disk=True,
        offload_to_disk_path=str(_empty(work.scratch / "offload")),
    )


def _checkpoint(model: Any, work: Work) -> Any | None:
    """Where finished layers are kept; None where gptqmodel keeps none of such a model."""
    from gptqmodel.looper.checkpoint_store import CheckpointConfig
    from gptqmodel.looper.gptq_checkpoint import validate_checkpoint_support

    finished = work.scratch / "finished"
    try:
        validate_checkpoint_support(model)
    except NotImplementedError:
        what = "where layers are skipped" if work.options.skip else "for models of this type"
        work.note(f"gptqmodel keeps no finished layers {what}: stopped, it begins anew")
        return None
    for left in finished.glob("attempt-*"):
        files.remove(left)
    return CheckpointConfig(path=str(finished))


class _Layers:
    """Tells how many layers are done; gptqmodel calls it."""

    def __init__(self, config: Any, progress: Callable[[float, float, str], None]) -> None:
        self.total = config.get_text_config().num_hidden_layers
        self.progress = progress

    def layer_complete(self, *, layer_idx: int, submodule_finalized: bool) -> None:
        if submodule_finalized:
            self.progress(layer_idx + 1, self.total, "layers")


def _take(saved: Path, source: Path, target: Path) -> None:
    """Write the weights in an order of their own, and configurations that are of no machine.

    gptqmodel's order depends on where it was resumed.
    """
    from huggingface_hub import save_torch_state_dict

    made = files.read_json(saved / CONFIG)
    said = _portable(made["quantization_config"])
    files.write_json(target / OWN_CONFIG, said)
    weights = _weights(saved)
    if said.get("dynamic"):  # which optimum does not read
        names = [name.removesuffix(".qweight") for name in weights if name.endswith(".qweight")]
        said = {**said, "modules_in_block_to_quantize": [names]}
    of_model = files.read_json(source / CONFIG)
    of_model.pop("torch_dtype", None)
    changed = {"dtype": made["dtype"], "quantization_config": said}
    files.write_json(target / CONFIG, {**of_model, **changed})
    generation = source / "generation_config.json"
    if generation.exists():
        shutil.copyfile(generation, target / generation.name)
    save_torch_state_dict(weights, target, max_shard_size="4GB")


def _portable(said: Mapping[str, Any]) -> dict[str, Any]:
    """What gptqmodel says of the quantization, without the paths of this machine."""
    meta = {name: value for name, value in said["meta"].items() if name not in LEFT_OUT}
    return {**said, "meta": meta}


def _weights(folder: Path) -> dict[str, Any]:
    """All weights of a folder by name, in order; they stay in its files until they are used."""
    from safetensors.torch import load_file

    found = [load_file(path) for path in folder.glob("*.safetensors")]
    return dict(sorted(pair for each in found for pair in each.items()))
