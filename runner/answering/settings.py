"""The options of answers, and which of them mean nothing beside which others."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runner import extras, files, hardware
from runner.options import Fault, option, plain
from runner.recipe import Step
from runner.stage import Facts, writes_text


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked, and how answers are drawn."""

    prompts: tuple[str, ...] = option((), "The prompts themselves, instead of the rows held out")
    file: Path | None = option(
        None,
        "A file of prompts: a text with one a line, or .jsonl with a `prompt` or `messages` each,"
        " and an `expected` answer if there is one",
        keyed=False,
    )
    file_digest: str | None = option(None, "blake3 of that file, found where left out")
    chat: bool | None = option(
        None, "Ask by the chat template; where left out, of a tokenizer that has one"
    )
    rows: int | None = option(None, "Only the first prompts", at_least=1)
    prefix: str = option("", "How every answer begins; the model goes on from there")
    samples: int = option(1, "Answers to each prompt, all drawn", at_least=1)
    max_new_tokens: int = option(64, "The longest answer, in tokens", at_least=1)
    min_new_tokens: int = option(0, "The shortest answer, in tokens", at_least=0)
    stop: tuple[str, ...] = option((), "Texts that end an answer, and are left out of it")
    temperature: float = option(0.0, "0 is greedy: always the likeliest token", at_least=0)
    top_p: float = option(
        1.0, "Draw from the likeliest tokens of this total", at_least=0, at_most=1
    )
    top_k: int = option(0, "Draw from this many of the likeliest tokens; 0 is all", at_least=0)
    min_p: float = option(
        0.0,
        "Draw from tokens at least this likely, measured by the likeliest one",
        at_least=0,
        at_most=1,
    )
    beams: int = option(1, "Answers followed at once, of which the likeliest is taken", at_least=1)
    length_penalty: float = option(
        1.0, "Beams: the power of the length by which an answer's log-likelihood is divided"
    )
    repetition_penalty: float = option(
        1.0, "Above 1, what was said or asked is less likely (arXiv:1909.05858)", at_least=0.01
    )
    no_repeat_ngram_size: int = option(
        0, "No so many tokens in a row twice in prompt and answer; 0 is no limit", at_least=0
    )
    json_schema: dict[str, Any] | None = option(None, "Answers are JSON of this schema")
    regex: str | None = option(None, "Answers match this regular expression, from end to end")
    prompt_lookup: int = option(
        0, "Tokens guessed at once from repetitions in the text, one row at a time", at_least=0
    )
    logprobs: bool = option(
        False, "Keep each token's log-probability, by the model and before any other setting"
    )
    seed: int = option(0, "Decides what is drawn, for each row by itself", at_least=0)
    engine: Literal["transformers", "vllm", "llama.cpp"] = option(
        "transformers", "What runs the model; llama.cpp takes GGUF files"
    )
    batch_size: int | Literal["auto"] = option(
        "auto", "Rows answered together; auto is what fits", keyed=False
    )
    memory_share: float = option(
        0.8,
        "vllm: the most that it takes of the memory that is free, of the GPU's or the machine's",
        at_least=0.05,
        at_most=1,
        keyed=False,
    )
    gpus: int = option(1, "vllm: GPUs that hold a part of each layer", at_least=1, keyed=False)


NOT_OF_ONE_ANSWER = (
    "prompts",
    "file",
    "file_digest",
    "rows",
    "samples",
    "logprobs",
    "prompt_lookup",
    "engine",
    "batch_size",
    "memory_share",
    "gpus",
)
"""What says which answers there are, or how fast they come, and not what a single one is."""
EXTRAS: Mapping[str, str] = {"vllm": "vllm", "llama.cpp": "gguf"}
"""The extra that brings each engine; transformers is always there."""
OURS = ("transformers", "llama.cpp")
"""The engines whose scores come to us before a token is chosen."""
DRAWING: Mapping[str, Any] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "samples": 1}
"""Options that mean something for drawn answers alone, and what they are where they are unused."""


def of_one_answer(options: Options) -> dict[str, Any]:
    """The options that a row's id is made of, as plain values."""
    found: dict[str, Any] = plain(options)
    return {name: value for name, value in found.items() if name not in NOT_OF_ONE_ANSWER}


def resolve(options: Options, locked: Facts) -> Options:  # noqa: ARG001  the protocol
    """Find what the file of prompts says now."""
    digest = files.digest(options.file) if options.file else None
    return dataclasses.replace(options, file_digest=digest)


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """Options that contradict one another, missing inputs and libraries."""
    found = [*_sources(options, inputs), *_drawing(options), *_beams(options)]
    found += [*_constraints(options), *_guessing(options, inputs), *_engine(options, inputs)]
    if options.file_digest is not None:
        found.append(Fault(("file_digest",), "file_digest is found, and not given."))
    if options.batch_size != "auto" and options.batch_size < 1:
        found.append(Fault(("batch_size",), "batch_size must be at least 1, or auto."))
    if options.min_new_tokens > options.max_new_tokens:
        fact = f"min_new_tokens is more than max_new_tokens ({options.max_new_tokens})."
        found.append(Fault(("min_new_tokens",), fact))
    if "" in options.stop:
        found.append(Fault(("stop",), "stop has an empty text, which would end every answer."))
    return found + writes_text(inputs)


