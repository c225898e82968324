"""Where an answer ends, and what its text is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Decode = Callable[[Sequence[int]], str]
Hear = Callable[[Sequence[int]], None]
"""Called with the tokens so far of the first row of a batch, as often as there are new ones."""
BEFORE = 32
"""Tokens before those of a stop text that are looked at: one may begin inside a token."""


@dataclass(frozen=True)
class Ended:
    """The text without what ended it; `tokens` counts that too. `finish` is `stop` or `length`."""

    text: str
    tokens: int
    finish: str


def ended(ids: Sequence[int], stops: Sequence[int], texts: Sequence[str], decode: Decode) -> Ended:
    """The answer at the front of what was generated, up to the first stop token or stop text."""
    end = next((at for at, token in enumerate(ids) if token in stops), None)
    said = decode(ids[:end])
    if places := [said.find(text) for text in texts if text in said]:
        return Ended(said[: min(places)], _tokens_of(ids, texts, decode), "stop")
    if end is None:
        return Ended(said, len(ids), "length")
    return Ended(said, end + 1, "stop")


def says_stop(ids: Sequence[int], texts: Sequence[str], decode: Decode) -> bool:
    """Whether an answer that grows token by token has just come to a stop text."""
    longest = max(len(text.encode()) for text in texts)
    said = decode(ids[-longest - BEFORE :])
    return any(text in said for text in texts)


def _tokens_of(ids: Sequence[int], texts: Sequence[str], decode: Decode) -> int:
    """How many tokens it took until the first stop text was there."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        said = decode(ids[:middle])
        low, high = (low, middle) if any(text in said for text in texts) else (middle + 1, high)
    return low
