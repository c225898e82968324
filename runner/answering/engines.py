"""What runs a model: the same requests and settings, whichever it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runner import products
from runner.answering.asking import Request, Tokens
from runner.answering.ending import Hear
from runner.answering.settings import Options
from runner.stage import Context


@dataclass(frozen=True)
class Drawn:
    """The tokens of one answer, and whatever came after it; a log-probability for each."""

    ids: Sequence[int]
    logprobs: Sequence[float] | None = None


class Engine(Protocol):
    """Answers batches of requests."""

    tokens: Tokens
    limit: int | None
    """The most tokens of a prompt with its answer; None where there is no such limit."""

    def ready(self, longest: int) -> None:
        """Prepare for so many tokens of a prompt with its answer."""

    def width(self, length: int) -> int:
        """The tokens that a prompt of this length is padded to; only equal ones share a batch.

        0 of an engine that mixes prompts of any length.
        """

    def rows(self, width: int) -> int:
        """How many prompts of this width are answered together."""

    def answer(self, batch: Sequence[Request], hear: Hear | None = None) -> list[Drawn]:
        """The answers to prompts of one width, in their order; `hear` gets the first as it grows.

        Beams and guessed tokens, which may be taken back, and an engine in a process of its own
        tell nothing before the end.
        """

    def close(self) -> None:
        """Let go of what the engine itself has opened."""


def of(options: Options, inputs: Mapping[str, Any], context: Context) -> Engine:
    """The engine that the options name, with the model that it runs."""
    if options.engine == "llama.cpp":
        from runner.answering import with_llama

        return with_llama.opened(options, inputs["gguf"].folder)
    model = inputs["model"]
    if "dataset" in inputs and inputs["dataset"].template is not None:
        model = products.with_template(model, inputs["dataset"].template)
    if options.engine == "vllm":
        from runner.answering.with_vllm import Vllm

        return Vllm(options, model, context)
    from runner.answering.with_transformers import Transformers

    assistant = inputs.get("assistant")
    return Transformers(options, model, assistant)


def room(options: Options, limit: int | None, prompt: int) -> int:
    """How many tokens an answer may have after a prompt of so many."""
    left = options.max_new_tokens if limit is None else limit - prompt
    return min(options.max_new_tokens, left)
