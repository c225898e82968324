"""How large a heap grows for blocks that come and go: glibc's, which training on a CPU lives in."""

from bisect import bisect_left, insort

LEAD, SPARE = 64, 96
"""Bytes before an aligned block (torch aligns to 64), and what glibc asks for beside its own."""
KEPT = 80
"""Of a hundred leads so many are soon held by a small object, for the rest of the step.

That keeps the holes at their sides apart, so that a large block finds none, however much is free:
a step with gradient checkpointing had 800 MB free in holes while it asked for 100 MB more. With 50
to 90 held the growth comes out much the same; with none of them it was 40 % too small.
"""
SPREAD = 2654435761
"""Knuth's multiplier: leads that are held every so often would fall in step with the layers."""
APART = 7919
TRIES = 7
"""Heaps in which other leads are held, and between which it differs whether one large block finds
a hole; what they grow to is that of the largest.
"""


class Heap:
    """Blocks in one row, each put into the smallest hole that fits (glibc's memalign).

    `size` is what it has grown to, in bytes; nothing is given back. `number` decides which leads
    are held.
    """

    def __init__(self, number: int = 0) -> None:
        self.size = 0
        self._taken = number * APART
        self._holes: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []

    def take(self, count: int) -> tuple[int, int]:
        """A block for so many bytes: where it begins, and how large it is."""
        wanted = -(-(count + 8) // 16) * 16
        begin, size = self._found(wanted + SPARE)
        self._taken += 1
        if (self._taken * SPREAD >> 7) % 100 >= KEPT:
            self.give(begin, LEAD)
        begin, size = begin + LEAD, size - LEAD
        self.give(begin + wanted, size - wanted)
        return begin, wanted

    def give(self, begin: int, size: int) -> None:
        """Make a hole of a block, together with the holes at its sides."""
        if begin in self._ends:
            before = self._ends[begin]
            begin, size = before, size + self._filled(before)
        if begin + size in self._holes:
            size += self._filled(begin + size)
        self._holes[begin], self._ends[begin + size] = size, begin
        insort(self._by_size, (size, begin))

    def _found(self, size: int) -> tuple[int, int]:
        """The smallest hole of this size at least, else one at the end, where the heap grows."""
        at = bisect_left(self._by_size, (size, 0))
        if at < len(self._by_size):
            begin = self._by_size[at][1]
            return begin, self._filled(begin)
        begin = self._ends.get(self.size, self.size)
        if begin in self._holes:
            self._filled(begin)
        self.size = begin + size
        return begin, size

    def _filled(self, begin: int) -> int:
        """The size of a hole that is one no more."""
        size = self._holes.pop(begin)
        del self._ends[begin + size]
        del self._by_size[bisect_left(self._by_size, (size, begin))]
        return size
