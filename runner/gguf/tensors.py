"""The tensors of a model: read one at a time, changed to what llama.cpp computes with, written."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from runner import files
from runner.errors import StepError
from runner.gguf.architectures import Architecture
from runner.gguf.kinds import Kind
from runner.gguf.settings import rope_factors

CHUNK = 1 << 24
"""Values that are converted at once: 64 MiB in float32."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ENDS = ("token_embd.weight", "output.weight")
NO_WEIGHTS = re.compile(r"rotary_emb\.inv_freq$")
SUFFIX = re.compile(r"\.(weight|bias)$")
HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file: its name, shape and form there, and how to get its values."""

    name: str
    shape: tuple[int, ...]
    form: str
    values: Callable[[], Any]

    def bytes(self) -> int:
        """Bytes in the file."""
        import gguf

        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[self.form]]
        count = 1
        for length in self.shape:
            count *= length
        return count // int(block) * int(size)


class Rows:
    """A tensor for `GGUFWriter.write_tensor_data`, converted while it is written, row by row."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.nbytes = tensor, tensor.bytes()

    def tofile(self, file: IO[bytes]) -> None:
        """Write all rows."""
        values = self.tensor.values()
        step = max(1, CHUNK // max(1, values[:1].numel()))
        for rows in values.split(step):
            file.write(_converted(rows, self.tensor).tobytes())


def found(folder: Path, config: Any, known: Architecture, kind: Kind) -> Iterator[Tensor]:
    """Every tensor of the file, in the order of the source's names.

    StepError where the model has one that llama.cpp has no name for.
    """
    import gguf

    architecture = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == known.name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for path, source, shape in sorted(_stored(folder), key=lambda each: _order(each[1])):
        if NO_WEIGHTS.search(source) or (config.tie_word_embeddings and source == "lm_head.weight"):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise StepError(f"llama.cpp's {known.name} has no place for {source}.")
        yield Tensor(name, shape, form(name, shape, kind), _values(path, source, config, known))
    factors = rope_factors(config)
    if factors is not None:
        import torch

        yield Tensor("rope_freqs.weight", factors.shape, "F32", lambda: torch.from_numpy(factors))


def check_whole(every: Iterable[Tensor], config: Any) -> None:
    """StepError unless all layers are there, each with the same tensors, and both ends."""
    names = {tensor.name for tensor in every}
    layers = Counter(name.split(".")[1] for name in names if name.startswith("blk."))
    needed = {ENDS[0], "output_norm.weight"} | set(ENDS[1:] * (not config.tie_word_embeddings))
    if (
        len(layers) != config.num_hidden_layers
        or len(set(layers.values())) != 1
        or not needed <= names
    ):
        raise StepError(f"weights are missing: {len(layers)} layers were found, in safetensors.")


def form(name: str, shape: tuple[int, ...], kind: Kind) -> str:
    """The form that one tensor has in a kind: vectors stay whole, rows that do not divide are F16.

    llama.cpp computes with vectors in float32 only.
    """
    import gguf

    if len(shape) == 1 or name.endswith("_norm.weight"):
        return "F32"
    wanted = kind.ends if name in ENDS else kind.matrices
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[wanted]]
    return "F16" if shape[-1] % block else wanted


def stored_form(folder: Path) -> str:
    """The form that holds the largest of a model's numbers as they are: F32, BF16 or F16."""
    from safetensors import safe_open

    kinds = set()
    for path in _files(folder):
        with safe_open(path, framework="pt") as file:
            kinds |= {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return kinds.pop() if len(kinds) == 1 and kinds <= {"F16", "BF16"} else "F32"


def _order(source: str) -> list[Any]:
    """Layers by number, not by letters."""
    return [
        (part.isdecimal(), int(part) if part.isdecimal() else part) for part in source.split(".")
    ]


def _files(folder: Path) -> list[Path]:
    """The files that transformers reads; some repositories hold the weights in another form too."""
    index = files.read_json(folder / INDEX)
    if index:
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    return [folder / WEIGHTS] if (folder / WEIGHTS).exists() else []


def _stored(folder: Path) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    from safetensors import safe_open

    for path in _files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  the file is no mapping
                yield path, name, tuple(file.get_slice(name).get_shape())


def _values(path: Path, source: str, config: Any, known: Architecture) -> Callable[[], Any]:
    return partial(_read, path, source, _change(source, config, known))


def _read(path: Path, source: str, change: Callable[[Any], Any] | None) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        values = file.get_tensor(source)
    return change(values) if change else values


def _change(source: str, config: Any, known: Architecture) -> Callable[[Any], Any] | None:
    """What a tensor must become before it means in llama.cpp what it means in transformers."""
    layer = SUFFIX.sub("", source).rsplit(".", 1)[-1]
    if known.pairs and layer in HEADS:
        return partial(_in_pairs, heads=getattr(config, HEADS[layer]))
    if known.norm_offset and layer.endswith("norm"):
        return lambda values: values.float() + known.norm_offset
    return None


def _in_pairs(values: Any, heads: int) -> Any:
    """Put the two halves of each head's rows side by side: 0 2 4 1 3 5 -> 0 1 2 3 4 5."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.transpose(1, 2).reshape(values.shape)


def _converted(rows: Any, tensor: Tensor) -> Any:
    """Rows in the form of the file, as numpy. StepError where they hold no finite numbers then."""
    import gguf
    import numpy as np
    import torch

    if rows.dtype == torch.bfloat16 and tensor.form == "BF16":
        _refuse_unless(bool(torch.isfinite(rows).all()), tensor)
        return rows.contiguous().view(torch.int16).numpy()
    values = rows.float().contiguous().numpy()
    _refuse_unless(bool(np.isfinite(values).all()), tensor)
    with np.errstate(over="ignore"):
        made = gguf.quants.quantize(values, gguf.GGMLQuantizationType[tensor.form])
    _refuse_unless(tensor.form != "F16" or bool(np.isfinite(made).all()), tensor)
    return made


def _refuse_unless(finite: bool, tensor: Tensor) -> None:
    if not finite:
        raise StepError(
            f"{tensor.name} holds numbers that {tensor.form} cannot.",
            "If they are finite, bf16 and f32 hold them.",
        )
