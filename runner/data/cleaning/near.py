"""Rows that were seen before: the same text, or nearly the same by MinHash signatures.

MinHash (Broder 1997) with banded locality-sensitive hashing (Mining of Massive Datasets, ch. 3):
of rows whose sets of word shingles overlap, signatures agree in about the same share. The code is
our own so that a row's fate, which a key stands for, cannot change with a library's hashes.
"""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from runner.data.cleaning.text import shingles

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, Any]

DIGEST = 16
"""Bytes of a digest."""
PLACES = 128
"""Numbers in a signature: its estimate of a similarity errs by 0.035 (one sigma, at 0.8)."""
FOUND = 0.9
"""The least share of pairs at the very threshold that share a band, and so are compared."""
AT_ONCE = 4096
"""Shingles hashed at a time: bounds the memory that one long text takes."""


class Seen:
    """Digests of rows that were seen; about 130 bytes a row."""

    def __init__(self) -> None:
        self._digests: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._digests)

    def known(self, digest: bytes) -> bool:
        """Whether it was seen before; from now on it was."""
        before = len(self._digests)
        self._digests.setdefault(digest)
        return len(self._digests) == before

    def since(self, count: int) -> bytes:
        """What was learned after the first `count`, for `learn`."""
        return b"".join(islice(self._digests, count, None))

    def learn(self, data: bytes) -> None:
        """Take up what `since` gave."""
        for start in range(0, len(data), DIGEST):
            self._digests[data[start : start + DIGEST]] = None


class Near:
    """Signatures of rows that were kept; about 2 kB a row at a threshold of 0.8."""

    def __init__(self, threshold: float, shingle: int, seed: int) -> None:
        self._threshold, self._shingle = threshold, shingle
        self._multiply, self._add, self._mix = _constants(seed)
        self._band = band_size(threshold)
        self._signatures = bytearray()
        self._first: dict[int, int] = {}
        self._others: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._signatures) // (4 * PLACES)

    def known(self, words: list[str]) -> bool:
        """Whether a row like it was kept before; if not, it is kept from now on.

        A row without words is like no other.
        """
        import numpy as np

        if not words:
            return False
        signature = self.signature(words)
        bands = self._bands(signature)
        if rows := sorted(set(self._sharing(bands))):
            kept = np.frombuffer(self._signatures, dtype="<u4").reshape(-1, PLACES)[rows]
            if (kept == signature).mean(axis=1).max() >= self._threshold:
                return True
        self._keep(signature, bands)
        return False

    def signature(self, words: list[str]) -> "Numbers":
        """The least of each of 128 seeded hashes over the shingles of a text, as uint32."""
        import numpy as np

        of = shingles(words, self._shingle)
        least = np.full(PLACES, np.iinfo(np.uint64).max, dtype=np.uint64)
        for start in range(0, len(of), AT_ONCE):
            part = of[start : start + AT_ONCE]
            part = (part ^ (part >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
            hashed = self._multiply[:, None] * (part ^ (part >> np.uint64(33)))[None, :]
            least = np.minimum(least, (hashed + self._add[:, None]).min(axis=1))
        return (least >> np.uint64(32)).astype("<u4")

    def since(self, count: int) -> bytes:
        """The signatures that were kept after the first `count`, for `learn`."""
        return bytes(self._signatures[count * 4 * PLACES :])

    def learn(self, data: bytes) -> None:
        """Take up what `since` gave."""
        import numpy as np

        for signature in np.frombuffer(data, dtype="<u4").reshape(-1, PLACES):
            self._keep(signature, self._bands(signature))

    def _bands(self, signature: "Numbers") -> list[int]:
        """One number a band, which two signatures share if they agree in all of the band."""
        import numpy as np

        whole = PLACES // self._band * self._band
        mixed = (signature[:whole].astype(np.uint64) * self._mix[:whole]).reshape(-1, self._band)
        numbers: list[int] = mixed.sum(axis=1).tolist()
        return numbers

    def _sharing(self, bands: list[int]) -> Iterator[int]:
        for band in bands:
            if band in self._first:
                yield self._first[band]
                yield from self._others.get(band, ())

    def _keep(self, signature: "Numbers", bands: list[int]) -> None:
        row = len(self)
        self._signatures += signature.tobytes()
        for band in bands:
            if self._first.setdefault(band, row) != row:
                self._others.setdefault(band, []).append(row)


def band_size(threshold: float) -> int:
    """The widest bands of which pairs at the threshold still share one in 9 of 10 cases."""
    for size in range(PLACES, 1, -1):
        if 1 - (1 - threshold**size) ** (PLACES // size) >= FOUND:
            return size
    return 1


def _constants(seed: int) -> "tuple[Numbers, Numbers, Numbers]":
    """Odd factors, addends and odd weights; numpy keeps PCG64's raw numbers for good."""
    import numpy as np

    numbers = np.random.PCG64(seed).random_raw(3 * PLACES).reshape(3, PLACES)
    return numbers[0] | np.uint64(1), numbers[1], numbers[2] | np.uint64(1)
