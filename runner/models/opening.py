"""A model's folder, in whatever form, as a model in memory: whole, or an error that names what."""

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from runner import hardware, quantized
from runner.errors import StepError
from runner.models import autogptq
from runner.models.form import Form

SHOWN = 3


def configuration(form: Form, *, trust: bool = False) -> Any:
    """The transformers configuration of a folder; StepError where there is none to be read."""
    from transformers import AutoConfig

    if form.code and not trust:
        _check_is_known(form)
    of_gguf = {"gguf_file": form.gguf.name} if form.gguf else {}
    try:
        return AutoConfig.from_pretrained(
            form.folder, local_files_only=True, trust_remote_code=trust, **of_gguf
        )
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"{form.folder} does not open as a model: {error}") from error


def _check_is_known(form: Form) -> None:
    """Code of a repository's own is not needed where transformers has the same classes."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if form.config.get("model_type") not in CONFIG_MAPPING:
        raise StepError(
            f"the model brings code of its own ({some(set(form.code))}), which is not run.",
            "Read it; if you trust it, load.trust_remote_code: " + form.origin,
        )


def open_whole(
    form: Form,
    settings: Mapping[str, Any],
    note: Callable[[str], None] = lambda _: None,
    *,
    trust: bool = False,
    scores: bool = False,
    tight: bool = False,
) -> Any:
    """The model of a folder, in eval mode; StepError where a weight is not the checkpoint's.

    It is a causal language model, or with `scores` one that gives a number for a text. `settings`
    go to `from_pretrained`; `tight` takes longer and holds no more than is in use meanwhile, where
    weights are quantized as they come. transformers fills what a checkpoint
    lacks with random numbers and warns; here that is an error.
    """
    if form.gguf:
        return _open_gguf(form.gguf, settings)
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    try:
        holding = hardware.exact_memory() if tight else nullcontext()
        with autogptq.renamed(form.folder, form.config) as folder, holding:
            model, found = kind.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=trust,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with names
                **settings,
            )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise StepError(f"{form.folder} does not open as a model: {error}") from error
    model.config._name_or_path = str(form.folder)
    _check_whole(form.folder, found, note)
    quantized.keep_layout(model)
    quantized.unpack(model)
    return model.eval()


def _open_gguf(source: Path, settings: Mapping[str, Any]) -> Any:
    """The very weights that a conversion would have written, in the format asked for."""
    from runner import convert

    model = convert.open_gguf(source)
    model.set_attn_implementation(settings["attn_implementation"])
    if settings["dtype"] != "auto":
        import torch

        dtype = getattr(torch, settings["dtype"])
        for weight in model.parameters():  # buffers, such as the rotary angles, stay as they are
            weight.data = weight.data.to(dtype)
        model.config.dtype = dtype
    return model.to(settings["device_map"]).eval()


def _check_whole(folder: Path, found: Mapping[str, Any], note: Callable[[str], None]) -> None:
    if missing := found["missing_keys"]:
        raise StepError(f"{folder} has no weights for {some(missing)}; they would be random.")
    if mismatched := found["mismatched_keys"]:
        names = [str(each[0]) if isinstance(each, tuple) else str(each) for each in mismatched]
        raise StepError(f"{folder} has weights of another shape for {some(names)}.")
    if errors := found.get("error_msgs"):
        raise StepError(f"{folder} does not open as a model: {errors[0]}")
    if unused := found["unexpected_keys"]:
        note(f"weights that this model has no place for are left out: {some(unused)}")


def some(names: Collection[str]) -> str:
    """The first few names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def bitsandbytes(how: Mapping[str, Any], dtype: str) -> Any:
    """The configuration by which weights are quantized while they are read.

    `how` holds method, threshold, double_quantization and compute_dtype; a compute_dtype of
    "auto" is the `dtype` of the layers that stay whole.
    """
    compute = dtype if how["compute_dtype"] == "auto" else how["compute_dtype"]
    found = quantized.config(how["method"], how["double_quantization"], compute)
    if how["method"] == "int8":
        found.llm_int8_threshold = how["threshold"]
    return found


def dtype_of(config: Any) -> str:
    """The number format of a checkpoint's weights, as its configuration says it."""
    return str(config.dtype or "float32").removeprefix("torch.")
