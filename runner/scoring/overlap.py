"""ROUGE and BLEU, by the libraries that define them: rouge-score and sacrebleu."""

from collections.abc import Sequence
from typing import Any

from runner.scoring.intervals import Measured

ROUGE = ("rouge1", "rouge2", "rougeL")
ORDERS = 4
"""BLEU counts n-grams of up to four words."""


def rouge(answers: Sequence[str], expected: Sequence[str]) -> list[Measured]:
    """F-measures of ROUGE-1, -2 and -L with Porter's stemmer (Lin, 2004), from 0 to 1."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([*ROUGE], use_stemmer=True)
    found = [scorer.score(wanted, given) for given, wanted in zip(answers, expected, strict=True)]
    return [Measured.mean_of(name, [each[name].fmeasure for each in found]) for name in ROUGE]


def bleu(answers: Sequence[str], expected: Sequence[str]) -> list[Measured]:
    """Corpus BLEU as sacrebleu computes it (arXiv:1804.08771), from 0 to 100.

    Rows are given their sentence BLEU, whose mean is not the BLEU of all rows.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    of_rows = BLEU(effective_order=True)
    found = [
        of_rows.sentence_score(given, [wanted])
        for given, wanted in zip(answers, expected, strict=True)
    ]
    sums = [[*each.counts, *each.totals, each.sys_len, each.ref_len] for each in found]

    def figure(drawn: Any) -> Any:
        return np.array([_corpus(BLEU, row) for row in np.rint(drawn).astype(int).tolist()])

    return [Measured("bleu", [each.score for each in found], sums, figure)]


def _corpus(kind: Any, sums: list[int]) -> float:
    """BLEU of n-gram counts summed over rows."""
    correct, total = sums[:ORDERS], sums[ORDERS : 2 * ORDERS]
    lengths = {"sys_len": sums[-2], "ref_len": sums[-1]}
    return float(kind.compute_bleu(correct=correct, total=total, **lengths).score)
