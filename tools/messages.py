"""Every error text of the package, read from its source: what is wrong, and what to do."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

PLACES = {"Problem": (1, (2, 3)), "Fault": (1, (2,)), "StepError": (0, (1,)), "StoreError": (0, ())}
"""By class: which argument says what is wrong, and which ones help."""
HELP = ("guess", "command")
Texts = Mapping[str, list[str]]


def of(path: Path) -> list[tuple[str, str]]:
    """Each text of a module and its help, in the order of the source; what varies is in braces."""
    found: dict[tuple[str, str], None] = {}
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef):
            found |= dict.fromkeys(_of_function(function))
    return [*found]


def _of_function(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    names = _named(function)
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and (kind := _called(call)) in PLACES:
            fact, helps = PLACES[kind]
            given = {**dict(enumerate(call.args)), **{k.arg: k.value for k in call.keywords}}
            cures = [_texts(given[place], names) for place in (*helps, *HELP) if place in given]
            facts = _texts(given[fact], names) if fact in given else []
            yield from ((text, _cure(cures, at, len(facts))) for at, text in enumerate(facts))


def _cure(cures: Iterable[Sequence[str]], at: int, count: int) -> str:
    """What helps with one of so many texts: what belongs to it, or to all of them."""
    fitting = (texts if len(texts) == count else texts * count for texts in cures)
    return " ".join(texts[at] for texts in fitting if len(texts) == count)


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _named(function: ast.FunctionDef) -> Texts:
    """The texts that are given names within a function."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name, value in _pairs(target, node.value):
                    found.setdefault(name, []).extend(_texts(value, {}))
    return found


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for each, its in zip(target.elts, value.elts, strict=False):
            yield from _pairs(each, its)


def _texts(node: ast.expr, names: Texts) -> list[str]:
    """The texts that an expression may be; none where it says nothing of its own."""
    match node:
        case ast.Constant(value=str(text)):
            found = [text]
        case ast.JoinedStr(values=parts):
            found = ["".join(map(_part, parts))]
        case ast.IfExp(body=one, orelse=other):
            found = [*_texts(one, names), *_texts(other, names)]
        case ast.BoolOp(values=[*values]):
            found = [text for each in values for text in _texts(each, names)]
        case ast.Name(id=name):
            found = names.get(name, [])
        case _:
            found = []
    return [text for text in found if re.search(r"[a-z]", re.sub(r"\{.*?\}", "", text))]


def _part(node: ast.expr) -> str:
    """A piece of a text: itself, or the name of what stands there."""
    match node:
        case ast.Constant(value=text):
            return str(text)
        case ast.FormattedValue(value=ast.Name(id=name) | ast.Attribute(attr=name)):
            return "{" + name.strip("_") + "}" if name.islower() else "{...}"
        case _:
            return "{...}"
