"""How many rows are in memory at once: the one place that chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner import hardware
from runner.training.settings import Options

CPU_TOKENS = 512
"""Tokens at once on a CPU, where more make a step slower: of 8 rows of up to 700 tokens, one at a
time took 5.4 s and 2.3 GB with SmolLM2-135M on 2 cores, two 6.2 s, four 7.1 s, all 19 s and 8.8 GB.
"""
USABLE = 0.7
"""Of the free memory; the rest is for gradients, the optimizer and what is not reckoned with."""
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
    """As many rows as fit by a rule of thumb, as a power of two; the loop corrects it downwards.

    Activations are kept where the whole effective batch then fits, or 8 rows at least.
    """
    chosen, effective = options.gradient_checkpointing, options.effective_batch_size
    longest = max(lengths, default=1) or 1
    wanted = min(8, effective)
    plain = _rows(model, longest, checkpointing=False)
    checkpointing = plain < wanted if chosen == "auto" else bool(chosen)
    if not hardware.gpus() and chosen == "auto":
        checkpointing = False
    if options.objective == "kto":  # whose rows are compared with the others in memory
        return Fit(effective, checkpointing)
    if options.micro_batch_size is not None:
        return Fit(options.micro_batch_size, checkpointing)
    rows = _rows(model, longest, checkpointing=checkpointing)
    return Fit(effective if rows >= effective else _power_of_two(rows), checkpointing)


def _rows(model: Any, longest: int, *, checkpointing: bool) -> int:
    """How many rows of the longest length fit."""
    if not hardware.gpus():
        return max(1, CPU_TOKENS // longest)
    import torch

    free, _ = torch.cuda.mem_get_info()
    return int(USABLE * free / (longest * bytes_per_token(model.config, checkpointing)))


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
