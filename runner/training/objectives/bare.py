"""trl's Trainers with what they do beside training left out, and the model left as it was found."""

from collections.abc import Callable, Mapping
from typing import Any

from runner.errors import StepError

NEUTRAL = {"bf16": False, "gradient_checkpointing": False, "prediction_loss_only": True}
"""Where trl's configurations differ from TrainingArguments in what nobody here asked for."""


def build(kind: type, settings: Mapping[str, Any]) -> Any:
    """A Trainer or its configuration; StepError where trl finds that something does not fit it."""
    try:
        return kind(**settings)
    except ValueError as error:
        raise StepError(f"{str(error).splitlines()[0]}") from error


class Bare:
    """To be put before a Trainer of trl in the bases of a class.

    Rows are tokens already and are handed on unchanged; no telemetry is sent and no model card
    written. trl changes the model in place (its forward pass, dropout, an adapter `ref` that is a
    frozen copy); after training all of it is as it was.
    """

    def __init__(self, *, model: Any, **settings: Any) -> None:
        self._put_back = _found(model)
        weights = _rounded(model)
        super().__init__(model=model, **settings)  # type: ignore[call-arg]  # a Trainer's
        for parameter, value in weights:
            parameter.data = value
        if "ref" in getattr(model, "peft_config", {}) and _changes_nothing(model):
            model.delete_adapter("ref")  # the model without its adapter says the same

    def train(self, *given: Any, **named: Any) -> Any:
        """As the Trainer's own."""
        try:
            return super().train(*given, **named)  # type: ignore[misc]  # a Trainer's
        finally:
            self._put_back()

    def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
        return dataset

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *given: Any, **named: Any) -> None:
        """None."""


def _found(model: Any) -> Callable[[], None]:
    """What puts a model back to how it is now."""
    from torch.nn import Dropout

    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    forward = vars(inner).get("forward")
    drops = [(module, module.p) for module in model.modules() if isinstance(module, Dropout)]
    configs = [inner.config.get_text_config(), getattr(inner, "generation_config", None)]
    pads = [(config, config.pad_token_id) for config in configs if config is not None]

    def put_back() -> None:
        vars(inner).pop("forward", None)
        if forward is not None:
            inner.forward = forward
        for module, share in drops:
            module.p = share
        for config, token in pads:
            config.pad_token_id = token
        if "ref" in getattr(model, "peft_config", {}):
            model.delete_adapter("ref")

    return put_back


def _rounded(model: Any) -> list[tuple[Any, Any]]:
    """The weights that trl would round to bfloat16: those trained on a quantized model."""
    if not (
        getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    ):
        return []
    return [(each, each.data) for each in model.parameters() if each.requires_grad]


def _changes_nothing(model: Any) -> bool:
    """Whether an adapter is LoRA that still multiplies by a matrix of zeros."""
    last = [
        parameter
        for name, parameter in model.named_parameters()
        if ".default." in name and ("lora_B" in name or "lora_embedding_B" in name)
    ]
    if str(model.peft_config["default"].peft_type.value) != "LORA":
        return False
    return bool(last) and not any(parameter.any().item() for parameter in last)
