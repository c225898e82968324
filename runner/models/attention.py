"""How attention is computed: the best that this machine has and that the model's class knows."""

from collections.abc import Callable
from typing import Any

from runner import hardware
from runner.errors import StepError

OR = " or "
NEEDS = {
    "flash_attention_3": ("flash_attn_interface", (9, 0)),
    "flash_attention_2": ("flash_attn", (8, 0)),
}
"""The library and the least compute capability that each kind needs, best first."""
HALF = ("bfloat16", "float16")
"""The number formats that flash attention computes."""
SUPPORT = {
    "flash_attention_3": "_supports_flash_attn",
    "flash_attention_2": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
    "sdpa": "_supports_sdpa",
}
"""Where transformers' classes say what they know; every one knows eager."""


def best() -> str:
    """What this machine could compute, best first: `flash_attention_2 or sdpa or eager`."""
    flash = [name for name in NEEDS if is_installed(name) and _fits_gpus(name)]
    return OR.join([*flash, "sdpa", "eager"])


def is_installed(name: str) -> bool:
    """Whether the library that a kind of attention needs is there."""
    from importlib.util import find_spec

    return name not in NEEDS or find_spec(NEEDS[name][0]) is not None


def choose(wanted: str, kind: type, dtype: str, note: Callable[[str], None]) -> str:
    """The first of the kinds wanted that the model's class knows; one alone must be known.

    `dtype` is the number format of the weights.
    """
    names = wanted.split(OR)
    found = next((name for name in names if _is_known(name, kind, dtype)), None)
    if found is None:
        known = [name for name in (*SUPPORT, "eager") if _is_known(name, kind, dtype)]
        raise StepError(
            f"{kind.__name__} in {dtype} has no {wanted}; it has {', '.join(known)}.",
            "Have the best one chosen: load.attention=auto",
        )
    if len(names) > 1:
        passed = names[: names.index(found)]
        why = f" ({', '.join(passed)}: not for {kind.__name__} in {dtype})" if passed else ""
        note(f"attention: {found}{why}")
    return found


def class_of(config: Any, *, trust: bool) -> type:
    """The class of causal language models that a configuration stands for."""
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.auto_factory import _get_model_class

    mapping = AutoModelForCausalLM._model_mapping
    if type(config) in mapping:
        return _get_model_class(config, mapping)  # type: ignore[no-any-return]
    import torch

    with torch.device("meta"):
        return type(AutoModelForCausalLM.from_config(config, trust_remote_code=trust))


def _is_known(name: str, kind: type, dtype: str) -> bool:
    if name.startswith("flash") and dtype not in HALF:
        return False
    return name == "eager" or bool(getattr(kind, SUPPORT[name], False))


def _fits_gpus(name: str) -> bool:
    least = NEEDS[name][1]
    return bool(hardware.gpus()) and all(gpu.capability >= least for gpu in hardware.gpus())
