"""Answers that follow a JSON schema or a regular expression, token by token (llguidance)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

BLANKS = r" |\n {0,24}"
"""Between the parts of JSON: as json.dumps writes it, indented or not. With any number of blanks a
small model may write nothing else; `x-guidance: {whitespace_pattern: ...}` in a schema says more.
"""


def grammar(json_schema: Mapping[str, Any] | None, regex: str | None) -> str:
    """What llguidance follows; ValueError where it cannot."""
    from llguidance import LLMatcher

    if regex is not None:
        return str(LLMatcher.grammar_from_regex(regex))
    blanks: Any = {"whitespace_pattern": BLANKS}
    return str(LLMatcher.grammar_from_json_schema(json.dumps(json_schema), defaults=blanks))


def with_blanks(json_schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that says itself which blanks stand between the parts, for whoever follows it."""
    said = {"whitespace_pattern": BLANKS, **json_schema.get("x-guidance", {})}
    return {**json_schema, "x-guidance": said}


def fault(json_schema: Mapping[str, Any] | None, regex: str | None) -> str:
    """What is wrong with a schema or a regular expression; empty where nothing is."""
    from llguidance import LLMatcher

    try:
        said = LLMatcher.validate_grammar(grammar(json_schema, regex))
    except ValueError as error:
        said = str(error)
    if not said or said.startswith("WARNING"):
        return ""
    return f"{said.strip().splitlines()[0].rstrip('.')}."


class Constraint:
    """A grammar over a tokenizer's vocabulary; `vocabulary` is the number of logits."""

    def __init__(self, text: str, tokenizer: Any, stops: Sequence[int], vocabulary: int) -> None:
        from llguidance.hf import from_tokenizer

        self._grammar, self._stops = text, list(stops)
        self._tokens = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(stops))

    def follower(self) -> "Follower":
        """One for every row."""
        from llguidance import LLMatcher

        return Follower(LLMatcher(self._tokens, self._grammar), self._stops)


class Follower:
    """Where in the grammar one answer is. It can be asked for answers in any order."""

    def __init__(self, matcher: Any, stops: Sequence[int]) -> None:
        self._matcher, self._stops, self._taken = matcher, stops, list[int]()

    def allowed(self, answer: Sequence[int], vocabulary: int) -> Any:
        """Which tokens may follow an answer, as bools (vocabulary); None where it is over."""
        import numpy as np

        if any(token in self._stops for token in answer):
            return None
        self._follow(answer)
        if self._matcher.is_stopped():  # nothing may follow but the end
            only = np.zeros(vocabulary, dtype=bool)
            only[self._stops] = True
            return only
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)

    def _follow(self, answer: Sequence[int]) -> None:
        """Go back to where the answer parts from the one before, and on from there."""
        pairs = zip(self._taken, answer, strict=False)
        shared = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
        if shared is None:
            shared = min(len(self._taken), len(answer))
        if back := len(self._taken) - shared:
            self._matcher.rollback(back)
        self._matcher.consume_tokens(list(answer[shared:]))
        self._taken = list(answer)
