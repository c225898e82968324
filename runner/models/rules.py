"""What can be known to be wrong with the options of `load` before anything is fetched or read."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner import extras
from runner.errors import StepError, did_you_mean, listing
from runner.models import attention, form, placement
from runner.options import Fault
from runner.recipe import Step

COMMIT = re.compile(r"[0-9a-f]{40}")
FIRST = "Merge into unquantized weights, then quantize: a quantize step after this one."
DENSE = ("ties", "dare_linear", "dare_ties", "magnitude_prune")


def check(options: Any, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """All faults of the options and of what can be seen of the inputs."""
    return [
        *_quantization(options),
        *_attention(options),
        *_placement(options),
        *_trust(options, inputs),
        *_adapters(options, inputs),
        *_local(options, inputs),
    ]


def name_of(step: str) -> str:
    """What an adapter is called: the part of fetch that brings it."""
    return step.rpartition(".")[2]


def refused(options: Any, found: form.Form, *, adapted: bool) -> str | None:
    """Why a folder cannot be loaded by these options; its small files tell."""
    if options.quantization and found.quantized:
        return f"its weights are quantized with {found.quantized} already; leave quantization out"
    if options.quantization and found.gguf:
        return "a GGUF file is quantized anew only once it is converted: convert_gguf=true"
    if found.gguf and not placement.is_one(options.device_map):
        return "a GGUF file goes onto one device; convert it: convert_gguf=true"
    if options.merge and adapted and found.quantized:
        return f"an adapter is not merged into weights quantized with {found.quantized}. {FIRST}"
    return form.lacking(found.quantized)


def _quantization(options: Any) -> Iterator[Fault]:
    how = options.quantization
    if how is None:
        return
    if how.method == "int8":
        for name, is_set in (
            ("double_quantization", how.double_quantization),
            ("compute_dtype", how.compute_dtype != "auto"),
        ):
            if is_set:
                yield Fault(("quantization", name), f"{name} means nothing to int8.")
    elif how.threshold != 6.0:
        yield Fault(("quantization", "threshold"), f"threshold means nothing to {how.method}.")
    if options.merge:
        yield Fault(("merge",), f"an adapter is not merged into quantized weights. {FIRST}")


def _attention(options: Any) -> Iterator[Fault]:
    name = options.attention
    if name != "auto" and not all(map(attention.is_installed, name.split(attention.OR))):
        yield Fault(("attention",), f"{name} needs a library: {extras.missing('flash') or name}")


def _placement(options: Any) -> Iterator[Fault]:
    if found := placement.fault(options.device_map, options.max_memory):
        yield Fault((found[0],), found[1])


def _trust(options: Any, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    trust, where = options.trust_remote_code, ("trust_remote_code",)
    if trust is None:
        return
    if not COMMIT.fullmatch(trust.commit):
        yield Fault((*where, "commit"), f'"{trust.commit}" is no commit: 40 digits of 0-9a-f.')
        return
    for step in inputs.get("base") or inputs.get("files", ()):
        repo = getattr(step.options, "repo", None)
        commits = {getattr(step.options, name, None) for name in ("commit", "revision")}
        if repo != trust.repo:
            fact = f"{step.name} brings {repo or 'no repository'}, and {trust.repo} is trusted."
            yield Fault((*where, "repo"), fact)
        elif trust.commit not in commits:
            fact = f"{step.name} does not say that it brings this commit."
            yield Fault((*where, "commit"), fact, f"Set {step.name}.commit={trust.commit}")


def _adapters(options: Any, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    names = [name_of(step.name) for step in inputs.get("adapters", ())]
    names += ["model"] if inputs.get("base") else []
    for name, count in Counter(names).items():
        if count > 1:
            yield Fault(("adapters",), f'two adapters are called "{name}"; rename one\'s part.')
    if not names:
        for option in ("merge", "active", "combine"):
            if getattr(options, option):
                yield Fault(
                    (option,), f"{option} needs adapters: [fetch.NAME], and there are none."
                )
        return
    if options.active and options.combine:
        yield Fault(("active",), "active and combine exclude each other: the sum is what is used.")
    asked = [("active", options.active)] if options.active else []
    asked += [("combine", name) for name in (options.combine.weights if options.combine else ())]
    for option, name in asked:
        if name not in names:
            guess = did_you_mean(name, names) or f"They are: {listing(names)}."
            yield Fault((option,), f'{option}: there is no adapter "{name}".', guess)
    yield from _density(options.combine)


def _density(combine: Any) -> Iterator[Fault]:
    if combine is None:
        return
    where, is_given = ("combine", "density"), combine.density is not None
    if is_given and combine.method not in DENSE:
        yield Fault(where, f"density means nothing to {combine.method}.")
    if not is_given and combine.method in DENSE:
        yield Fault(where, f"{combine.method} needs a density: the share of values kept.")


def _local(options: Any, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    """What the small files of a local folder tell already."""
    for step in inputs.get("base") or inputs.get("files", ()):
        path = getattr(step.options, "path", None)
        if not isinstance(path, Path) or not path.is_dir():
            continue
        try:
            found = form.read(path)
        except StepError as error:
            yield Fault((), error.fact)
            continue
        if why := refused(options, found, adapted=bool(inputs.get("adapters"))):
            yield Fault((), f"{path}: {why}.".replace("..", "."))
