"""Each method as peft's configuration of it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from runner.errors import StepError, listing
from runner.training import kinds, objectives
from runner.training.methods import layers
from runner.training.methods.layers import Chosen, Skeleton
from runner.training.settings import Options

INITIALIZATIONS = {"kaiming": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}
"""What peft calls them; those that rewrite the base's weights (PiSSA, OLoRA) are not among them."""


def form(options: Options, skeleton: Skeleton) -> Any:
    """The peft configuration of a method on a model; StepError where it does not fit the model."""
    return _FORMS[options.method](options, skeleton)


def _lora(options: Options, skeleton: Skeleton) -> Any:
    from peft import LoraConfig

    chosen = layers.choose(skeleton, options)
    get = partial(kinds.value, options)
    if get("initialization") == "orthogonal" and get("rank") % 2:
        raise StepError("an orthogonal initialization takes an even rank.", "Set adapt.rank")
    return LoraConfig(
        task_type=objectives.task_type(options),
        r=get("rank"),
        lora_alpha=get("alpha"),
        lora_dropout=get("dropout"),
        init_lora_weights=INITIALIZATIONS[get("initialization")],
        use_rslora=options.method == "rslora",
        use_dora=options.method == "dora",
        **_targets(chosen, skeleton),
        **_experts(chosen, options, skeleton),
    )


def _experts(chosen: Chosen, options: Options, skeleton: Skeleton) -> dict[str, Any]:
    """Weights of experts, all in one tensor of three dimensions, take plain matrices only."""
    if not chosen.experts:
        return {}
    if options.method == "dora" or kinds.value(options, "dropout"):
        raise StepError(
            f"{chosen.experts[0]} holds all experts in one tensor, which takes neither DoRA nor"
            " dropout.",
            "Take adapt.method=lora without dropout, or leave the experts out.",
        )
    everything = [*skeleton.modules, *skeleton.experts]
    return {"target_parameters": layers.shortest(chosen.experts, everything)}


def _ia3(options: Options, skeleton: Skeleton) -> Any:
    from peft import IA3Config

    chosen = _without_experts(layers.choose(skeleton, options), options)
    inner: set[str] = set()
    for entry in kinds.value(options, "feedforward_modules"):
        found = layers.matching(entry, chosen.layers)
        if not found:
            guess = listing(layers.shortest(chosen.layers, skeleton.modules))
            raise StepError(f'feedforward_modules: "{entry}" fits none of ia3\'s layers.', guess)
        inner.update(found)
    feedforward = [path for path in chosen.layers if path in inner]
    return IA3Config(
        task_type=objectives.task_type(options),
        feedforward_modules=layers.shortest(feedforward, skeleton.modules),
        **_targets(chosen, skeleton),
    )


def _vera(options: Options, skeleton: Skeleton) -> Any:
    from peft import VeraConfig

    chosen = _without_experts(layers.choose(skeleton, options), options)
    return VeraConfig(
        task_type=objectives.task_type(options),
        r=kinds.value(options, "rank"),
        vera_dropout=kinds.value(options, "dropout"),
        projection_prng_key=options.seed,
        **_targets(chosen, skeleton),
    )


def _without_experts(chosen: Chosen, options: Options) -> Chosen:
    if chosen.experts:
        what = f"{chosen.experts[0]} holds all experts in one tensor"
        raise StepError(f"{what}, which {options.method} cannot adapt.", "Take adapt.method=lora")
    return chosen


def _targets(chosen: Chosen, skeleton: Skeleton) -> dict[str, Any]:
    names = layers.shortest(chosen.layers, skeleton.modules)
    return {"target_modules": names, "fan_in_fan_out": skeleton.transposed}


def _prompt(options: Options, skeleton: Skeleton) -> Any:
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type=objectives.task_type(options),
        num_virtual_tokens=kinds.value(options, "virtual_tokens"),
        prompt_tuning_init="SAMPLE_VOCAB",
    )


def _prefix(options: Options, skeleton: Skeleton) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(
        task_type=objectives.task_type(options),
        num_virtual_tokens=kinds.value(options, "virtual_tokens"),
    )


def _ptuning(options: Options, skeleton: Skeleton) -> Any:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(
        task_type=objectives.task_type(options),
        num_virtual_tokens=kinds.value(options, "virtual_tokens"),
    )


_FORMS: Mapping[str, Callable[[Options, Skeleton], Any]] = {
    **dict.fromkeys(("lora", "rslora", "dora", "qlora"), _lora),
    "ia3": _ia3,
    "vera": _vera,
    "prompt": _prompt,
    "prefix": _prefix,
    "ptuning": _ptuning,
}
