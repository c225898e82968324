"""The text of an example: what each side of it says, its words, and its shingles as numbers."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Example = dict[str, Any]
"""A row in one of the shapes that data is read into, as JSON can hold it."""
Side = Literal["all", "user", "assistant"]

SIDES = {
    "prompt": "user",
    "completion": "assistant",
    "chosen": "assistant",
    "rejected": "assistant",
}
"""Who says what stands under a key of an example that is plain text."""

SIDED = {"messages", *SIDES}
"""The keys under which it is known who speaks."""

LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
"""Control characters but tab and line end, byte order marks, and halves of surrogate pairs."""

# Scripts that put no space between words: each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORDS = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def texts(example: Mapping[str, Any], of: Side = "all") -> list[str]:
    """What is said in an example, by everyone or by one side; none where it is only tokens."""
    found = []
    for key in ("messages", "prompt", "completion", "chosen", "rejected", "text"):
        value = example.get(key)
        if isinstance(value, str) and of in ("all", SIDES.get(key)):
            found.append(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found += [text for role, text in _said(value) if of in ("all", role)]
    return found


def exchanged(example: Mapping[str, Any]) -> list[str]:
    """What is said in an example but for system prompts, which many examples share."""
    messages = {key: _without_system(value) for key, value in example.items()}
    return texts(messages)


def words(said: Sequence[str]) -> list[str]:
    """The words of texts, whatever their case, punctuation and spaces."""
    joined = unicodedata.normalize("NFKC", "\n".join(said)).casefold()
    return WORDS.findall(joined)


def shingles(of: Sequence[str], size: int) -> "np.ndarray[Any, Any]":
    """One 64-bit number for every run of `size` words, or for all of them where there are fewer.

    Each number stands once, in rising order; the same words give the same numbers everywhere.
    """
    import numpy as np

    numbers = np.fromiter(map(_number, of), dtype=np.uint64, count=len(of))
    size = min(size, len(of))
    if not size:
        return numbers
    count = len(of) - size + 1
    mixed: np.ndarray[Any, Any] = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + numbers[offset : offset + count]
    different: np.ndarray[Any, Any] = np.unique(mixed)
    return different


def cleaned(text: str, form: Literal["NFC", "NFKC"]) -> str:
    """A text in one Unicode form, its lines ended by line feeds, without control characters."""
    return unicodedata.normalize(form, UNSEEN.sub("", LINE_ENDS.sub("\n", text)))


def digest(value: Any) -> bytes:
    """16 bytes that two examples share if they say the same, but for spaces and Unicode forms."""
    plain = json.dumps(each_text(value, _squeezed), sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def each_text(value: Any, change: Any) -> Any:
    """A copy of plain values with every text in it changed; the keys of mappings stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each_text(inner, change) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [each_text(inner, change) for inner in value]
    return value


def _squeezed(text: str) -> str:
    return " ".join(cleaned(text, "NFC").split())


def _said(messages: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Role and text of messages: content, reasoning, and the calls of tools."""
    for message in messages:
        if not isinstance(message, Mapping):
            continue
        role = str(message.get("role", ""))
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        said = [part.get("text") for part in parts if isinstance(part, Mapping)]
        said += [message.get("reasoning_content"), message.get("thinking")]
        yield from ((role, text) for text in said if isinstance(text, str))
        if message.get("tool_calls"):
            yield role, json.dumps(message["tool_calls"], sort_keys=True, ensure_ascii=False)


def _without_system(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [m for m in value if not (isinstance(m, Mapping) and m.get("role") == "system")]


@lru_cache(maxsize=1 << 16)
def _number(word: str) -> int:
    hashed = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(hashed.digest(), "little")
