"""An adapter's own folder: written, read back, and gone on with."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import StepError, listing
from runner.training import kinds
from runner.training.kinds import ANYTHING
from runner.training.settings import Options

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OWN = {
    "rank": ("r",),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout", "vera_dropout"),
    "virtual_tokens": ("num_virtual_tokens",),
}
"""The options that an adapter's configuration has already decided, and its names for them."""
DECIDED = ("layers", "initialization", "feedforward_modules")
"""Options that say where a new adapter sits and how it begins: one that is there is past that."""
PLAIN = (True, False, "gaussian", "orthogonal")
"""The initializations of LoRA that leave the base's weights alone."""


def write(model: Any, folder: Path, reference: Mapping[str, Any] | None = None) -> None:
    """Write the adapter alone, the same bytes on every machine and in every store.

    `reference` names the Hub repository and commit of its base, if it came from there.
    """
    name = model.active_adapters[0]
    model.save_pretrained(folder, selected_adapters=[name], save_embedding_layers=False)
    if (inner := folder / name) != folder and inner.is_dir():
        for path in inner.iterdir():
            shutil.move(path, folder / path.name)
        inner.rmdir()
    (folder / "README.md").unlink(missing_ok=True)  # peft's model card names local paths
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = reference["repo"] if reference else None
    config["revision"] = reference["commit"] if reference else None
    for entry, value in config.items():
        config[entry] = sorted(value) if _is_set(entry, value) else value
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _is_set(entry: str, value: Any) -> bool:
    """What peft keeps as a set, in an order that changes from process to process."""
    return entry.endswith(("_modules", "_parameters")) and isinstance(value, list)


def read(base: Any, folder: Path) -> Any:
    """The adapter of a folder on its base; one that the base has already gives way to it."""
    from peft import PeftModel

    return PeftModel.from_pretrained(bare(base), folder, low_cpu_mem_usage=False)


def bare(model: Any) -> Any:
    """The model without its adapter."""
    if not hasattr(model, "peft_config"):
        return model
    return model.unload() if hasattr(model.base_model, "unload") else model.get_base_model()


def as_prompt(model: Any) -> Any:
    """The model with the prompt that a P-tuning encoder gives, and without the encoder.

    That is what peft keeps of one; as a trained prompt it can be written, and gone on with.
    """
    from peft import PromptTuningConfig, get_peft_model

    name, form = model.active_adapters[0], model.active_peft_config
    prompt = model.eval().get_prompt_embedding_to_save(name)
    plain = PromptTuningConfig(
        task_type=form.task_type,
        num_virtual_tokens=form.num_virtual_tokens,
        prompt_tuning_init="RANDOM",
    )
    made = get_peft_model(model.get_base_model(), plain)
    kept = made.prompt_encoder[made.active_adapters[0]].embedding.weight
    kept.data = prompt.to(kept)
    return made


def go_on(model: Any, options: Options, folder: Path | None) -> Any:
    """The model with the adapter of the folder, or its own, to be trained further.

    It stays what it is: StepError where options contradict it, or its tensors do not fit.
    """
    from peft import get_peft_model, set_peft_model_state_dict

    form, state = _of_folder(folder) if folder is not None else _of_model(model)
    _compare(options, form.to_dict())
    form.inference_mode = False
    adapted = get_peft_model(bare(model), form)
    try:
        found = set_peft_model_state_dict(adapted, state)
    except (KeyError, RuntimeError) as error:
        said = str(error).strip().splitlines()[-1].strip()
        raise StepError(f"the adapter does not fit this model: {said}") from error
    if not form.is_prompt_learning:  # its one tensor was there, or there was an error
        _check_whole(adapted, found)
    return adapted


def _check_whole(adapted: Any, found: Any) -> None:
    """Every tensor of the adapter has its place, and every place its tensor."""
    trained = {name for name, each in adapted.named_parameters() if each.requires_grad}
    lacking, extra = sorted(trained & {*found.missing_keys}), sorted(found.unexpected_keys)
    if lacking or extra:
        names = listing((lacking or extra)[:3])
        what = "has no weights for" if lacking else "has weights that find no place:"
        raise StepError(f"the adapter does not fit this model: it {what} {names}.")


def _of_folder(folder: Path) -> tuple[Any, Mapping[str, Any]]:
    from peft import PeftConfig
    from safetensors.torch import load_file

    if not (folder / CONFIG).exists() or not (folder / WEIGHTS).exists():
        raise StepError(
            f"{folder} holds no adapter: it needs {CONFIG} and {WEIGHTS}.",
            "Adapters in pickles (.bin) are not read: write it again with save_pretrained.",
        )
    config = files.read_json(folder / CONFIG)
    if kinds.method_of(config) is None:
        raise StepError(f"adapters of kind {config.get('peft_type')} cannot be gone on with.")
    return PeftConfig.from_pretrained(str(folder)), load_file(folder / WEIGHTS)


def _of_model(model: Any) -> tuple[Any, Mapping[str, Any]]:
    from peft import get_peft_model_state_dict

    active = model.active_adapters
    if len(active) != 1:
        raise StepError(f"several adapters are active ({listing(active)}); merge them first.")
    state = get_peft_model_state_dict(model, adapter_name=active[0])
    return model.peft_config[active[0]], {name: each.clone() for name, each in state.items()}


def _compare(options: Options, config: Mapping[str, Any]) -> None:
    """StepError at the first option that an adapter contradicts."""
    method = kinds.method_of(config)
    if method not in kinds.KINDS[options.method].family:
        raise StepError(
            f"the adapter to go on with is {method}, and the method is {options.method}.",
            f"Set adapt.method={method}",
        )
    if (how := config.get("init_lora_weights", True)) not in PLAIN:
        raise StepError(f"the adapter began by {how}, which rewrote its base's weights.")
    for name, their in OWN.items():
        given = getattr(options, name)
        has = next((config[each] for each in their if each in config), None)
        if given is not None and given != has:
            raise _contradiction(name, f"is {given}, and the adapter to go on with has {has}")
    for name in DECIDED:
        if getattr(options, name) is not None:
            raise _contradiction(name, "is for a new adapter, and this one goes on")
    if options.target_modules != ANYTHING:
        raise _contradiction("target_modules", "is for a new adapter, and this one goes on")


def _contradiction(name: str, fact: str) -> StepError:
    return StepError(f"{name} {fact}.", f"Leave adapt.{name} out: an adapter stays what it is.")


def base_of(model: Any) -> Any:
    """The model under an adapter; one without is its own."""
    return model.get_base_model() if hasattr(model, "peft_config") else model
