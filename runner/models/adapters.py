"""Adapters on a base: one or several, weighed against one another, merged into the weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import StepError
from runner.models import opening
from runner.models.form import ADAPTER
from runner.products import Files

WEIGHTS = "adapter_model.safetensors"
COMBINED = "combined"
"""What peft calls the weighted sum of several adapters."""


def base_of(adapter: Path) -> str | None:
    """The repository or folder that an adapter was trained on, as its own configuration says."""
    config = files.read_json(adapter / ADAPTER)
    if not isinstance(config, Mapping):
        raise StepError(f"{adapter} holds no adapter: {ADAPTER} is missing or cannot be read.")
    return config.get("base_model_name_or_path") or None


def check(adapter: Files, base: Files, name: str, note: Callable[[str], None]) -> None:
    """Refuse what is no adapter, or a pickled one; say it where it was made for another base."""
    meant = base_of(adapter.folder)
    if not (adapter.folder / WEIGHTS).exists():
        raise StepError(
            f"the adapter {name} has no {WEIGHTS}; pickled adapters (.bin) are not read.",
            "Write it again with peft's save_pretrained, which writes safetensors.",
        )
    given = base.reference["repo"] if base.reference else None
    if meant and given and meant != given:
        note(f"the adapter {name} says that its base is {meant}, and it is put on {given}")


def put_on(model: Any, adapters: Mapping[str, Path]) -> Any:
    """The model as a peft model with these adapters, the first of them active, in eval mode.

    Every tensor of an adapter must have its place in the model, and every place its tensor.
    """
    from peft import PeftConfig, get_peft_model

    for name, folder in adapters.items():
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        config.base_model_name_or_path = None  # compared already; peft warns of our folder's name
        try:
            if hasattr(model, "peft_config"):
                model.add_adapter(name, config)
            else:
                model = get_peft_model(model, config, adapter_name=name)
            found = model.load_adapter(str(folder), name, torch_device="cpu")
        except (ValueError, RuntimeError) as error:
            said = str(error).strip().splitlines()
            raise StepError(f"the adapter {name} does not fit its base: {said[-1]}") from error
        _check_whole(name, found)
    return model.eval()


def combine(
    model: Any, weights: Mapping[str, float], method: str, density: float | None = None
) -> None:
    """Make the weighted sum of adapters active; StepError where peft cannot make it of these."""
    try:
        model.add_weighted_adapter(
            [*weights], [*weights.values()], COMBINED, combination_type=method, density=density
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise StepError(f"these adapters cannot be combined ({method}): {error}") from error
    model.set_adapter(COMBINED, inference_mode=True)


def _check_whole(name: str, found: Any) -> None:
    for what, keys in (("lacks", found.missing_keys), ("has no place for", found.unexpected_keys)):
        if keys:
            subject = f"the adapter {name}" if what == "lacks" else "the base"
            raise StepError(f"{subject} {what} {opening.some(keys)}.")
