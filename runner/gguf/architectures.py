"""What llama.cpp calls each kind of model, and where it computes otherwise than transformers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import listing

FULL, WINDOW = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One kind of model, as llama.cpp computes it: what a configuration asks for must be this.

    name          what llama.cpp calls it
    activations   what its feed-forward layers may use, by the names of transformers
    ropes         the kinds of scaled positions that it knows
    pairs         whether positions turn neighbours, where transformers turns halves: rows of q and
                  k change places
    norm_offset   what transformers adds to the weights of norms while it computes
    period        every period-th layer attends to everything, those between to a window; 0: all do
    tied          whether the last matrix can only be the first
    square        whether all heads together are as wide as the model
    biases        whether projections may have biases beyond those that transformers always gives
    large         the number of layers of the one size that scales its attention by width
    """

    name: str
    activations: tuple[str, ...] = ("silu",)
    ropes: tuple[str, ...] = ("default", "linear", "yarn")
    pairs: bool = False
    norm_offset: float = 0.0
    period: int = 0
    tied: bool = False
    square: bool = False
    biases: bool = False
    large: int = 0


GELU = ("gelu_pytorch_tanh",)
LLAMA = Architecture(
    name="llama", ropes=("default", "linear", "yarn", "llama3"), pairs=True, biases=True
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": Architecture(name="qwen2", square=True),
    "qwen3": Architecture(name="qwen3"),
    "gemma2": Architecture(
        name="gemma2",
        activations=GELU,
        ropes=("default",),
        norm_offset=1.0,
        period=2,
        tied=True,
        large=46,
    ),
    "gemma3_text": Architecture(
        name="gemma3",
        activations=GELU,
        ropes=("default", "linear"),
        norm_offset=1.0,
        period=6,
        tied=True,
        large=62,
    ),
}
"""By the `model_type` of transformers. Each is tested against transformers and llama.cpp."""


def of(config: Any) -> Architecture:
    """The architecture of a configuration that `problems` finds nothing wrong with."""
    return ARCHITECTURES[config.model_type]


def problems(config: Any) -> Iterator[str]:
    """What a configuration asks for that llama.cpp would compute otherwise, silently."""
    if config.model_type not in ARCHITECTURES:
        yield f"its architecture is {config.model_type}; there are {listing(list(ARCHITECTURES))}"
        return
    if getattr(config, "quantization_config", None) is not None:
        yield "its weights are quantized already"
    known = of(config)
    yield from (said for differs, said in DIFFERENCES if differs(config, known))


def rope(config: Any, layers: str = FULL) -> dict[str, Any]:
    """The settings of positions, for one kind of layer where a model has two."""
    found = config.rope_parameters
    return dict(found.get(layers, found))


def head_size(config: Any) -> int:
    """Values of one head."""
    return int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )


def _other_activation(config: Any, known: Architecture) -> bool:
    name = getattr(config, "hidden_activation", None) or config.hidden_act
    return name not in known.activations


def _other_rope(config: Any, known: Architecture) -> bool:
    settings = rope(config)
    return (
        settings.get("rope_type", "default") not in known.ropes
        or settings.get("partial_rotary_factor", 1.0) != 1.0
        or (settings.get("rope_type") == "yarn" and not _is_plain(settings))
        or _other_in_windows(config)
    )


def _is_plain(settings: Mapping[str, Any]) -> bool:
    """Whether nothing is said of YaRN but how much and from where; the rest has two meanings."""
    said = {name for name, value in settings.items() if value is not None}
    needed = {"rope_type", "rope_theta", "factor", "original_max_position_embeddings"}
    return said - {"partial_rotary_factor"} == needed


def _other_in_windows(config: Any) -> bool:
    return rope(config, WINDOW) != rope(config) and (
        rope(config, WINDOW).get("rope_type", "default") != "default"
    )


def _other_layers(config: Any, known: Architecture) -> bool:
    if not known.period:
        return False
    count = range(1, config.num_hidden_layers + 1)
    return list(config.layer_types) != [WINDOW if n % known.period else FULL for n in count]


def _other_scale(config: Any, known: Architecture) -> bool:
    scale = getattr(config, "query_pre_attn_scalar", None)
    if scale is None:
        return False
    large = config.num_hidden_layers == known.large
    width = config.hidden_size // config.num_attention_heads
    return bool(scale != (width if large else head_size(config)))


def _other_cap(config: Any, known: Architecture) -> bool:
    return known.name == "gemma3" and getattr(config, "attn_logit_softcapping", None) is not None


def _other_width(config: Any, known: Architecture) -> bool:
    return known.square and head_size(config) * config.num_attention_heads != config.hidden_size


def _untied(config: Any, known: Architecture) -> bool:
    return known.tied and not config.tie_word_embeddings


def _has_biases(config: Any, known: Architecture) -> bool:
    return not known.biases and bool(getattr(config, "attention_bias", False))


def _looks_ahead(config: Any, _known: Architecture) -> bool:
    return bool(getattr(config, "use_bidirectional_attention", False))


DIFFERENCES: tuple[tuple[Callable[[Any, Architecture], bool], str], ...] = (
    (_other_activation, "its feed-forward layers use an activation that llama.cpp does not"),
    (_other_rope, "llama.cpp does not scale its positions so"),
    (_other_layers, "its windows of attention are in other layers than llama.cpp puts them"),
    (_other_scale, "llama.cpp scales its attention otherwise"),
    (_other_cap, "llama.cpp does not cap its attention"),
    (_other_width, "its heads together are not as wide as the model, as llama.cpp expects"),
    (_untied, "its last matrix is not its first, as llama.cpp expects"),
    (_has_biases, "its attention has biases that llama.cpp leaves out"),
    (_looks_ahead, "it attends in both directions"),
)
