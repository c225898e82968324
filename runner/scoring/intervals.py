"""How sure a figure is: percentile intervals by the bootstrap (Efron, 1979), seeded and repeatable.

What is drawn again is a prompt with all its answers, for several answers to one prompt are not
independent of each other.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

CELLS = 4_000_000
"""How often a prompt is drawn, in numbers held at once: 32 MB."""

Figure = Callable[[Any], Any]
"""Makes figures (draws) out of sums over rows (draws x columns)."""


def mean(sums: Any) -> Any:
    """The figure whose rows are (value, count)."""
    return sums[:, 0] / sums[:, 1]


def perplexity(sums: Any) -> Any:
    """The figure whose rows are (negative log-likelihood, tokens): exp of the mean."""
    import numpy as np

    return np.exp(mean(sums))


@dataclass(frozen=True)
class Measured:
    """One figure: what each row of it got, and the sums over rows that it is made of."""

    name: str
    rows: Sequence[float]
    sums: Sequence[Sequence[float]]
    figure: Figure = mean

    @classmethod
    def mean_of(cls, name: str, rows: Sequence[float]) -> "Measured":
        """The mean of a number for each row."""
        return cls(name, rows, [(value, 1.0) for value in rows])

    @property
    def value(self) -> float:
        """The figure over all rows."""
        import numpy as np

        return float(self.figure(np.asarray(self.sums, dtype=float).sum(axis=0)[None])[0])


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: how many draws, of which share the figure lies inside, the seed."""

    draws: int
    confidence: float
    seed: int

    def interval(self, measured: Measured, prompts: Sequence[Hashable]) -> tuple[float, float]:
        """Lower and upper bound of a figure; `prompts` says which prompt each row answers."""
        import numpy as np

        found = np.concatenate([*map(measured.figure, self._draws(measured.sums, prompts))])
        outside = (1 - self.confidence) / 2
        low, high = np.quantile(found, [outside, 1 - outside])
        return float(low), float(high)

    def _draws(self, sums: Sequence[Sequence[float]], prompts: Sequence[Hashable]) -> Any:
        """Sums over prompts drawn with replacement, some draws at a time (draws x columns)."""
        import numpy as np

        numbers = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompts))}
        whole = np.zeros((len(numbers), len(sums[0])))
        np.add.at(whole, [numbers[prompt] for prompt in prompts], np.asarray(sums, dtype=float))
        generator, count = np.random.default_rng(self.seed), len(numbers)
        at_once = max(1, CELLS // count)
        for begin in range(0, self.draws, at_once):
            size = min(at_once, self.draws - begin)
            times = generator.multinomial(count, np.full(count, 1 / count), size=size)
            yield times @ whole
