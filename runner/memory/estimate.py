"""What loading, training and answering take of memory, in bytes, from a configuration alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from runner.memory import peak, shape
from runner.memory.shape import BYTES, Held

STATES: Mapping[str, float] = {"adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "sgd": 0}
"""Bytes that an optimizer keeps for each trained number (two averages; 8 bits: bitsandbytes)."""

BAND = "on a CPU they came within 10 % of what was measured"
"""Of SmolLM2-135M, loaded, trained and asked in sixteen ways; docs/figures.md has them, medians of
three. One and the same training takes a few percent more or less from run to run: where a heap has
its holes is a matter of chance.
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


def to_load(config: Any, held: Held, **more: Any) -> Estimate:
    """Reading the weights; those of another format than the file's are copies of what is there."""
    model = shape.on_meta(config, held.dtype, **more)
    whole = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    copied = 0
    if held.method:
        copied = sum(layer.weight.numel() for layer in shape.inner_layers(model))
    elif not held.quantized and whole != held.dtype:
        copied = shape.parameters(model)
    mapped = BYTES.get(whole, 4) * copied
    return Estimate(weights=shape.weights(model, held), mapped=mapped)


def to_train(
    config: Any,
    held: Held,
    training: Training,
    attention: str = "sdpa",
    device: str = "cpu",
) -> Estimate:
    """One step, by going through it on fake tensors: any architecture, to the byte that it holds.

    Quantized layers are counted as whole ones whose largest is unpacked at a time. On the CPU
    each leaves a hole in the heap where it was unpacked, in every forward pass (so it was
    measured), for what comes after it stays.
    """
    model = shape.on_meta(config, held.dtype, attention)
    weights, unpacked = shape.weights(model, held), [0]
    if held.method or held.quantized:
        layers = [*shape.inner_layers(model)]
        unpacked = [BYTES[held.dtype] * layer.weight.numel() for layer in layers]
        for layer in layers if held.method == "int8" else ():
            layer.register_forward_hook(_keep_input)
    trained = model.requires_grad_(training.rank is None)
    if training.rank is not None:
        trained = _with_lora(model, training.rank)
    count = sum(each.numel() for each in trained.parameters() if each.requires_grad)
    size = 4 if training.rank is not None else BYTES[held.dtype]
    states = int(STATES[training.optimizer] * (count if size == 4 else count * size / 4))
    if training.rank is not None:
        weights += count * size
    held_live, grown = (found - count * size for found in _through(trained, training))
    activations = max(0, held_live) + max(unpacked)
    if device == "cpu":
        activations = grown + sum(unpacked) * (2 if training.gradient_checkpointing else 1)
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


def _keep_input(_: Any, given: tuple[Any, ...], made: Any) -> None:
    """As an int8 layer of bitsandbytes does, until the graph of the backward pass is let go."""
    if made.grad_fn is not None:
        made.grad_fn.metadata["given"] = given


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
