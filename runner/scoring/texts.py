"""Measures of an answer against the one that was expected: a number from 0 to 1 for each."""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)

Compare = Callable[[str, str], float]


def exact_match(answer: str, expected: str) -> float:
    """Whether the answer is what was expected, to the letter."""
    return float(answer == expected)


def contains(answer: str, expected: str) -> float:
    """Whether what was expected stands somewhere in the answer."""
    return float(expected in answer)


def f1(answer: str, expected: str) -> float:
    """The harmonic mean of precision and recall of words, as SQuAD measures it (arXiv:1806.03822).

    Case, punctuation and articles do not count. Where one side is left with no word, both must be.
    """
    given, wanted = words(answer), words(expected)
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted))


def words(text: str) -> list[str]:
    """The words of a text as SQuAD compares them."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def regex(pattern: str) -> Callable[[str, str | None], float]:
    """Whether a pattern is found in the answer; with a group, what that holds must be expected.

    The last place counts where it is found more than once: answers tend to end with the result.
    """
    compiled = re.compile(pattern)

    def compare(answer: str, expected: str | None) -> float:
        found = [*compiled.finditer(answer)]
        if not found or not compiled.groups:
            return float(bool(found))
        return float((found[-1].group(1) or "").strip() == expected)

    return compare


COMPARISONS: Mapping[str, Compare] = {"exact_match": exact_match, "contains": contains, "f1": f1}
