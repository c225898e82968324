"""What is done to the scores of the next token: the same for every engine, each row by itself.

A token is drawn by adding Gumbel noise to the scores and taking the highest, which is drawing from
their softmax (Gumbel 1954; arXiv:1611.00712, 2). The noise of a place is made from the row's id and
the number of the token alone: neither other rows nor what was drawn before have a part in it.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runner.answering.ending import Decode, Hear, says_stop
from runner.answering.settings import Options

if TYPE_CHECKING:
    from runner.answering.constraint import Constraint

Step = Callable[[Any, Any], Any]
"""Called with the ids so far (rows x tokens) and the scores (rows x vocabulary)."""


class Recorder:
    """Notes the log-probability of each token that is chosen, by the scores as they come."""

    def __init__(self, width: int) -> None:
        self._width, self._values = width, list[Any]()
        self._scores: Any = None

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Look at scores; those of the token before are looked up now, for now it is chosen."""
        self._note(ids)
        self._scores = scores.log_softmax(-1)
        return scores

    def taken(self, ids: Any) -> list[list[float]]:
        """Of every row the log-probabilities of what was generated (ids: rows x tokens)."""
        import torch

        count = ids.shape[1] - self._width
        if len(self._values) < count:
            self._note(ids)
        return [row[:count] for row in torch.cat(self._values, 1).tolist()]

    def _note(self, ids: Any) -> None:
        if self._scores is not None:
            at = self._width + len(self._values)
            self._values.append(self._scores.gather(1, ids[:, at : at + 1]))


class EachRow:
    """Processors of transformers that look back, kept from taking padding for what was said."""

    def __init__(self, steps: Sequence[Step], pads: Sequence[int]) -> None:
        self._steps, self._pads = steps, pads

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Each row without its padding (of beams, several rows have one prompt)."""
        import torch

        beams, rows = len(ids) // len(self._pads), []
        for at in range(len(ids)):
            row, own = scores[at : at + 1], ids[at : at + 1, self._pads[at // beams] :]
            for step in self._steps:
                row = step(own, row)
            rows.append(row)
        return torch.cat(rows)


class Following:
    """Leaves each row the tokens that its grammar allows."""

    def __init__(self, constraint: "Constraint", rows: int, width: int) -> None:
        self._constraint, self._width = constraint, width
        self._followers = [constraint.follower() for _ in range(rows)]

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Forbid the others. A row whose answer is over is left alone."""
        import torch

        while len(self._followers) < len(ids):  # of beams
            self._followers.append(self._constraint.follower())
        for at, answer in enumerate(ids[:, self._width :].tolist()):
            allowed = self._followers[at].allowed(answer, scores.shape[1])
            if allowed is not None:
                forbidden = torch.from_numpy(~allowed).to(scores.device)
                scores[at].masked_fill_(forbidden, -torch.inf)
        return scores


class Noise:
    """Draws: the highest score is then a token drawn from the softmax of the scores before."""

    def __init__(self, rows: Sequence[str], width: int) -> None:
        self._rows, self._width = rows, width

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Add the noise that belongs to each row (by its id) and this number of tokens."""
        import torch

        generator = torch.Generator(scores.device)
        number, noise = ids.shape[1] - self._width, torch.empty_like(scores)
        for at, row in enumerate(self._rows):
            generator.manual_seed(seed_of(row, number))
            noise[at].exponential_(generator=generator)
        return scores - noise.clamp_min_(torch.finfo(noise.dtype).tiny).log_()


def seed_of(row: str, number: int) -> int:
    """The seed of one row's token; torch takes 63 bits."""
    digest = hashlib.blake2b(f"{row} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def steps(
    options: Options,
    rows: Sequence[str],
    pads: Sequence[int],
    width: int,
    stops: Sequence[int],
    constraint: "Constraint | None",
) -> list[Step]:
    """All that is done to the scores, in the order of transformers; the noise comes last.

    `rows` are the ids of the rows, `pads` how much padding each has before it, `width` the tokens
    of a prompt with its padding.
    """
    from transformers import generation

    found: list[Step] = []
    back: list[Step] = []
    if options.repetition_penalty != 1.0:
        back.append(generation.RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        back.append(generation.NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    if back:
        found.append(EachRow(back, pads))
    if options.min_new_tokens and stops:
        least, ends = options.min_new_tokens, list(stops)
        found.append(generation.MinNewTokensLengthLogitsProcessor(width, least, ends))
    if constraint:
        found.append(Following(constraint, len(rows), width))
    if options.temperature > 0:
        found += [*_warpers(options), Noise(rows, width)]
    return found


def _warpers(options: Options) -> list[Step]:
    from transformers import generation

    found: list[Step] = []
    if options.temperature != 1.0:
        found.append(generation.TemperatureLogitsWarper(options.temperature))
    if options.top_k:
        found.append(generation.TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0:
        found.append(generation.TopPLogitsWarper(options.top_p))
    if options.min_p:
        found.append(generation.MinPLogitsWarper(options.min_p))
    return found


class Heard:
    """Tells the first row of what is generated, and ends none."""

    def __init__(self, hear: Hear, width: int) -> None:
        self._hear, self._width = hear, width

    def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002  theirs
        """False for each row."""
        import torch

        self._hear(ids[0, self._width :].tolist())
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


class Ends:
    """Says which rows are over: by a stop text, or because there is no room for more tokens.

    `lengths` says how many tokens each row may get. With `stops`, the tokens that end an answer,
    all rows count as over as soon as half of them are, so that the others can go on without them.
    """

    def __init__(
        self,
        texts: Sequence[str],
        width: int,
        lengths: Sequence[int],
        decode: Decode,
        stops: Sequence[int] = (),
    ) -> None:
        self._texts, self._width, self._lengths, self._decode = texts, width, lengths, decode
        self._stops = stops
        self._over: Any = None
        self._least = min(lengths)

    def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ARG002  theirs
        """A bool for each row."""
        import torch

        over = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        if self._texts or ids.shape[1] - self._width >= self._least:
            over |= torch.tensor(self._ended(ids), device=ids.device)
        if not self._stops:
            return over
        over |= torch.isin(ids[:, -1], torch.tensor(self._stops, device=ids.device))
        self._over = over if self._over is None else self._over | over
        return self._over | (2 * self._over.sum() >= len(ids))

    def _ended(self, ids: Any) -> list[bool]:
        answers, copies = ids[:, self._width :].tolist(), len(ids) // len(self._lengths)
        return [self._is_over(row, at // copies) for at, row in enumerate(answers)]

    def _is_over(self, answer: Sequence[int], at: int) -> bool:
        if len(answer) >= self._lengths[at]:
            return True
        return bool(self._texts) and says_stop(answer, self._texts, self._decode)
