"""A tokenizer written as it was opened, though it has been used since."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner import files, products

FILE, HEAD = "tokenizer.json", 2000
"""A file of the tokenizers library, and the characters in which it says how it pads and cuts."""


def write(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer without what using it has left: how rows were padded and cut last.

    Where that cannot be told from what its own file says, it is opened once more from there.
    """
    raw = getattr(tokenizer, "backend_tokenizer", None)
    if raw is None or not _is_plain(Path(tokenizer.name_or_path) / FILE):
        products.write_tokenizer(products.untouched(tokenizer), folder)
        return
    with _unused(raw):
        products.write_tokenizer(tokenizer, folder)


def _is_plain(path: Path) -> bool:
    """Whether a tokenizer's file neither pads nor cuts; its first lines say so, if they can."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            head = file.read(HEAD)
    except files.ABSENT:
        return False
    return all(re.search(rf'"{name}"\s*:\s*null', head) for name in ("truncation", "padding"))


@contextmanager
def _unused(raw: Any) -> Iterator[None]:
    """A tokenizer of the tokenizers library that neither pads nor cuts, for a while."""
    padding, truncation = raw.padding, raw.truncation
    raw.no_padding()
    raw.no_truncation()
    try:
        yield
    finally:
        if padding:
            raw.enable_padding(**padding)
        if truncation:
            raw.enable_truncation(**truncation)
