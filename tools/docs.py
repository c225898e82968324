"""Rewrites the parts of docs/ that repeat what the code says: `make readme`.

Such a part stands between `<!-- made: NAME OF WHAT -->` and `<!-- end -->`.
"""

import re
import typing
from argparse import SUPPRESS, ArgumentParser, _SubParsersAction
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import messages
import parsers

from runner import cli, errors, events, extras, places
from runner.data.cleaning.filters import KINDS
from runner.data.shapes.table import SHAPES
from runner.options import documented
from runner.quantizing.methods import METHODS, Method
from runner.report.causes import CAUSES
from runner.report.machine import said
from runner.scoring import gates
from runner.stage import Stage
from runner.stages import STAGES
from runner.top import Top

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PART = re.compile(r"(<!-- made: (\S+)(?: ([^\n]+?))? -->\n).*?(<!-- end -->\n)", re.DOTALL)


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted(DOCS.rglob("*.md"))


def generated(text: str) -> str:
    """A page with its generated parts made anew."""

    def made(found: re.Match[str]) -> str:
        lines = MAKERS[found[2]](found[3]) if found[3] else MAKERS[found[2]]()
        body = "\n".join(lines)
        return f"{found[1]}\n{body}\n\n{found[4]}" if body else found[1] + found[4]

    return PART.sub(made, text)


