"""The filters that a recipe can declare over rows: their options, and what can be wrong in them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runner import functions, options
from runner.data.cleaning.text import Side
from runner.errors import did_you_mean, listing
from runner.options import Fault, Where, option

OF = "What of a row is looked at: all, what the user says, or what the assistant says"


@dataclass(frozen=True, kw_only=True)
class Unicode:
    """Clean up: one Unicode form, line feeds alone, no control characters."""

    kind: Literal["unicode"] = option("unicode", "This filter")
    form: Literal["NFC", "NFKC"] = option("NFC", "NFKC also makes 2 of a raised 2, and the like")


@dataclass(frozen=True, kw_only=True)
class Length:
    """Drop rows that say too little or too much."""

    kind: Literal["length"] = option("length", "This filter")
    unit: Literal["characters", "words"] = option("characters", "What is counted")
    at_least: int | None = option(None, "The fewest that stay", at_least=0)
    at_most: int | None = option(None, "The most that stay", at_least=0)
    of: Side = option("all", OF)


@dataclass(frozen=True, kw_only=True)
class Regex:
    """Drop rows in which a pattern is found, or keep only those."""

    kind: Literal["regex"] = option("regex", "This filter")
    drop: str | None = option(None, "Rows in which this is found are dropped")
    keep: str | None = option(None, "Rows in which this is not found are dropped")
    of: Side = option("all", OF)


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Drop rows that say what an earlier row said; spaces don't count."""

    kind: Literal["duplicates"] = option("duplicates", "This filter")
    near: bool = option(False, "Also rows that say nearly the same (MinHash)")
    threshold: float = option(
        0.8, "Near from this share of common shingles on", at_least=0.1, at_most=1
    )
    shingle: int = option(5, "Words in a shingle", at_least=1)
    of: Side = option("all", OF)


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Drop rows that also stand among the rows held out."""

    kind: Literal["leak"] = option("leak", "This filter")
    ngram: int = option(13, "Words in a row that count as the same", at_least=1)
    share: float = option(0.5, "Dropped from this overlap on", at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class Function:
    """Your own function: it takes an example and gives true, false or the example changed."""

    kind: Literal["function"] = option("function", "This filter")
    path: str = option(help="File and function: clean.py:keep", keyed=False)


Filter = Unicode | Length | Regex | Duplicates | Leak | Function
KINDS: Mapping[str, type[Filter]] = {
    "unicode": Unicode,
    "length": Length,
    "regex": Regex,
    "duplicates": Duplicates,
    "leak": Leak,
    "function": Function,
}


def build_filters(
    declared: Sequence[Any], folder: Path, where: Where = ("filters",)
) -> tuple[tuple[Filter, ...], list[Fault]]:
    """Make the filters that a recipe declares; a function's file is relative to `folder`.

    Nothing is run: a function is looked for in its file's syntax.
    """
    made, faults = [], []
    for index, mapping in enumerate(declared):
        one, found = _built(mapping, folder, (*where, str(index)))
        faults += found
        if one is not None:
            made.append(one)
    return tuple(made), faults


def keyed_filters(declared: Iterable[Filter]) -> list[dict[str, Any]]:
    """What a key says of filters: their options, and of a function its name and source."""
    return [options.keyed(one) | _source(one) for one in declared]


def _built(mapping: Any, folder: Path, where: Where) -> tuple[Filter | None, list[Fault]]:
    if not isinstance(mapping, Mapping) or "kind" not in mapping:
        fact = f"{'.'.join(where)} must be a mapping with a kind."
        return None, [Fault(where, fact, f"The kinds are: {listing(list(KINDS))}.")]
    kind = mapping["kind"]
    if not isinstance(kind, str) or kind not in KINDS:
        guess = did_you_mean(str(kind), KINDS) or f"The kinds are: {listing(list(KINDS))}."
        return None, [Fault((*where, "kind"), f'There is no filter "{kind}".', guess)]
    made, faults = options.build(KINDS[kind], mapping, where)
    if isinstance(made, Function):
        made = replace(made, path=str(folder / Path(made.path).expanduser()))
    faults += _faults(made, mapping, where) if made is not None else []
    return (None, faults) if faults else (made, [])


def _faults(made: Filter, given: Mapping[str, Any], where: Where) -> list[Fault]:
    """What is wrong between a filter's options, each of which is right by itself."""
    title = ".".join(where)
    if isinstance(made, Length):
        if made.at_least is None and made.at_most is None:
            return [Fault(where, f"{title} needs at_least, at_most or both.")]
        if made.at_most is not None and (made.at_least or 0) > made.at_most:
            return [Fault(where, f"{title}: at_least is more than at_most, so no row would stay.")]
    if isinstance(made, Regex):
        return _pattern_faults(made, where)
    if isinstance(made, Duplicates) and not made.near:
        unused = [name for name in ("threshold", "shingle") if name in given]
        return [Fault((*where, n), f"{title}: {n} counts only with near: true.") for n in unused]
    if isinstance(made, Function) and (found := functions.fault(made.path)):
        return [Fault((*where, "path"), *found)]
    return []


def _pattern_faults(made: Regex, where: Where) -> list[Fault]:
    if (made.drop is None) == (made.keep is None):
        return [Fault(where, f"{'.'.join(where)} needs either drop or keep, a pattern.")]
    name, pattern = ("drop", made.drop) if made.drop is not None else ("keep", made.keep)
    try:
        re.compile(pattern or "")
    except re.error as error:
        return [Fault((*where, name), f"{pattern!r} is not a regular expression: {error}.")]
    return []


def _source(one: Filter) -> dict[str, str]:
    if not isinstance(one, Function):
        return {}
    name = functions.parted(one.path)[1]
    return {"function": name, "source": functions.source_digest(one.path)}
