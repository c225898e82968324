"""How a tokenizer cuts text before it merges, by the names that llama.cpp has for it."""

from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import StepError

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2, DIGITS, BYTES = "GPT-2", "digits", "bytes"

NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((GPT2,), False): "gpt-2",
    ((DIGITS, GPT2), False): "smollm",
    ((rf"{ENDINGS}|{WORDS}|\p{{N}}{{1,3}}|{REST}", BYTES), True): "llama-bpe",
    ((rf"{ENDINGS}|{WORDS}|\p{{N}}{{1,3}}|{REST}", BYTES), False): "smaug-bpe",
    ((rf"{ENDINGS}|{WORDS}|\p{{N}}|{REST}", BYTES), False): "qwen2",
    ((TEKKEN, BYTES), True): "tekken",
}
"""llama.cpp's name (`llama-vocab.cpp`) for the cuts, and whether whole words go before merges."""


def is_bytewise(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer's tokens are bytes written as letters, GPT-2's way."""
    return any(cut["type"] == "ByteLevel" for cut in _cuts(tokenizer["pre_tokenizer"]))


def name(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for the cuts of a bytewise tokenizer; StepError where it has none."""
    cuts = tuple(_described(cut) for cut in _cuts(tokenizer["pre_tokenizer"]))
    whole_words = bool(tokenizer["model"].get("ignore_merges"))
    normalizers = {each["type"] for each in _parts(tokenizer["normalizer"], "normalizers")}
    found = NAMES.get((cuts, whole_words))
    if found is None or normalizers - {"NFC"}:
        raise StepError("llama.cpp has no name for the way in which this tokenizer cuts text.")
    return found


def has_prefix(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer that writes spaces as U+2581 puts one before a text.

    StepError where it is none.
    """
    steps = [*_parts(tokenizer["normalizer"], "normalizers"), *_cuts(tokenizer["pre_tokenizer"])]
    kinds = {each["type"] for each in steps}
    if not kinds & {"Replace", "Metaspace"} or kinds - {"Replace", "Prepend", "Metaspace", "Split"}:
        raise StepError("llama.cpp has no name for the way in which this tokenizer cuts text.")
    return any(
        each["type"] == "Prepend" or each.get("prepend_scheme", "never") != "never"
        for each in steps
    )


def differences(tokenizer: Mapping[str, Any]) -> Iterator[str]:
    """Where llama.cpp cuts some texts otherwise all the same, whoever wrote the file."""
    cuts = list(_cuts(tokenizer["pre_tokenizer"]))
    if any(_described(cut) == TEKKEN for cut in cuts):
        yield "llama.cpp cuts words with combining marks, as Khmer and Hindi have, otherwise"
    if any(cut.get("prepend_scheme") == "first" for cut in cuts):
        yield "llama.cpp puts a space after every special token, transformers before a text only"


def _described(cut: Mapping[str, Any]) -> str:
    match cut:
        case {"type": "Digits", "individual_digits": True}:
            return DIGITS
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": used}:
            return GPT2 if used else BYTES
        case {"type": "Split", "behavior": "Isolated", "invert": False, "pattern": {"Regex": text}}:
            return str(text)
    return str(cut["type"])


def _cuts(pre_tokenizer: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    return _parts(pre_tokenizer, "pretokenizers")


def _parts(step: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a sequence, in order."""
    if step is None:
        return
    if step["type"] != "Sequence":
        yield step
        return
    for each in step[key]:
        yield from _parts(each, key)
