"""The user's own function over rows, and what it may answer."""

import json
from collections.abc import Callable
from typing import Any

from runner import functions
from runner.data.cleaning.text import Example
from runner.errors import StepError, listing

Result = bool | Example
ROLES = ("system", "user", "assistant", "tool")


def load(path: str) -> Callable[[Example, object], Result]:
    """The function of `clean.py:keep`, called with an example and its place; it answers plainly.

    Raises StepError with the line of the user's file where the function or its file fails.
    """
    file, name = functions.parted(path)
    function = functions.load(path)

    def call(example: Example, place: object) -> Result:
        result = function(json.loads(json.dumps(example)), place=place)
        return _checked(result, example, f"{place}: {file.name}:{name}")

    return call


def _checked(result: Any, example: Example, where: str) -> Result:
    """True, False or an example of the same shape; anything else is the function's fault."""
    if isinstance(result, bool):
        return result
    if not isinstance(result, dict):
        raise StepError(
            f"{where}: gave {type(result).__name__}; it must give true or false, or the example."
        )
    if set(result) != set(example):
        raise StepError(
            f"{where}: gave an example with {listing(sorted(map(str, result)))}; "
            f"it must have {listing(sorted(example))}."
        )
    try:
        plain: Example = json.loads(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise StepError(f"{where}: gave what JSON cannot hold: {error}.") from None
    for key, value in plain.items():
        if not _alike(value, example[key]):
            raise StepError(f'{where}: gave another kind of "{key}": {json.dumps(value)[:60]}')
    return plain


def _alike(value: Any, before: Any) -> bool:
    """Whether a value is of the kind that it was: a text, numbers, or messages."""
    if type(value) is not type(before):
        return False
    if not isinstance(value, list) or not before:
        return True
    same = bool(value) and all(type(item) is type(before[0]) for item in value)
    if same and isinstance(before[0], dict) and "role" in before[0]:
        return all(m.get("role") in ROLES and isinstance(m.get("content"), str) for m in value)
    return same