def _sources(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    if options.prompts and options.file:
        yield Fault(("file",), "there are prompts and a file of them; one source is asked.")
    if not options.prompts and not options.file and not inputs.get("dataset"):
        fact = "there is nothing to ask: no step before this one gives a dataset."
        yield Fault((), fact, "Say `prompts: [...]`, or a `file` of them.")


def _drawing(options: Options) -> Iterator[Fault]:
    """Settings for drawing mean nothing to greedy answers."""
    for name, unused in DRAWING.items():
        if options.temperature == 0 and getattr(options, name) != unused:
            fact = f"{name} has no effect on greedy answers; set a temperature above 0."
            yield Fault((name,), fact)
    if options.temperature > 0 and options.top_p == 0:
        yield Fault(("top_p",), "top_p: 0 leaves nothing to draw from.", "Greedy: temperature: 0")


def _beams(options: Options) -> Iterator[Fault]:
    if options.beams == 1:
        if options.length_penalty != 1.0:
            yield Fault(("length_penalty",), "length_penalty has no effect without beams.")
        return
    clashes = {
        "temperature": options.temperature > 0,
        "logprobs": options.logprobs,
        "prompt_lookup": options.prompt_lookup > 0,
    }
    for name in (name for name, is_set in clashes.items() if is_set):
        yield Fault((name,), f"{name} and beams do not go together.")


def _constraints(options: Options) -> Iterator[Fault]:
    given = [name for name in ("json_schema", "regex") if getattr(options, name) is not None]
    if not given:
        return
    if len(given) > 1:
        yield Fault(("regex",), "an answer follows a json_schema or a regex, not both.")
    if options.prefix:
        yield Fault(("prefix",), "prefix stands before what is constrained: leave it out.")
    if options.min_new_tokens:
        fact = "min_new_tokens would forbid the end where nothing else may follow."
        yield Fault(("min_new_tokens",), fact)
    if lacking := extras.missing("constrain"):
        yield Fault((given[0],), f"{given[0]}: {lacking}")
        return
    from runner.answering import constraint

    if wrong := constraint.fault(options.json_schema, options.regex):
        yield Fault((given[0],), f"{given[0]} cannot be followed: {wrong}")


def _guessing(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    """Tokens that are guessed come one row at a time, whose batch is that row."""
    guesses = options.prompt_lookup > 0 or bool(inputs.get("assistant"))
    if options.prompt_lookup and inputs.get("assistant"):
        yield Fault(("prompt_lookup",), "tokens are guessed by prompt_lookup or by an assistant.")
    if guesses and options.logprobs:
        yield Fault(("logprobs",), "logprobs are not kept of tokens that were guessed.")
    if guesses and options.batch_size not in ("auto", 1):
        yield Fault(("batch_size",), "tokens are guessed for one row at a time: batch_size: 1")
    if inputs.get("assistant") and options.beams > 1:
        yield Fault(("assistant",), "assistant and beams do not go together.")


def _engine(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    extra = EXTRAS.get(options.engine)
    if extra and (lacking := extras.missing(extra)):
        yield Fault(("engine",), f"engine: {lacking}")
    if options.engine == "llama.cpp":
        if not inputs.get("gguf"):
            fact = "llama.cpp takes a GGUF file: `gguf:` names the step that gives it."
            yield Fault(("engine",), fact)
    elif not inputs.get("model"):
        fact = "there is no model to ask: no step before this one gives one."
        yield Fault((), fact, "It comes from: load, adapt, quantize.")
    if options.engine == "vllm" and 0 < (there := len(hardware.gpus())) < options.gpus:
        yield Fault(("gpus",), f"there are {there} GPUs, not {options.gpus}.")
    yield from _not_for(options, inputs)


def _not_for(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> Iterator[Fault]:
    """What is set, or named as a role, that the engine does not have."""
    follows = options.json_schema is not None or options.regex is not None
    engines = {
        "beams": ("transformers",) if options.beams > 1 else (),
        "prompt_lookup": ("transformers",) if options.prompt_lookup else (),
        "assistant": ("transformers",) if inputs.get("assistant") else (),
        "gguf": ("llama.cpp",) if inputs.get("gguf") else (),
        "no_repeat_ngram_size": OURS if options.no_repeat_ngram_size else (),
        "logprobs": OURS if options.logprobs and follows else (),
        "memory_share": ("vllm",) if options.memory_share != Options.memory_share else (),
        "gpus": ("vllm",) if options.gpus > 1 else (),
    }
    for name, able in engines.items():
        if able and options.engine not in able:
            beside = " of constrained answers" if name == "logprobs" else ""
            yield Fault((name,), f"{name}{beside} is for engine: {' or '.join(able)}.")
