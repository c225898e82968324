"""Which layers a method sits in: found in the model's skeleton, before any weight is read."""

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.errors import StepError, did_you_mean, listing
from runner.training.kinds import ANYTHING
from runner.training.settings import Options

NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
SHOWN = 12


@dataclass(frozen=True)
class Skeleton:
    """Paths in a model: every module, its linear layers, weights of three dimensions (experts).

    The output layer is one of the linear layers only where its weight is its own, not that of
    the embeddings. `transposed` says that linear layers are Conv1D, as in GPT-2.
    """

    modules: tuple[str, ...]
    linear: tuple[str, ...]
    experts: tuple[str, ...]
    output: str
    transposed: bool

    @property
    def auto(self) -> list[str]:
        """Every linear layer but the output layer."""
        return [path for path in self.linear if path != self.output]


def of_model(model: Any) -> Skeleton:
    """The skeleton of a model in memory, whatever its layers have been replaced by."""
    return _skeleton(type(model), model.config)


def of_config(config: Mapping[str, Any]) -> Skeleton | None:
    """The skeleton that a config.json stands for; None where transformers has no such model."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING or "auto_map" in config:
        return None
    made = CONFIG_MAPPING[kind].from_dict(dict(config))
    if type(made) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    found = MODEL_FOR_CAUSAL_LM_MAPPING[type(made)]
    return _skeleton(found[0] if isinstance(found, tuple) else found, made)


def _skeleton(kind: Any, config: Any) -> Skeleton:
    """Build the model on the meta device, where weights have shapes and no bytes."""
    import torch
    from transformers.pytorch_utils import Conv1D

    config = copy.deepcopy(config)
    vars(config).pop("quantization_config", None)
    with torch.device("meta"):
        model = kind(config)
    output = model.get_output_embeddings()
    is_tied = bool(config.tie_word_embeddings)
    modules = [(path, each) for path, each in model.named_modules() if path]
    linear = [(p, m) for p, m in modules if isinstance(m, (torch.nn.Linear, Conv1D))]
    return Skeleton(
        modules=tuple(path for path, _ in modules),
        linear=tuple(path for path, m in linear if not (is_tied and m is output)),
        experts=tuple(path for path, each in model.named_parameters() if each.dim() == 3),
        output=next((path for path, each in linear if each is output), ""),
        transposed=any(isinstance(each, Conv1D) for _, each in linear),
    )


@dataclass(frozen=True)
class Chosen:
    """The layers of a choice, and the experts' weights, in the model's order."""

    layers: tuple[str, ...]
    experts: tuple[str, ...] = ()


def choose(skeleton: Skeleton, options: Options) -> Chosen:
    """The layers that options ask for; StepError where a name or a number finds none."""
    wanted = options.target_modules
    if wanted == ANYTHING:
        found = Chosen(tuple(skeleton.auto))
        if not found.layers:
            raise StepError("the model has no linear layer beside its output layer.")
    else:
        assert not isinstance(wanted, str)
        found = _named(skeleton, wanted)
    return found if options.layers is None else _numbered(found, options.layers)


def matching(entry: str, paths: Sequence[str]) -> list[str]:
    """The paths that are this name, end with it, or fit it whole as a regular expression."""
    ending = f".{entry}"
    found = [path for path in paths if path == entry or path.endswith(ending)]
    if found:
        return found
    try:
        pattern = re.compile(entry)
    except re.error as error:
        raise StepError(f'target_modules: "{entry}" is no regular expression: {error}.') from error
    return [path for path in paths if pattern.fullmatch(path)]


def names(skeleton: Skeleton) -> list[str]:
    """The last parts of the paths of what can be named, each once."""
    paths = [*skeleton.linear, *skeleton.experts]
    return list(dict.fromkeys(path.rpartition(".")[2] for path in paths))


def _named(skeleton: Skeleton, wanted: Sequence[str]) -> Chosen:
    layers: set[str] = set()
    experts: set[str] = set()
    for entry in wanted:
        linear, inner = matching(entry, skeleton.linear), matching(entry, skeleton.experts)
        if not linear and not inner:
            raise _unmatched(entry, skeleton)
        layers.update(linear)
        experts.update(inner)
    return Chosen(
        tuple(path for path in skeleton.linear if path in layers),
        tuple(path for path in skeleton.experts if path in experts),
    )


def _unmatched(entry: str, skeleton: Skeleton) -> StepError:
    known = names(skeleton)
    shown = listing(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
    guess = did_you_mean(entry.rpartition(".")[2], known)
    fact = f'target_modules: "{entry}" fits no linear layer of the model. {guess}'.rstrip()
    return StepError(fact, f"Its linear layers are named: {shown}")


def _numbered(found: Chosen, numbers: Sequence[int]) -> Chosen:
    paths = [*found.layers, *found.experts]
    there = {number for path in paths if (number := _number(path)) is not None}
    if missing := [number for number in numbers if number not in there]:
        last = f" from 0 to {max(there)}" if there else " none"
        raise StepError(f"layers: there is no layer {missing[0]}; there are{last}.")
    return Chosen(
        tuple(path for path in found.layers if _number(path) in numbers),
        tuple(path for path in found.experts if _number(path) in numbers),
    )


def _number(path: str) -> int | None:
    found = NUMBER.search(path)
    return int(found[1]) if found else None


def shortest(paths: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The fewest and shortest endings that fit these paths and nothing else, sorted.

    Adapters keep their layers so, as `q_proj`; other programs than peft understand these names.
    """
    chosen, all_of_them = _endings(paths), _endings(everything)
    found = set()
    for path in paths:
        endings = list(_endings_of(path))
        fitting = (each for each in endings if chosen[each] == all_of_them[each])
        found.add(next(fitting, path))
    return sorted(found)


def _endings(paths: Sequence[str]) -> Counter[str]:
    return Counter(each for path in paths for each in _endings_of(path))


def _endings_of(path: str) -> Iterator[str]:
    """From the last part on: `q_proj`, `self_attn.q_proj`, ..."""
    parts = path.split(".")
    for begin in range(len(parts) - 1, -1, -1):
        yield ".".join(parts[begin:])
