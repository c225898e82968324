"""The values of a row: each checked for what it must be, or named in an error."""

import json
from collections.abc import Mapping
from typing import Any

from runner.data.reading.lines import BadRow

Row = Mapping[str, Any]


def as_text(value: Any, where: str) -> str:
    """A value that must be a text."""
    if isinstance(value, str):
        return value
    raise BadRow(f"{where} must be a text, not {kind_of(value)}.")


def as_list(value: Any, where: str) -> list[Any]:
    """A value that must be a list with something in it."""
    items = parsed(value)
    if not isinstance(items, list):
        raise BadRow(f"{where} must be a list, not {kind_of(items)}.")
    if not items:
        raise BadRow(f"{where} is an empty list.")
    return items


def parsed(value: Any) -> Any:
    """A value; or the one whose JSON text it is, as csv files and some data sets hold lists."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def as_label(value: Any) -> bool | None:
    """True or false, also as a number or as a text, as csv files hold it; None for all else."""
    word = str(value).lower() if isinstance(value, (bool, int, str)) else ""
    return {"true": True, "1": True, "false": False, "0": False}.get(word)


def kind_of(value: Any) -> str:
    """What a value is, for a message."""
    names = {dict: "a mapping", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), f"{value!r:.40}")


def is_text(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_ids(value: Any) -> bool:
    """Whether a value is a list of whole numbers."""
    return isinstance(value, list) and all(type(item) is int for item in value)
