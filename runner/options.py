"""A stage's options: from a YAML mapping to a frozen dataclass, strictly, all faults at once."""

import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

from runner.errors import did_you_mean, listing

Where = tuple[str, ...]


def option(
    default: Any = MISSING,
    help: str = "",  # noqa: A002  the field's standard word
    *,
    keyed: bool = True,
    at_least: float | None = None,
    at_most: float | None = None,
    from_cwd: bool = False,
    beside: str = "",
) -> Any:
    """A field of an Options dataclass.

    `keyed=False` marks what does not change the result (a worker count, a path whose content is
    digested elsewhere) and so stays out of the key. A `Path` is relative to the file that it is
    written in, or to the working directory with `from_cwd` (for what a run writes). `beside` names
    such a path in each of a list of mappings.
    """
    facts = {
        "help": help,
        "keyed": keyed,
        "at_least": at_least,
        "at_most": at_most,
        "from_cwd": from_cwd,
        "beside": beside,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=facts)
    return field(default=default, metadata=facts)


@dataclass(frozen=True)
class Fault:
    """What is wrong at one place of a mapping; compose.py finds the file and line."""

    where: Where
    fact: str
    guess: str = ""
    is_key: bool = False  # the name is at fault, not the value


def build(kind: type, mapping: Mapping[str, Any], where: Where = ()) -> tuple[Any, list[Fault]]:
    """Make `kind` (a dataclass) from a mapping; None and the faults where it can't be made."""
    hints = _hints(kind)
    known = {f.name: f for f in fields(kind)}
    faults = [unknown(kind, where, str(name)) for name in mapping if name not in known]
    values = {}
    for name, f in known.items():
        if name not in mapping:
            if f.default is MISSING and f.default_factory is MISSING:
                faults.append(Fault(where, f'{_title(where)} needs "{name}": {f.metadata["help"]}'))
            continue
        values[name], found = convert(hints[name], mapping[name], (*where, name))
        faults += found or _out_of_range(f, values[name], (*where, name))
    return (None, faults) if faults else (kind(**values), [])


def revived(kind: type, mapping: Mapping[str, Any]) -> Any:
    """Options that `plain` has written, as they were.

    A resolved option may hold what no recipe may say; TypeError where `kind` has other names.
    """
    hints, values = _hints(kind), {}
    for name, value in mapping.items():
        made, faults = convert(hints.get(name, Any), value, (name,))
        values[name] = value if faults else made
    return kind(**values)


def unknown(kind: type, where: Where, name: str, also: tuple[str, ...] = ()) -> Fault:
    """The fault of a name that `kind` does not have."""
    names = [f.name for f in fields(kind)] + list(also)
    fact = f'{_title(where)} has no option "{name}".'
    guess = did_you_mean(name, names) or f"It takes: {listing(names)}."
    return Fault((*where, name), fact, guess, is_key=True)


def convert(hint: Any, value: Any, where: Where) -> tuple[Any, list[Fault]]:
    """Turn one plain YAML value into the type that a field declares."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, where)
    if hint is Any:
        return value, []
    if origin is Literal:
        return (value, []) if value in args else _wrong(where, value, args)
    if origin is tuple and isinstance(value, list):
        return _convert_items(tuple, enumerate(value), args[0], where)
    if origin is dict and isinstance(value, Mapping):
        return _convert_items(dict, value.items(), args[1], where)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return build(hint, value, where)
    if hint is float and type(value) is int:
        return float(value), []
    if hint is Path and isinstance(value, str):
        return Path(value).expanduser(), []
    if hint is float and type(value) is float and not math.isfinite(value):
        return None, [Fault(where, f"{_title(where)} must be a finite number, got {value}.")]
    if hint in (bool, int, float, str) and type(value) is hint:
        return value, []
    if hint is type(None) and value is None:
        return None, []
    return None, [Fault(where, f"{_title(where)} must be {describe(hint)}, got {_show(value)}.")]


def describe(hint: Any) -> str:
    """A type in the words of a recipe: `int`, `"nf4" or "fp4"`, `list of str`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(arg) for arg in args)
    if origin is Literal:
        return " or ".join(f'"{arg}"' if isinstance(arg, str) else str(arg) for arg in args)
    if origin is tuple:
        return f"a list, each {describe(args[0])}"
    if origin is dict or is_dataclass(hint):
        return "a mapping"
    if hint is type(None):
        return "null"
    return {Path: "a path", str: "a text", int: "a whole number", float: "a number"}.get(
        hint, {bool: "true or false"}.get(hint, str(hint))
    )


def keyed(options: Any) -> dict[str, Any]:
    """The options that change the result, as plain values for the key."""
    return dict(plain(options, lambda f: bool(f.metadata.get("keyed", True))))


def plain(value: Any, wanted: Callable[[Field[Any]], bool] = lambda _: True) -> Any:
    """Options as YAML and JSON can hold them; of dataclasses, the wanted fields."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), wanted) for f in fields(value) if wanted(f)}
    if isinstance(value, Mapping):
        return {str(k): plain(v, wanted) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, wanted) for v in value]
    return str(value) if isinstance(value, Path) else value


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(kind)


def documented(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and description of every option, for `runner show`."""
    hints = _hints(kind)
    for f in fields(kind):
        default = f.default if f.default is not MISSING else MISSING
        if f.default_factory is not MISSING:
            default = f.default_factory()
        shown = "required" if default is MISSING else _show(plain(default))
        yield f.name, describe(hints[f.name]), shown, f.metadata.get("help", "")


def _convert_union(args: tuple[Any, ...], value: Any, where: Where) -> tuple[Any, list[Fault]]:
    if value is None and type(None) in args:
        return None, []
    found: list[Fault] = []
    for arg in args:
        made, found = convert(arg, value, where)
        if not found:
            return made, []
        if is_dataclass(arg) and isinstance(value, Mapping):
            return None, found
    rest = [arg for arg in args if arg is not type(None)]
    if isinstance(value, list):  # of what cannot be one, nothing need be said
        rest = [arg for arg in rest if typing.get_origin(arg) is tuple] or rest
    if len(rest) == 1:
        return convert(rest[0], value, where)
    kinds = " or ".join(describe(arg) for arg in rest)
    return None, [Fault(where, f"{_title(where)} must be {kinds}, got {_show(value)}.")]


def _convert_items(make: Any, items: Any, hint: Any, where: Where) -> tuple[Any, list[Fault]]:
    pairs, faults = [], []
    for name, value in items:
        made, found = convert(hint, value, (*where, str(name)))
        pairs.append((name, made))
        faults += found
    return make(pairs) if make is dict else make(made for _, made in pairs), faults


def _wrong(where: Where, value: Any, valid: tuple[Any, ...]) -> tuple[None, list[Fault]]:
    names = [str(v) for v in valid]
    fact = f"{_title(where)} takes {describe(Literal[valid])}, got {_show(value)}."
    return None, [Fault(where, fact, did_you_mean(value, names) if isinstance(value, str) else "")]


def _out_of_range(f: Field[Any], value: Any, where: Where) -> list[Fault]:
    low, high = f.metadata.get("at_least"), f.metadata.get("at_most")
    if not isinstance(value, int | float):
        return []
    if low is not None and value < low:
        return [Fault(where, f"{_title(where)} must be at least {low}, got {_show(value)}.")]
    if high is not None and value > high:
        return [Fault(where, f"{_title(where)} must be at most {high}, got {_show(value)}.")]
    return []


def _title(where: Where) -> str:
    return ".".join(where) if where else "the recipe"


def _show(value: Any) -> str:
    import json

    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
