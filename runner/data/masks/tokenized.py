"""The tokens of a text, by the places of its characters."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Piece:
    """A text tokenized on its own: where it begins, and what was put before it."""

    place: int
    token: int
    read: Any
    lead: int = 0
    skipped: int = 0


class Reading:
    """The tokens of a text that was tokenized in one piece or in several."""

    def __init__(self, read: Any) -> None:
        self.ids: list[int] = read.ids
        self.pieces: list[_Piece] = [_Piece(0, 0, read)]

    def add(self, place: int, read: Any, lead: int, skipped: int) -> None:
        """Go on with the text from a place on; `lead` characters were before it in its piece."""
        self.pieces.append(_Piece(place, len(self.ids), read, lead, skipped))
        self.ids = self.ids + read.ids[skipped:]

    def at(self, place: int) -> int:
        """The first token with the character there; without one, that of a character behind."""
        piece = self._piece(place)
        found: int | None = piece.read.char_to_token(place - piece.place + piece.lead)
        if found is None:  # the offsets of some tokenizers leave out spaces
            found = next_token(piece.read, place - piece.place + piece.lead)
        return piece.token + max(0, found - piece.skipped)

    def behind(self, place: int) -> int:
        """The first token that begins there or later: one that reaches over the place is before."""
        index, piece = self.at(place), self._piece(place)
        span = piece.read.token_to_chars(index - piece.token + piece.skipped)
        over = span is not None and span[0] < place - piece.place + piece.lead
        return index + 1 if over else index

    def _piece(self, place: int) -> _Piece:
        for piece in reversed(self.pieces):
            if piece.place <= place:
                return piece
        raise IndexError(place)


def next_token(read: Any, place: int) -> int:
    """The first token that ends behind a place."""
    offsets = read.offsets
    return next((i for i, (_, end) in enumerate(offsets) if end > place), len(offsets))
