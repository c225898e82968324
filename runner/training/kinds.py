"""The methods of training, what each of them takes, and what can be known to be wrong with that."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner import quantized
from runner.errors import listing
from runner.options import Fault
from runner.quantizing import methods
from runner.recipe import Step
from runner.training.settings import Options

ANYTHING = "auto"
"""What `target_modules` says where it is left out."""
FIRST = "Train first and quantize what comes out, or take quantize.method=nf4 or awq"
INNER = {"layers": None}
MATRICES = {"rank": 8, "alpha": 16.0, "dropout": 0.0, "initialization": "kaiming", **INNER}
PROMPT = {"virtual_tokens": 20}


@dataclass(frozen=True)
class Kind:
    """One method.

    takes    the options that not every method has, with the value of each where it is left out
    peft     what peft calls it; empty where all weights are trained
    family   the methods whose adapters it goes on with
    """

    peft: str
    takes: Mapping[str, Any] = field(default_factory=dict)
    family: tuple[str, ...] = ()

    @property
    def sits_in_layers(self) -> bool:
        """Whether it adapts layers (and can be added to their weights)."""
        return "layers" in self.takes

    @property
    def is_prompt(self) -> bool:
        """Whether what is trained stands before the text and in no weight."""
        return "virtual_tokens" in self.takes


KINDS: Mapping[str, Kind] = {
    "lora": Kind("LORA", MATRICES, ("lora",)),
    "rslora": Kind("LORA", MATRICES, ("rslora",)),
    "dora": Kind("LORA", MATRICES, ("dora",)),
    "qlora": Kind(
        "LORA",
        {**MATRICES, "base": "nf4", "double_quantization": False},
        ("lora", "rslora", "dora"),
    ),
    "full": Kind("", {"master_weights": "float32"}),
    "ia3": Kind("IA3", {"feedforward_modules": (), **INNER}, ("ia3",)),
    "vera": Kind("VERA", {"rank": 256, "dropout": 0.0, **INNER}, ("vera",)),
    "prompt": Kind("PROMPT_TUNING", PROMPT, ("prompt",)),
    "prefix": Kind("PREFIX_TUNING", PROMPT, ("prefix",)),
    "ptuning": Kind("P_TUNING", PROMPT),
}
"""LoRA arXiv:2106.09685, rsLoRA arXiv:2312.03732, DoRA arXiv:2402.09353, QLoRA arXiv:2305.14314,
IA3 arXiv:2205.05638, VeRA arXiv:2310.11454, prompt tuning arXiv:2104.08691, prefix tuning
arXiv:2101.00190, P-tuning arXiv:2103.10385. P-tuning goes on with no adapter: its encoder, a
network that gives the prompt, is for training only, and its result is a prompt as that of `prompt`.
"""

SPECIAL = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.takes))
"""The options that not every method has."""


def value(options: Options, name: str) -> Any:
    """An option of this method as it was given, else what the method takes it to be."""
    given = getattr(options, name)
    return KINDS[options.method].takes[name] if given is None else given


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """What is wrong with the method's options and with the steps that it builds on."""
    own = (_foreign, _targets, _merge)
    faults = [fault for each in own for fault in each(options)]
    return [*faults, *_base(options, inputs), *_rows(options, inputs)]


def _foreign(options: Options) -> Iterator[Fault]:
    """Options of other methods."""
    for name in SPECIAL:
        if getattr(options, name) is None or name in KINDS[options.method].takes:
            continue
        owners = [method for method, kind in KINDS.items() if name in kind.takes]
        fact = f"{options.method} has no {name}; {listing(owners)} {_has(owners)}."
        yield Fault((name,), fact, f"Leave {name} out, or take another method.")


def _has(owners: list[str]) -> str:
    return "has it" if len(owners) == 1 else "have it"


def _targets(options: Options) -> Iterator[Fault]:
    """Layers are named only to what sits in them."""
    named = options.target_modules
    if named == ANYTHING:
        return
    if not KINDS[options.method].sits_in_layers:
        fact = f"{options.method} adapts no single layers, so none can be named."
        yield Fault(("target_modules",), fact, "Leave target_modules out.")
    elif not named:
        yield Fault(("target_modules",), "target_modules names no layer.", "All of them are: auto")
    for entry in ("all-linear", "all_linear"):
        if entry in named:
            guess = "Every linear layer is: target_modules=auto"
            yield Fault(("target_modules",), f'"{entry}" is peft\'s word.', guess)


def _merge(options: Options) -> Iterator[Fault]:
    if not options.merge or KINDS[options.method].sits_in_layers:
        return
    why = (
        "what it trains stands before the text and is part of no weight"
        if KINDS[options.method].is_prompt
        else "its result is a whole model already"
    )
    yield Fault(("merge",), f"{options.method} has nothing to merge: {why}.", "Leave merge out.")


def _base(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    """What the weights must and must not be."""
    if options.method == "qlora":
        if fact := quantized.lacking("qlora"):
            yield Fault(("method",), fact)
        if options.base == "int8" and options.double_quantization:
            yield Fault(("double_quantization",), "int8 has no double quantization.")
    for step in inputs.get("model", ()):
        if step.stage_name == "quantize" and not methods.of(step.options).adapts:
            how = step.options.method
            fact = f"{step.name} gives {how}: activations are rounded too, no gradient comes back."
            yield Fault(("model",), fact, FIRST)
    if options.method != "full":
        return
    if "adapter" in inputs:
        yield Fault(("adapter",), "full trains all weights and no adapter.", "Leave adapter out.")
    for step in inputs.get("model", ()):
        if step.stage_name == "quantize" or getattr(step.options, "quantization", None):
            fact = f"{step.name} gives quantized weights, and full cannot train them."
            yield Fault(("method",), fact, "Take a model that is not quantized, or: method=qlora")


def _rows(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    """A trained prompt stands before each row; rows packed into one would see only one."""
    for step in inputs.get("dataset", ()):
        if KINDS[options.method].is_prompt and getattr(step.options, "pack", False):
            fact = (
                f"{options.method} puts its prompt before whole rows, and {step.name} packs them."
            )
            yield Fault(("method",), fact, f"Leave them apart: {step.name}.pack=false")


def method_of(config: Mapping[str, Any]) -> str | None:
    """The method that an adapter's own configuration stands for; None for one unknown here."""
    kind = config.get("peft_type")
    if kind == "LORA":
        return _lora_of(config)
    return next((name for name, each in KINDS.items() if each.family and each.peft == kind), None)


def _lora_of(config: Mapping[str, Any]) -> str:
    if config.get("use_dora"):
        return "dora"
    return "rslora" if config.get("use_rslora") else "lora"
