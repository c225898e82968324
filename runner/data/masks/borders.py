"""The borders between prompts and answers, which no token may reach over."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from runner.data.masks.tokenized import Reading, next_token
from runner.data.templates.endings import any_of
from runner.data.templates.layout import Answer

HEADS_KEPT = 4096


class Borders:
    """Finds where the tokens of answers begin, and tokenizes anew where none begins there."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._heads: dict[str, list[int]] = {}
        added = tokenizer.added_tokens_decoder.values()
        self._stripping = tuple(token.content for token in added if token.rstrip)

    def drawn(
        self, text: str, answers: Sequence[Answer], read: Any
    ) -> tuple[Reading, dict[int, int | None]]:
        """The tokens of the text, and for the start of each answer its first token."""
        reading = Reading(read)
        begins = {one.start: self._begin(text, one, reading) for one in answers}
        if cuts := [start for start, first in begins.items() if first is None]:
            reading = self._apart(text, cuts, reading)
            begins = {one.start: self._begin(text, one, reading) for one in answers}
        return reading, begins

    def _begin(self, text: str, answer: Answer, reading: Reading) -> int | None:
        """The token after those of the generation prompt; None where the text has others there."""
        start = answer.start
        for piece in reading.pieces[1:]:
            if piece.place == start:
                return piece.token
        head = answer.head if answer.head is not None else text[:start]
        if text[start : start + 1].isspace() and self._strips(head):
            return None
        ids, first = self._ids(head), reading.at(start - len(head))
        last = first + len(ids)
        return last if reading.ids[first:last] == ids else None

    def _ids(self, head: str) -> list[int]:
        if head not in self._heads:
            if len(self._heads) > HEADS_KEPT:
                self._heads.clear()
            self._heads[head] = self._backend.encode(head, add_special_tokens=False).ids
        return self._heads[head]

    def _strips(self, head: str) -> bool:
        """Whether a token at the end of the prompt takes away spaces behind it."""
        return head.rstrip().endswith(self._stripping)

    def _apart(self, text: str, cuts: Sequence[int], whole: Reading) -> Reading:
        """Tokenize anew, with borders where the answers begin, if no character is changed by it."""
        edges = [*sorted(set(cuts)), len(text)]
        reading = Reading(self._backend.encode(text[: edges[0]], add_special_tokens=False))
        for start, end in pairwise(edges):
            if not self.go_on(reading, start, text[start:end]):
                return whole
        return reading

    def go_on(self, reading: Reading, place: int, piece: str) -> bool:
        """Add a piece that reads as itself: some tokenizers put a space before a text.

        They don't behind a special token, or a line end, which then is put before it and left out.
        """
        before = self._decoded(reading.ids)
        for lead in ("", self.tokenizer.eos_token or "\n", "\n"):
            read = self._backend.encode(lead + piece, add_special_tokens=False)
            skipped = next_token(read, len(lead)) if lead else 0
            said = self._decoded(reading.ids + read.ids[skipped:])[len(before) :]
            if self._alike(said) == self._alike(piece):
                reading.add(place, read, len(lead), skipped)
                return True
        return False

    def _alike(self, text: str) -> str:
        """The text without what tokenizers change in every text."""
        text = re.sub(rf"({any_of(self._stripping)})\s+", r"\1", text)
        return unicodedata.normalize("NFC", text).replace("\u2581", " ")

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._backend.decode(ids, skip_special_tokens=False))


def spans_of(answer: Answer, reading: Reading, begin: int | None) -> list[tuple[int, int]]:
    """The tokens of an answer, from the first behind its prompt to its stop token."""
    spans = []
    for start, end in answer.marked:
        first = begin if start == answer.start else None
        first = reading.behind(start) if first is None else first
        stops = answer.stop and end == answer.end
        last = reading.at(end - len(answer.stop)) + 1 if stops else reading.at(end)
        spans.append((first, last))
    return spans
