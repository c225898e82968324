"""What may come next on a command line, for the shell's TAB key. Loads neither hydra nor torch."""

import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal, Union

import yaml

from runner import places
from runner.stage import Stage
from runner.sweep.where import LAUNCH, Launch

SHELLS = {
    "bash": """\
_runner_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
    COMPREPLY=($(runner complete "$line" 2>/dev/null))
    local word="${line##*[[:space:]]}"
    if [[ $word == *=* && $COMP_WORDBREAKS == *=* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")  # bash completes what follows the =
    fi
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]]; then compopt -o nospace; fi
} 2>/dev/null
complete -o default -F _runner_complete runner
""",
    "zsh": """\
_runner() {
    local -a found more
    local line="${(j: :)words[1,CURRENT-1]} ${(Q)PREFIX}"
    found=("${(@f)$(runner complete "$line" 2>/dev/null)}")
    found=(${found:#})
    if (( ! $#found )); then _files; return; fi
    more=(${(M)found:#*[=.]})  # a value or a name follows at once
    found=(${found:#*[=.]})
    compadd -S '' -a more
    compadd -a found
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _runner runner
""",
    "fish": """\
complete -c runner -f -a '(runner complete (commandline -cp | string collect) 2>/dev/null)'
complete -c runner -n 'test -z "$(runner complete (commandline -cp | string collect))"' -F
""",
}
"""The script that asks `runner complete` in each shell."""

TAKES_OVERRIDES = ("run", "plan", "check", "show", "lock", "bundle", "sweep")
TAKES_RUN = ("report", "diff", "rm", "watch")


def candidates(line: str, commands: Mapping[str, Callable[[Sequence[str]], int]]) -> list[str]:
    """The words that may stand at the end of a line, with what is typed of them already."""
    words = line.split()
    last = words.pop() if words and not line[-1].isspace() else ""
    if len(words) < 2:
        found: Collection[str] = [*commands, "--help", "--version"] if words else []
    elif words[1] not in commands:
        found = []
    elif last.startswith("-"):
        found = _flags(commands[words[1]])
    else:
        placed = [word for word in words[2:] if not word.startswith("-")]
        found = list(_placed(words[1], placed, last))
    return sorted(word for word in dict.fromkeys(found) if word.startswith(last))


def _flags(command: Callable[[Sequence[str]], int]) -> list[str]:
    """The options that a command's own help names."""
    told = StringIO()
    with redirect_stdout(told), suppress(SystemExit):
        command(["--help"])
    return re.findall(r"(?<![\w-])--[a-z][\w-]*", told.getvalue())


def _placed(command: str, before: Sequence[str], last: str) -> Iterator[str]:
    """What may stand at a command's next place."""
    from runner.stages import known

    stages = known()
    if command in TAKES_RUN:
        yield from _runs(Path("runs"))
    elif command == "schema" and not before:
        yield from stages
    elif command == "completion":
        yield from SHELLS
    elif command == "store":
        from runner.cli_store import VERBS

        yield from VERBS
    elif command in (*TAKES_OVERRIDES, "why", "copy", "runs") and not before:
        yield from (path.stem for path in places.recipes())
        yield from stages if command == "show" else ()
    elif command in (*TAKES_OVERRIDES, "why") and before:
        steps = _steps(before[0], stages)
        is_step = command == "why" and len(before) == 1
        yield from steps if is_step else _overrides(steps, last, stages)


def _runs(root: Path) -> Iterator[str]:
    from runner.report.folder import RECIPE

    for path in root.glob(f"*/*/{RECIPE}"):
        yield path.parent.parent.name
        yield f"{path.parent.parent.name}/{path.parent.name}"


def _steps(recipe: str, stages: Mapping[str, Stage]) -> dict[str, str]:
    """The stage of each step, or part of one, that a recipe's own file says."""
    try:
        said = yaml.safe_load(places.find_recipe(recipe).read_text(encoding="utf-8"))
    except Exception:  # what cannot be read completes to nothing
        return {}
    found: dict[str, str] = {}
    for name in said.get("steps") or () if isinstance(said, dict) else ():
        about = said.get(name) if isinstance(said.get(name), dict) else {}
        stage = str(about.get("stage", name))
        if stage in stages and stages[stage].PARTS:
            found |= {f"{name}.{part}": stage for part in {*about, "model", "data"} - {"stage"}}
        elif stage in stages:
            found[str(name)] = stage
    return found


def _overrides(steps: Mapping[str, str], last: str, stages: Mapping[str, Stage]) -> Iterator[str]:
    key, is_set, _ = last.partition("=")
    if last.startswith(LAUNCH):
        yield from _of_launch(key, bool(is_set))
    for step, stage in steps.items():
        top = step.partition(".")[0]
        if last.startswith("~"):
            yield f"~{top}"
        elif is_set and key == top:
            folders = [*places.recipe_folders(), places.shipped("conf")]
            yield from (f"{key}={preset}" for preset in places.presets_for(stage, folders))
        elif is_set or last.startswith(f"{step}."):
            for name, hint in _options(stages[stage].Options, f"{step}."):
                if not is_set:
                    yield f"{name}="
                elif name == key:
                    yield from (f"{name}={value}" for value in _values(hint))
        else:
            yield from (f"{step}.", f"{top}=", "seed=")


def _of_launch(key: str, is_set: bool) -> Iterator[str]:
    """Where the jobs of a sweep may run, and what can be said of it."""
    folders = [*places.recipe_folders(), places.shipped("conf")]
    if key == LAUNCH:
        yield from (f"{key}={preset}" for preset in places.presets_for(LAUNCH, folders))
    for name, hint in _options(Launch, f"{LAUNCH}."):
        if not is_set:
            yield f"{name}="
        elif name == key:
            yield from (f"{name}={value}" for value in _values(hint))


def _options(kind: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Every option below a prefix, those of mappings in it too, and its type."""
    hints = typing.get_type_hints(kind)
    for field in fields(kind):
        yield prefix + field.name, hints[field.name]
        for each in _alternatives(hints[field.name]):
            if is_dataclass(each):
                yield from _options(each, f"{prefix}{field.name}.")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _values(hint: Any) -> Iterator[str]:
    """The values that can be listed."""
    for each in _alternatives(hint):
        if typing.get_origin(each) is Literal:
            yield from map(str, typing.get_args(each))
        elif each is bool:
            yield from ("true", "false")
        elif each is type(None):
            yield "null"
