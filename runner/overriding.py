"""Overrides as they are typed, in Hydra's grammar: one value for a run, many for a sweep.

With `compose.py` the only module that imports hydra.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    Glob,
    Override,
    OverrideType,
    Quote,
    QuotedString,
    Transformer,
)
from hydra.errors import HydraException

from runner import origins, places
from runner.changes import Axis, Change, Span
from runner.errors import Problem, RecipeError
from runner.origins import Document


def one(text: str, problems: list[Problem]) -> Change | None:
    """An override that sets one value; None where it is no such, which joins the problems."""
    parsed = _parsed(text, problems)
    if parsed is not None and parsed.is_sweep_override():
        fact = "gives many values, and a run takes one."
        key = text.split("=")[0]
        guess = f"For a list write {key}=[...]; for a run with each value: runner sweep."
        problems.append(Problem(f'override "{text}"', fact, guess))
        return None
    return None if parsed is None else _change(parsed, text)


def axes(name: str, words: Sequence[str]) -> list[Axis]:
    """Each word with all its values, in Hydra's whole grammar; RecipeError where one has none.

    `interval()` is a span, of whole numbers with `int(interval(1, 8))` and logarithmic with
    `tag(log, interval(1e-5, 1e-3))`, as Hydra's sweepers have it.
    """
    problems: list[Problem] = []
    document, _ = origins.read(places.find_recipe(name))
    found = []
    for text in words:
        if (parsed := _parsed(text, problems)) is None:
            continue
        if not parsed.is_sweep_override():
            found.append(Axis(parsed.key_or_group, (_change(parsed, text),)))
        elif parsed.is_interval_sweep():
            found += _spanned(parsed, text, problems)
        elif changes := _alternatives(parsed, text, document, problems):
            found.append(Axis(parsed.key_or_group, changes))
    if problems:
        raise RecipeError(problems)
    return found


def as_word(name: str, value: Any) -> str:
    """An override as it is typed; a list in a recipe's `sweep.params` is one value after another.

    A text is taken as it stands, in Hydra's grammar: `4,8`, `range(1, 9)`.
    """
    if isinstance(value, str):
        return f"{name}={value}"
    texts = [_typed(each) for each in (value if isinstance(value, list) else [value])]
    return f"{name}={','.join(texts)}"


def _typed(value: Any) -> str:
    quoted = QuotedString(value, Quote.single) if isinstance(value, str) else value
    return str(Transformer.str(quoted))


def _alternatives(
    parsed: Override, text: str, document: Document | None, problems: list[Problem]
) -> tuple[Change, ...]:
    """One override for each value of a sweep."""
    value = parsed.value()
    if isinstance(value, Glob):
        group = origins.stage_of([document] if document else [], parsed.key_or_group)
        folders = places.preset_folders(document.path) if document else []
        elements = value.filter([*places.presets_for(group, folders)])
    else:
        elements = [*parsed.sweep_iterator()]
    if not elements:
        problems.append(Problem(f'override "{text}"', "gives no value at all."))
    return tuple(_one_of(parsed, each) for each in elements)


def _one_of(parsed: Override, element: Any) -> Change:
    """The override with one of its values."""
    place = tuple(parsed.key_or_group.split("."))
    text = f"{parsed.get_key_element()}={Transformer.str(element)}"
    return Change(place, text, Override._convert_value(element))


def _spanned(parsed: Override, text: str, problems: list[Problem]) -> Iterator[Axis]:
    """The span that an interval gives, where it is one."""
    value: Any = parsed.value()
    low, high, is_log = value.start, value.end, "log" in value.tags
    if not low < high or (is_log and low <= 0):
        fact = "must begin above 0, to be logarithmic." if low < high else "ends where it begins."
        problems.append(Problem(f'override "{text}"', fact, "Write interval(LOW, HIGH)."))
        return
    is_whole = isinstance(low, int) and isinstance(high, int)
    span = Span(low, high, is_whole, is_log)
    ends = tuple(_one_of(parsed, end) for end in (low, high))
    yield Axis(parsed.key_or_group, ends, span)


def _change(parsed: Override, text: str) -> Change:
    deletes = parsed.type is OverrideType.DEL
    return Change(tuple(parsed.key_or_group.split(".")), text, parsed.value(), deletes)


def _parsed(text: str, problems: list[Problem]) -> Override | None:
    where = f'override "{text}"'
    try:
        parsed = OverridesParser.create().parse_override(text)
        if not parsed.key_or_group:
            raise HydraException("it names nothing")
    except HydraException as error:
        fact = f"cannot be read ({str(error).splitlines()[0]})."
        problems.append(Problem(where, fact, "Write name=value."))
        return None
    if parsed.key_or_group.split(".")[0] == "hydra":
        problems.append(Problem(where, "hydra's own settings mean nothing here."))
        return None
    return parsed
