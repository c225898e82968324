"""How many rows are in memory at once: the one place that chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner import hardware
from runner.training import claims, world
from runner.training.settings import Options

CPU_TOKENS = 512
"""Tokens at once on a CPU, where more make a step slower: of 8 rows of up to 700 tokens, one at a
time took 5.4 s and 2.3 GB with SmolLM2-135M on 2 cores, two 6.2 s, four 7.1 s, all 19 s and 8.8 GB.
"""
USABLE = 0.85
"""Of the free memory; the rest is for what kernels take by themselves and for holes."""
CLEAR = 4
"""How many times what the rule of thumb says must be free for nothing else to be asked."""
PER_LAYER = 34
"""Bytes of activations of a token, layer and hidden value in 16 bits (arXiv:2205.05198, 4.1)."""
PER_LOGIT = 10
"""Bytes for each entry of the vocabulary: 16 bits, a copy in 32 bits and its gradient."""


@dataclass(frozen=True)
class Fit:
    """What fits: rows at once, and whether activations are computed twice for it."""

    micro_batch_size: int
    gradient_checkpointing: bool


def fit(options: Options, model: Any, lengths: Sequence[int]) -> Fit:
    """As many rows as fit into what is free now, as a power of two; the loop corrects it downwards.

    Activations are kept where the whole effective batch then fits, or 8 rows at least, or as many
    as are asked for.
    """
    effective, longest = options.effective_batch_size, max(lengths, default=1) or 1
    asked = options.micro_batch_size
    if options.objective == "kto":  # whose rows are compared with the others in memory
        asked = effective
    wanted = asked or min(8, effective)
    twice = _is_twice(options, model, longest, wanted)
    if asked is not None:
        return Fit(asked, twice)
    rows = _rows(options, model, longest, effective, checkpointing=twice)
    return Fit(effective if rows >= effective else _power_of_two(rows), twice)


def _is_twice(options: Options, model: Any, longest: int, wanted: int) -> bool:
    """Whether activations are computed twice: where they are too many to be kept, on a GPU."""
    chosen = options.gradient_checkpointing
    if chosen != "auto":
        return bool(chosen)
    if not hardware.gpus():
        return False
    return _rows(options, model, longest, wanted, checkpointing=False) < wanted


def _rows(options: Options, model: Any, longest: int, most: int, *, checkpointing: bool) -> int:
    """How many rows of the longest length fit, up to `most`.

    What a step takes grows by as much with every row, so that one and two rows tell of all.
    """
    most = most if hardware.gpus() else min(most, max(1, CPU_TOKENS // longest))
    free, by_thumb = _free(), longest * bytes_per_token(model.config, checkpointing)
    if most == 1 or free is None or CLEAR * by_thumb * most < free:
        return most
    room = int(USABLE * free)
    one, two = (
        claims.beside_weights(options, model, longest, rows, checkpointing=checkpointing)
        for rows in (1, 2)
    )
    if one is None or two is None:
        return min(most, room // by_thumb)
    return min(most, 1 + (room - one) // max(1, two - one)) if one <= room else 0


def _free() -> int | None:
    """Bytes that are free now where the model is; processes on one CPU share what it has."""
    if not hardware.gpus():
        free = hardware.free_memory("cpu")
        return free and free // world.size()
    import torch

    hardware.release_memory()
    return int(torch.cuda.mem_get_info()[0])


def bytes_per_token(config: Any, checkpointing: bool) -> int:
    """The memory that a trained token takes while its step is computed, by a rule of thumb."""
    text = config.get_text_config()
    hidden, layers = text.hidden_size, text.num_hidden_layers
    kept = (
        layers * hidden * 2 + hidden * PER_LAYER if checkpointing else layers * hidden * PER_LAYER
    )
    return int(kept + text.vocab_size * PER_LOGIT)


def _power_of_two(count: int) -> int:
    return 1 << max(0, count.bit_length() - 1)
