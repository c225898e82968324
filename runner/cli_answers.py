"""`runner generate` and `runner chat`: the model that a run has made answers, once or on and on."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import Problem, RecipeError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from runner.answering.settings import Options

OPTIONS = "options of a generate step: max_new_tokens=99 temperature=0.7"
AGAIN = "/new"
GGUF = "engine=llama.cpp asks the GGUF file that it has saved or fetched."


def _generate(words: Sequence[str]) -> int:
    from runner.answering import talking

    parser = _parser("generate", f"Have the last model of a run answer a prompt. {GGUF}")
    parser.add_argument("prompt", help="what to ask; - reads it from standard input")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help=OPTIONS)
    parser.add_argument("--json", action="store_true", help="whole rows, for programs")
    given = parser.parse_intermixed_args(words)
    prompt = sys.stdin.read() if given.prompt == "-" else given.prompt
    options = talking.options_of(_typed(given.options), prompt)
    rows = talking.answers(_asked(given, options), options)
    for row in rows:
        print(_as_json(row) if given.json else _said(row))
    return 1 if any(row["finish"] == "error" for row in rows) else 0


def _chat(words: Sequence[str]) -> int:
    from runner.answering import talking

    parser = _parser("chat", f"Talk to the last model of a run. {AGAIN} begins anew. {GGUF}")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help=OPTIONS)
    given = parser.parse_intermixed_args(words)
    options = talking.options_of(_typed(given.options))
    inputs, messages = _asked(given, options), list[dict[str, str]]()
    print(f"{AGAIN} begins anew; an empty line or Ctrl-D ends.")
    while text := _line():
        if text == AGAIN:
            messages.clear()
            continue
        messages.append({"role": "user", "content": text})
        row = talking.reply(inputs, options, messages, _tell)
        print("" if row["finish"] != "error" else _said(row))
        messages.append({"role": "assistant", "content": row["answer"]})
        if row["finish"] == "error":
            messages.clear()
    return 0


def _tell(text: str) -> None:
    """A piece of an answer, at once."""
    print(text, end="", flush=True)


def _line() -> str:
    """What is typed next; nothing at the end."""
    print("> ", end="", flush=True)
    return sys.stdin.readline().strip()


def _said(row: Mapping[str, Any]) -> str:
    return str(row["answer"]) if row["finish"] != "error" else f"(no answer: {row['reason']})"


def _as_json(row: Mapping[str, Any]) -> str:
    import json

    return json.dumps(row, ensure_ascii=False)


def _typed(words: Sequence[str]) -> dict[str, Any]:
    """Options as they are typed, their values as YAML reads them."""
    import yaml

    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            fact = f'"{word}" is no option.'
            raise RecipeError([Problem("", fact, "Write name=value.", "runner show generate")])
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError([Problem(name, f"{value} cannot be read.")]) from error
    return found


def _asked(given: "Namespace", options: "Options") -> dict[str, Any]:
    """What the engine asks: the run's last model, or the last GGUF file that it has."""
    from runner import hardware, results, running
    from runner.answering import talking
    from runner.report import folder

    for name, value in running.QUIET.items():
        os.environ.setdefault(name, value)
    hardware.prepare()
    there = folder.find(given.run, given.runs)
    role = talking.ASKED[options.engine]
    find = results.model_of if role == "model" else results.gguf_of
    return {role: find(there, lambda text: print(text, file=sys.stderr))}


def _parser(command: str, description: str) -> "ArgumentParser":
    from argparse import ArgumentParser

    parser = ArgumentParser(f"runner {command}", description=description)
    parser.add_argument("run", help="a run's folder or name, or a recipe's name for its newest run")
    parser.add_argument("--runs", default="runs", type=Path, help="where the runs are (runs)")
    return parser


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"generate": _generate, "chat": _chat}
