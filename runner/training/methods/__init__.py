"""Which of a model's weights are trained: put on, taken off or merged, written, and read back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import merging, quantized
from runner.errors import StepError
from runner.training import kinds
from runner.training.methods import adapters, forms, gptq, layers
from runner.training.settings import Options

Note = Callable[[str], None]


def attach(model: Any, options: Options, note: Note, adapter: Path | None = None) -> Any:
    """The model with what is trained on it; `adapter` is the folder of one to go on with.

    A model that has an adapter already goes on with that one. StepError where a layer that is
    named is not there, where options contradict the adapter, or the weights cannot be trained.
    """
    if fact := quantized.unteachable(model):
        raise StepError(fact, kinds.FIRST)
    has_one = hasattr(model, "peft_config")
    if options.method == "full":
        return _whole(model, options)
    if has_one and adapter is not None:
        raise StepError("the model has an adapter, and adapter names another.", "Leave one out.")
    skeleton = None if has_one or adapter else layers.of_model(model)
    form = forms.form(options, skeleton) if skeleton else None  # before anything is changed
    model = _based(gptq.passing_gradients(model, options.method), options)
    if form is None or skeleton is None:
        note("going on with the adapter that is there" if has_one else "going on with an adapter")
        return adapters.go_on(model, options, adapter)
    if skeleton.experts and not getattr(form, "target_parameters", None):
        note(f"the experts ({skeleton.experts[0]}, ...) stay as they are: no linear layers")
    from peft import get_peft_model

    return get_peft_model(model, form)


def formats(model: Any) -> Mapping[str, Any]:
    """The number format of every weight, by name."""
    return {name: each.dtype for name, each in model.named_parameters()}


def finish(model: Any, options: Options, came_in: Mapping[str, Any], note: Note) -> Any:
    """The result of training: all weights in the formats they came in, an adapter merged if asked.

    Of P-tuning only the prompt that its encoder gives is left.

    float32 weights that came as bfloat16 are rounded here, once. Buffers stay as they are: a
    rotary embedding's frequencies are float32 in every model.
    """
    if options.method == "ptuning":
        return adapters.as_prompt(model)
    if options.method != "full":
        return merging.merged(model, note) if options.merge else model
    model.config._name_or_path = ""  # it is no longer what lies there
    for name, each in model.named_parameters():
        each.data = each.data.to(came_in[name])
    return model


def write(model: Any, folder: Path, reference: Mapping[str, Any] | None = None) -> None:
    """Write the adapter alone, as `peft.PeftModel.from_pretrained` opens it."""
    adapters.write(model, folder, reference)


def read(base: Any, folder: Path, held_in: Mapping[str, Any] | None = None) -> Any:
    """The adapter of a folder on its base, `held_in` the bitsandbytes format that it was put on."""
    base = gptq.passing_gradients(adapters.bare(base), "lora")
    if held_in and not quantized.description(base):
        quantized.quantize(base, held_in["method"], held_in["double_quantization"])
    return adapters.read(base, folder)


def _whole(model: Any, options: Options) -> Any:
    """All weights, in the number format in which they are trained."""
    import torch

    if hasattr(model, "peft_config"):
        raise StepError(
            "the model has an adapter, and full trains its weights.",
            "Merge it in the step that gives it: merge: true",
        )
    if quantized.description(model):
        raise StepError("full cannot train quantized weights.", "Take adapt.method=qlora")
    if kinds.value(options, "master_weights") == "float32":
        for each in model.parameters():
            each.data = each.data.to(torch.float32)
    return model.requires_grad_(True)


def _based(model: Any, options: Options) -> Any:
    """The model in the format that its adapter is to sit on."""
    if options.method != "qlora":
        return model
    if there := quantized.description(adapters.base_of(model)):
        _check_format(options, there)
        return model
    if hasattr(model, "peft_config"):
        raise StepError("the adapter sits on unquantized weights.", "Take adapt.method=lora")
    wanted = (kinds.value(options, name) for name in ("base", "double_quantization"))
    return quantized.quantize(model, *wanted)


def _check_format(options: Options, there: Mapping[str, Any]) -> None:
    """A base that is quantized already is taken as it is."""
    if options.base not in (None, there["method"]):
        raise StepError(
            f"the model is held in {there['method']} already, and base is {options.base}.",
            "Leave adapt.base out.",
        )
    double = there.get("double_quantization", False)
    if options.double_quantization not in (None, double):
        raise StepError(
            f"the model is held with double_quantization {str(double).lower()} already.",
            "Leave adapt.double_quantization out.",
        )
