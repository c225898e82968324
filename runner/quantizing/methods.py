"""The table of methods: who makes each form, what it takes, and where the result opens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from runner import extras
from runner.errors import listing
from runner.options import Fault
from runner.quantizing.settings import Name, Options

ALIASES: Mapping[str, Name] = {"auto-gptq": "gptq"}
"""Other names: auto-gptq's last release (2024) does not import beside transformers 5."""
TRANSFORMERS, VLLM = "transformers", "vLLM"


@dataclass(frozen=True, kw_only=True)
class Method:
    """How one form of weights is made.

    module       the module beside this one whose `quantize(work)` makes it
    library      the library that does it
    extra        what of pyproject.toml brings the library; "" where the core does
    bits         those that there are, the usual first
    groups       the sizes of a group that there are, the usual first; none: nothing to choose
    symmetric    whether zero is always zero, as is usual; None: nothing to choose
    calibrates   whether it must see the model at work on rows
    adapts       whether an adapter can be trained on the result
    opens_in     what opens the result
    environment  what its process must be told before the library is imported
    """

    module: str
    library: str
    extra: str = ""
    bits: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    symmetric: bool | None = None
    calibrates: bool = False
    adapts: bool = True
    opens_in: tuple[str, ...] = (TRANSFORMERS, VLLM)
    environment: tuple[tuple[str, str], ...] = ()


GROUPS = (128, 32, 64, -1)
"""Sizes of a group; -1 is a whole row."""
GPTQMODEL = (
    ("GPTQMODEL_CPU_WORKERS", "2"),
    ("GPTQMODEL_DISABLE_PACK_EXT", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("TORCHDYNAMO_DISABLE", "1"),
)
"""With the 1 worker that it takes by itself on 2 cores, gptqmodel 7.6 raises ValueError; it would
have a compiler build what packs weights and what unpacks them, and ask the Hub for kernels."""

METHODS: Mapping[str, Method] = {
    "int8": Method(module="bnb", library="bitsandbytes", bits=(8,)),
    "nf4": Method(module="bnb", library="bitsandbytes", bits=(4,)),
    "fp4": Method(module="bnb", library="bitsandbytes", bits=(4,)),
    "gptq": Method(
        module="gptq",
        library="gptqmodel",
        extra="gptq",
        bits=(4, 8, 3, 2),
        groups=GROUPS,
        symmetric=True,
        calibrates=True,
        environment=GPTQMODEL,
    ),
    "awq": Method(
        module="compress",
        library="llm-compressor",
        extra="compress",
        bits=(4,),
        groups=GROUPS,
        symmetric=True,  # with zero points it does not open in transformers 5.23
        calibrates=True,
    ),
    "w8a8": Method(
        module="compress",
        library="llm-compressor",
        extra="compress",
        bits=(8,),
        calibrates=True,
        adapts=False,
    ),
    "fp8": Method(
        module="compress", library="llm-compressor", extra="compress", bits=(8,), adapts=False
    ),
    "torchao-int8": Method(module="ao", library="torchao", extra="torchao", bits=(8,)),
    "torchao-int4": Method(
        module="ao", library="torchao", extra="torchao", bits=(4,), groups=(32, 64, 128)
    ),
    "none": Method(module="whole", library=""),
}


def of(options: Options) -> Method:
    """The method that options name."""
    return METHODS[ALIASES.get(options.method, options.method)]


def quantize(method: Method) -> Any:
    """The function that makes the form: `quantize(work)`."""
    return import_module(f"runner.quantizing.{method.module}").quantize


def resolved(options: Options) -> Options:
    """The options with everything said that the method decides where it is left out."""
    method = of(options)
    name = ALIASES.get(options.method, options.method)
    return replace(
        options,
        method=name,
        bits=options.bits or next(iter(method.bits), None),
        group_size=options.group_size or next(iter(method.groups), None),
        symmetric=method.symmetric if options.symmetric is None else options.symmetric,
    )


def check(options: Options) -> Iterator[Fault]:
    """What a method does not know, and the library that is missing."""
    method, name = of(options), options.method
    if options.bits is not None and options.bits not in method.bits:
        yield Fault(("bits",), f"{name} has {_choice(method.bits) or 'no bits to choose'}.")
    if options.group_size is not None and options.group_size not in method.groups:
        groups = _choice(method.groups)
        fact = f"{name} has groups of {groups}." if groups else f"{name} has no groups to choose."
        yield Fault(("group_size",), fact)
    if options.symmetric is not None and method.symmetric is None:
        yield Fault(("symmetric",), f"symmetric means nothing to {name}.")
    if options.double_quantization and name not in ("nf4", "fp4"):
        yield Fault(("double_quantization",), f"{name} has no double quantization.")
    if lacking := missing(name):
        yield Fault((), f"{name} needs {method.library}: {lacking}")


def missing(name: Name) -> str | None:
    """A sentence with the pip line where a method's library is not installed."""
    extra = METHODS[ALIASES.get(name, name)].extra
    return extras.missing(extra) if extra else None


def _choice(values: tuple[int, ...]) -> str:
    return listing(sorted(map(str, values), key=int))
