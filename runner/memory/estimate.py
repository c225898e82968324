"""What loading, training and answering take of memory, in bytes, from a configuration alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from runner.memory import peak, shape
from runner.memory.shape import BYTES, Held

STATES: Mapping[str, float] = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "sgd": 0}
"""Bytes that an optimizer keeps for each trained number (two averages; 8 bits: bitsandbytes)."""

UNPACKING = 1.55
"""How much more than its tensors a step takes on the CPU where layers are quantized: each is
unpacked between the others, which is not gone through. Measured with nf4 and 4 x 128 tokens: 1.7.
"""
BAND = (
    "on a CPU, training came within 10 % of what was measured and QLoRA within 18 %;"
    " loading as nf4 took up to 2.4 times as much"
)
"""How near `peak` came on SmolLM2-135M on the CPU (tools/memory.py, medians of three): LoRA -7 % to
+8 %, full +6 %, QLoRA -18 %. One and the same training took 1.9 to 2.2 GB from run to run: where a
heap has its holes is a matter of chance. So is how many tensors wait to be packed as nf4: loading
took 327 to 775 MB.
"""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One step of training.

    rank                    of a LoRA on all linear layers; None trains every weight
    micro_batch_size        rows that go through the model together
    max_length              tokens of the longest row
    """

    rank: int | None
    micro_batch_size: int
    max_length: int
    gradient_checkpointing: bool = False
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "sgd"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Answers to a batch of prompts; lengths in tokens."""

    batch_size: int
    prompt_length: int
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes, by what they are for; how near they come is measured by tools/memory.py.

    `activations` are all that forward and backward pass hold beside the weights at their peak,
    logits and the gradients that are there by then counted in; `mapped` is the part of the
    checkpoint's files that is mapped while it is read, which the system can take back.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    cache: int = 0
    mapped: int = 0

    @property
    def needed(self) -> int:
        """What must be there."""
        return self.peak - self.mapped

    @property
    def peak(self) -> int:
        """The most that is resident."""
        return sum(getattr(self, f.name) for f in fields(self))


def to_load(config: Any, held: Held, device: str = "cpu", **more: Any) -> Estimate:
    """Reading the weights; those of another format than the file's are copies of what is there.

    bitsandbytes casts what becomes int8 to float16 first, and on the CPU that much stays taken.
    """
    model = shape.on_meta(config, held.dtype, **more)
    whole = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    copied = 0
    if held.method:
        copied = sum(layer.weight.numel() for layer in shape.inner_layers(model))
    elif not held.quantized and whole != held.dtype:
        copied = shape.parameters(model)
    mapped = BYTES.get(whole, 4) * copied
    cast = 2 * copied if held.method == "int8" and device == "cpu" else 0
    return Estimate(weights=shape.weights(model, held), activations=cast, mapped=mapped)


def to_train(
    config: Any,
    held: Held,
    training: Training,
    attention: str = "sdpa",
    device: str = "cpu",
) -> Estimate:
    """One step, by going through it on fake tensors: any architecture, to the byte that it holds.

    Quantized layers are counted as whole ones whose largest is unpacked at a time.
    """
    model = shape.on_meta(config, held.dtype, attention)
    weights, unpacked = shape.weights(model, held), 0
    if held.method or held.quantized:
        unpacked = BYTES[held.dtype] * max(x.weight.numel() for x in shape.inner_layers(model))
    trained = model.requires_grad_(training.rank is None)
    if training.rank is not None:
        trained = _with_lora(model, training.rank)
    count = sum(each.numel() for each in trained.parameters() if each.requires_grad)
    size = 4 if training.rank is not None else BYTES[held.dtype]
    states = int(STATES[training.optimizer] * (count if size == 4 else count * size / 4))
    if training.rank is not None:
        weights += count * size
    held_live, grown = (found - count * size for found in _through(trained, training))
    activations = max(0, held_live) + unpacked
    if device == "cpu":
        activations = max(grown + unpacked, int(UNPACKING * activations) if unpacked else 0)
    return Estimate(
        weights=weights,
        optimizer=states,
        gradients=count * size,
        activations=activations,
    )


def to_answer(config: Any, held: Held, answering: Answering, attention: str = "sdpa") -> Estimate:
    """The prompts in one pass, then token by token with a cache of keys and values."""
    import torch

    model = shape.on_meta(config, held.dtype, attention).eval()
    weights, batch = shape.weights(model, held), answering.batch_size
    with peak.watched(model) as seen, torch.no_grad():
        before = seen.now
        ids = torch.zeros(batch, answering.prompt_length, dtype=torch.long)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found = model(**given, use_cache=True, logits_to_keep=1)
        at_most = seen.most - before
        cached = _bytes_of(found.past_key_values)
    length = answering.prompt_length + answering.max_new_tokens
    cache = cached * length // answering.prompt_length
    scores = 3 * 4 * batch * int(config.get_text_config().vocab_size)
    return Estimate(weights=weights, cache=cache, activations=max(at_most - cache, scores))


def _bytes_of(cache: Any) -> int:
    """What a cache of transformers holds, of whatever kind its layers are."""
    values = (value for layer in cache.layers for value in vars(layer).values())
    return sum(value.nbytes for value in values if hasattr(value, "nbytes"))


def _with_lora(model: Any, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    how = LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules="all-linear")
    return get_peft_model(model, how)


def _through(model: Any, training: Training) -> tuple[int, int]:
    """The most that a forward and a backward pass hold beside the weights, and take on the CPU.

    There are holes between tensors there; a GPU's memory is cut and joined by torch itself.
    """
    import torch

    model.train()
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        if training.rank is not None:
            model.enable_input_require_grads()
    with peak.watched(model) as seen:
        before = seen.now
        ids = torch.zeros(training.micro_batch_size, training.max_length, dtype=torch.long)
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss
        loss.backward()
        return seen.most - before, seen.grown