def _table(head: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table; what stands in a cell may hold no bar and no end of a line."""
    titles = head.split(" | ")
    yield from (f"| {head} |", "|---" * len(titles) + "|")
    for row in rows:
        cells = (" ".join(each.replace("|", "\\|").split()) for each in row)
        yield f"| {' | '.join(cells)} |"


def _code(text: object) -> str:
    """A text as it is typed."""
    said = " ".join(str(text).split())
    return f"`` {said} ``" if "`" in said else f"`{said}`"


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


# Stages


def _stages() -> Iterator[str]:
    rows = (
        (f"[{name}](stages/{name}.md)", _first_line(stage), stage.GIVES)
        for name, stage in STAGES.items()
    )
    return _table("stage | what it does | gives", rows)


def _stage(name: str) -> Iterator[str]:
    stage = STAGES[name]
    yield from (_first_line(stage), "")
    yield from _roles(stage)
    yield from ("", f"It gives: {stage.GIVES}. It asks a cluster for {stage.RESOURCES}.", "")
    yield from ("## Options", "")
    yield from _options(stage.Options)
    yield from _within(stage.Options, f"{name}.")


def _roles(stage: Stage) -> Iterator[str]:
    if not stage.NEEDS:
        yield "It takes nothing from other steps."
        return
    rows = []
    for role, need in stage.NEEDS.items():
        kind = f"{need.kind} named {_code(need.part)}" if need.part else need.kind
        filled = "every step that gives some" if need.many else "the latest step that gives it"
        filled = "the step that the recipe names" if need.named else filled
        rows.append(
            (_code(role), kind, filled, "may be left out" if need.optional or need.named else "")
        )
    yield from _table("role | what it takes | from | ", rows)


def _options(kind: Any, *, of_key: bool = True) -> Iterator[str]:
    """Every option; with `of_key`, whether it is part of a step's key."""
    keyed = {f.name: f.metadata.get("keyed", True) for f in fields(kind)}
    rows = (
        (_code(name), about, hint, _default(default), *["" if keyed[name] else "no"] * of_key)
        for name, hint, default, about in documented(kind)
    )
    head = "option | what it means | takes | default"
    return _table(f"{head} | in the key" if of_key else head, rows)


def _default(shown: str) -> str:
    return shown if shown == "required" else _code(shown)


def _within(kind: Any, above: str = "", *, of_key: bool = True) -> Iterator[str]:
    """The options of mappings that options hold."""
    hints = typing.get_type_hints(kind)
    for name in (field.name for field in fields(kind)):
        for each in _dataclasses(hints[name]):
            yield from ("", f"### `{above}{name}`", "", _first_line(each), "")
            yield from _options(each, of_key=of_key)


def _dataclasses(hint: Any) -> Iterator[Any]:
    if is_dataclass(hint):
        yield hint
    for each in typing.get_args(hint):
        yield from _dataclasses(each)


def _filters() -> Iterator[str]:
    for name, kind in KINDS.items():
        yield from (f"### `kind: {name}`", "", _first_line(kind), "")
        lines = [*_options(kind, of_key=False)]
        own = [line for line in lines if not line.startswith("| `kind` ")]
        yield from (*own, "") if len(own) > 2 else ()


def _shapes() -> Iterator[str]:
    rows = (
        (_code(name), _columns(shape.needs), _columns(shape.takes), shape.gives)
        for name, shape in SHAPES.items()
    )
    return _table("shape | columns (or) | may have | becomes", rows)


def _columns(names: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(
        _code(name) + (f" ({', '.join(map(_code, others))})" if others else "")
        for name, others in names.items()
    )


def _methods() -> Iterator[str]:
    head = "`method` | bits | made by | from rows | opens in"
    return _table(head, (_method(*each) for each in METHODS.items()))


def _method(name: str, method: Method) -> Sequence[str]:
    bits = ", ".join(map(str, sorted(method.bits))) or "as they are"
    extra = f" (extra: {method.extra})" if method.extra else ""
    rows = "yes" if method.calibrates else "no"
    return name, bits, f"{method.library or 'a copy'}{extra}", rows, ", ".join(method.opens_in)


def _recipe() -> Iterator[str]:
    yield from _options(Top, of_key=False)
    yield from _within(Top, of_key=False)


def _presets() -> Iterator[str]:
    stage = ""
    for name, preset, path in places.presets():
        if name != stage:
            yield from ("", f"## {name}", "") if stage else (f"## {name}", "")
            stage = name
        text = path.read_text(encoding="utf-8")
        about = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        yield from (f"### `{name}={preset}`", "", about, "", "```yaml")
        yield from (line for line in text.splitlines() if not line.startswith("#"))
        yield from ("```", "")


# Commands


def _commands() -> Iterator[str]:
    for name in cli.COMMANDS:
        parser = parsers.parser_of(name)
        yield from (f"## {name}", "", parser.description or "", "")
        yield from _command(f"runner {name}", parser)
        yield ""


def _command(words: str, parser: ArgumentParser) -> Iterator[str]:
    actions = [action for action in parser._actions if action.dest != "help"]
    verbs = [action for action in actions if isinstance(action, _SubParsersAction)]
    placed = [each for each in actions if not each.option_strings and each not in verbs]
    usage = " ".join([words, *map(_place, placed), *("VERB" for _ in verbs)])
    yield from ("```text", usage, "```", "")
    plain = [each for each in actions if each not in verbs]
    if plain:
        yield from _table("argument | what it means", ((_names(a), a.help or "") for a in plain))
    for each in verbs:
        about = {choice.dest: choice.help or "" for choice in each._choices_actions}
        for verb, sub in each.choices.items():
            yield from (
                "",
                f"### {words.split()[-1]} {verb}",
                "",
                f"{about[verb][0].upper()}{about[verb][1:]}.",
                "",
            )
            yield from _command(f"{words} {verb}", sub)


def _place(action: Any) -> str:
    name = str(action.metavar or action.dest).upper()
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} ..."}.get(action.nargs, name)


def _names(action: Any) -> str:
    """How an argument is typed, and what it takes."""
    takes = "" if action.nargs == 0 or not action.option_strings else " " + _taken(action)
    shown = ", ".join(_code(f"{each}{takes}") for each in action.option_strings) or _code(
        _place(action)
    )
    default = action.default
    named = default not in (None, False, SUPPRESS, []) and action.option_strings
    return f"{shown} (else {_code(default)})" if named and "(" not in (action.help or "") else shown


def _taken(action: Any) -> str:
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    name = str(action.metavar or action.dest.upper())
    return f"[{name}]" if action.nargs == "?" else name


def _help() -> Iterator[str]:
    yield from ("```text", *cli.HELP.rstrip("\n").split("\n"), "```")


def _events() -> Iterator[str]:
    """What each event says, told by one of each kind."""
    step = SimpleNamespace(name="adapt")
    planned: Any = SimpleNamespace(step=step, key="", verdict="run", reason="")
    entry = SimpleNamespace(record={"digest": "", "facts": {}})
    done: Any = SimpleNamespace(planned=planned, entry=entry, seconds=0, verdict="run", reason="")
    each = (
        events.Started(planned),
        events.Noted("adapt", ""),
        events.Progressed("adapt", 0, 1, "steps", {}),
        events.Measured("adapt", {}),
        events.Finished(done),
        events.Dropped("adapt", 0),
    )
    rows = (
        (_code(type(one).__name__.lower()), _first_line(one), ", ".join(map(_code, said(one))))
        for one in each
    )
    return _table("`event` | when | what it says", rows)


# Errors


def _exit_codes() -> Iterator[str]:
    def below(kind: type) -> Iterator[type]:
        for each in kind.__subclasses__():
            if each.__module__ in (errors.__name__, gates.__name__):  # whatever else is loaded
                yield each
                yield from below(each)

    rows = [
        (
            _code(vars(each).get("exit_code", each.exit_code)),
            _code(each.__name__),
            _first_line(each),
        )
        for each in below(errors.RunnerError)
        if each is not errors.Stopped
    ]
    stopped = _first_line(errors.Stopped)
    rows += [
        (_code(errors.EXIT_OUR_FAULT), "any other exception", "Our own fault, with a report file."),
        (_code(errors.EXIT_PREEMPTED), _code("Stopped"), f"{stopped} By SIGTERM or SIGUSR1."),
        (_code(errors.EXIT_INTERRUPTED), _code("Stopped"), f"{stopped} By Ctrl-C."),
    ]
    return _table("code | error | when", rows)


def _errors() -> Iterator[str]:
    for path in sorted((ROOT / "runner").rglob("*.py")):
        if found := messages.of(path):
            about = _first_line_of(path)
            yield from (f"## `{path.relative_to(ROOT).as_posix()}`", "", about, "")
            yield from (f"- {'<br>'.join(map(_code, texts))}" for texts in _merged(found))
            yield ""


def _merged(found: Iterable[tuple[str, str]]) -> Iterator[list[str]]:
    """Each text once, with everything that helps."""
    by_text: dict[str, list[str]] = {}
    for text, cure in found:
        by_text.setdefault(text, []).extend([cure] if cure else [])
    yield from ([text, *dict.fromkeys(cures)] for text, cures in by_text.items())


def _first_line_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].strip('"')


def _causes() -> Iterator[str]:
    rows = ((each.name, each.cure) for each in CAUSES)
    return _table("cause | what helps", rows)


def _extras() -> Iterator[str]:
    rows = (
        (_code(name), about, _code(extras.line(name))) for name, about in extras.ENABLES.items()
    )
    return _table("extra | what it enables | to have it", rows)


def _file(name: str) -> Iterator[str]:
    text = (ROOT / name).read_text(encoding="utf-8").rstrip("\n")
    yield from (f'```yaml title="{Path(name).name}"', *text.split("\n"), "```")


MAKERS: Mapping[str, Callable[..., Iterator[str]]] = {
    "stages": _stages,
    "stage": _stage,
    "filters": _filters,
    "shapes": _shapes,
    "methods": _methods,
    "recipe": _recipe,
    "presets": _presets,
    "commands": _commands,
    "help": _help,
    "events": _events,
    "exit-codes": _exit_codes,
    "errors": _errors,
    "causes": _causes,
    "extras": _extras,
    "file": _file,
}


if __name__ == "__main__":
    for page in pages():
        page.write_text(generated(page.read_text(encoding="utf-8")), encoding="utf-8")
