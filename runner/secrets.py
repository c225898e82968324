"""Tokens and passwords: known by where they come from or by their shape, and never written down."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

SHORTEST = 12
"""Characters; a shorter value of a variable may be any word."""
NAMES = re.compile("(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|SECRET_KEY)$")
SHAPES = re.compile(
    r"hf_[A-Za-z0-9]{20,}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|sk-[A-Za-z0-9_-]{20,}"
    r"|AKIA[0-9A-Z]{16}"
    r"|(?<=Bearer )[^\s'\"]{12,}"
    r"|(?<=X-Amz-Signature=)[^&\s'\"]+"
    r"|(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"
)
HIDDEN = "[hidden]"


def mask(text: str) -> str:
    """The text without any secret."""
    for value in known():
        text = text.replace(value, HIDDEN)
    return SHAPES.sub(HIDDEN, text)


def masked(value: Any) -> Any:
    """A value as JSON holds it, likewise."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {masked(name): masked(each) for name, each in value.items()}
    return [masked(each) for each in value] if isinstance(value, (list, tuple)) else value


def texts_with_secrets(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where in nested values a text stands that holds a secret."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from texts_with_secrets(str(name), where)
            yield from texts_with_secrets(each, (*where, str(name)))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from texts_with_secrets(each, (*where, str(number)))
    elif isinstance(value, str) and mask(value) != value:
        yield where


@cache
def known() -> tuple[str, ...]:
    """The secrets that this process was given by its environment or by `hf auth login`."""
    found = {value.strip() for name, value in os.environ.items() if NAMES.search(name.upper())}
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    for path in (os.environ.get("HF_TOKEN_PATH", f"{home}/token"), f"{home}/stored_tokens"):
        found.update(_words(Path(path).expanduser()))
    return tuple(sorted((v for v in found if len(v) >= SHORTEST), key=len, reverse=True))


def _words(path: Path) -> list[str]:
    """The last word of each line: a token alone, or `hf_token = ...`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    return [line.split()[-1] for line in lines if line.strip() and not line.startswith("[")]
