"""An adapter added to the weights that it sits on, so that a whole model comes out."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import files, products, quantized
from runner.errors import StepError
from runner.models import form

Note = Callable[[str], None]
ORDER = "Fetch the model unquantized, train on it, merge, and quantize last."


def is_mergeable(model: Any) -> bool:
    """Whether a model's adapter sits in its weights; a trained prompt does not."""
    return not any(config.is_prompt_learning for config in model.peft_config.values())


def check_base(model: Mapping[str, Any]) -> None:
    """StepError where nothing can be merged into a model's weights, by what is known of it now.

    `model` is what earlier steps say of it: its `config`, if that is known.
    """
    if (method := form.quantized_by(model.get("config") or {})) not in (None, "bitsandbytes"):
        raise _unmergeable(str(method))


def _unmergeable(method: str) -> StepError:
    return StepError(f"an adapter cannot be merged into weights quantized with {method}.", ORDER)


def merged(model: Any, note: Note) -> Any:
    """The plain model, with the active adapter added to its weights (arXiv:2106.09685, 4.1).

    It happens in place, layer by layer: beside the model there is never more than one layer's
    weight. An adapter on quantized weights is added to those that were quantized, read again from
    disk, or where they are not there to the dequantized ones; never to rounded ones. A model
    without an adapter is given back as it is. StepError where there is nothing to add.
    """
    if not hasattr(model, "peft_config"):
        return model
    if not is_mergeable(model):
        raise StepError("a trained prompt is part of no weight, so it cannot be merged.")
    if how := quantized.description(model.get_base_model()):
        model = _unquantized(model, how["method"], note)
    try:
        whole = model.merge_and_unload()
    except (NotImplementedError, ValueError) as error:
        raise StepError(f"the adapter cannot be merged: {error}") from error
    if broken := [name for name, each in whole.named_parameters() if not each.isfinite().all()]:
        raise StepError(f"merged, {broken[0]} is not finite; is the adapter?")
    whole.config._name_or_path = ""  # it is no longer what lies there
    return whole.requires_grad_(True).eval()


def _unquantized(model: Any, method: str, note: Note) -> Any:
    """The adapter on the weights that were quantized, or on what is left of them."""
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    name = model.active_adapters[0]
    form, state = model.peft_config[name], get_peft_model_state_dict(model, adapter_name=name)
    base = model.unload()
    if (source := _source(base)) is not None:
        note(f"merged into the weights as they were before {method}, read again")
        attention = base.config._attn_implementation
        whole = products.open_weights(source, dtype=base.dtype, attn_implementation=attention)
    elif method in ("nf4", "fp4", "int8"):
        note(f"merged into weights dequantized from {method}: those before it are not at hand")
        whole = base.dequantize(dtype=base.dtype)
    else:
        raise _unmergeable(method)
    adapted = get_peft_model(whole, form)
    set_peft_model_state_dict(adapted, state)
    return adapted


def _source(base: Any) -> Path | None:
    """The folder that a model was read from, if its weights lie there unquantized."""
    folder = Path(base.config._name_or_path or "-")
    config = folder / "config.json"
    if not config.exists() or not any(folder.glob("*.safetensors")):
        return None
    return None if "quantization_config" in files.read_json(config) else folder
