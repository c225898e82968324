"""Which tokens are trained, how much each one counts, and what it belongs to."""

from collections.abc import Mapping, Sequence
from typing import Any

from runner.data.masks.tokenized import Reading
from runner.data.templates.layout import Layout
from runner.data.templates.messages import Message
from runner.products import IGNORED

ROLES = ("template", "system", "user", "assistant", "tool", "text")
"""What a token belongs to; `Encoded.roles` holds places in this list."""
Span = tuple[float, int, int]
"""The weight of an answer, its first token and the one behind its last."""


def weights_of(messages: Sequence[Message], train_on: str) -> dict[int, float]:
    """How much each answer counts: 0 for one that is not trained."""
    answers = [index for index, one in enumerate(messages) if one["role"] == "assistant"]
    given = {index: messages[index].get("weight") for index in answers}
    weights = {index: 1.0 if weight is None else float(weight) for index, weight in given.items()}
    if train_on in ("last", "completion"):
        return {index: weights[index] * (index == answers[-1]) for index in answers}
    return weights


def uneven(weights: Mapping[int, float]) -> bool:
    """Whether answers that are trained count differently."""
    return any(weight not in (0.0, 1.0) for weight in weights.values())


def labels_of(ids: list[int], spans: Sequence[Span], *, everything: bool) -> list[int]:
    """The ids of what is trained, answers with a weight or everything but those without."""
    labels = list(ids) if everything else [IGNORED] * len(ids)
    for weight, first, last in spans:
        if weight and not everything:
            labels[first:last] = ids[first:last]
        elif not weight and everything:
            _fill(labels, first, last, IGNORED)
    return labels


def counts_of(size: int, spans: Sequence[Span], *, everything: bool) -> list[float]:
    """How much each of `size` tokens counts."""
    counts = [float(everything)] * size
    for weight, first, last in spans:
        _fill(counts, first, last, weight)
    return counts


def roles_of(layout: Layout, reading: Reading, spans: Sequence[Span]) -> list[int]:
    """For each token the place in ROLES of what it belongs to."""
    roles = [0] * len(reading.ids)
    for role, start, end in layout.parts:
        if role != "assistant":
            _fill(roles, reading.at(start), reading.at(end), ROLES.index(role))
    for _, first, last in spans:
        _fill(roles, first, last, ROLES.index("assistant"))
    return roles


def _fill(values: list[Any], first: int, last: int, value: Any) -> None:
    values[first:last] = [value] * (last - first)
