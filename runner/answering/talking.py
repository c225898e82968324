"""One model that is asked again and again, by a person: single questions, and conversations."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.answering import loop, settings
from runner.answering.asking import Prompt
from runner.answering.settings import Options
from runner.answering.streaming import Stream
from runner.checkpoint import Checkpoints
from runner.errors import Problem, RecipeError
from runner.options import Fault, build
from runner.products import Row
from runner.stage import Context

LENGTH = 256
"""The longest answer to a person, where the options do not say another."""
GIVEN = ("prompts", "file", "rows")
"""Options that mean nothing to a person who asks one thing at a time."""
ASKED: Mapping[str, str] = {"transformers": "model", "llama.cpp": "gguf"}
"""What each engine asks, by its role. vLLM is not here: it would start for every question."""


def options_of(given: Mapping[str, Any], prompt: str = "") -> Options:
    """The options of a generate step, from what was typed; RecipeError with all their faults."""
    told = {"max_new_tokens": LENGTH, **given, "prompts": [prompt or "..."]}
    options, faults = build(Options, told)
    faults += [Fault((name,), f"{name} is not for here.") for name in GIVEN & given.keys()]
    if options is not None and options.engine not in ASKED:
        fact = f"{options.engine} starts too slowly for single questions."
        faults.append(Fault(("engine",), fact, f"Take engine={' or '.join(ASKED)}."))
    elif options is not None:
        there: Any = {"gguf": ("the run's",)} if options.engine == "llama.cpp" else {}
        faults += [each for each in settings.check(options, there) if each.where]
    if faults:
        raise RecipeError(Problem(".".join(f.where), f.fact, f.guess) for f in faults)
    assert options is not None
    made: Options = options
    return made


def answers(inputs: Mapping[str, Any], options: Options) -> list[Row]:
    """The rows of the options' prompts; `inputs` has what the engine asks."""
    with tempfile.TemporaryDirectory() as folder:
        return loop.answers(options, inputs, _context(Path(folder)))


def reply(
    inputs: Mapping[str, Any],
    options: Options,
    messages: Sequence[Mapping[str, Any]],
    tell: Callable[[str], None],
) -> Row:
    """The answer to a conversation that ends with a question, told piece by piece as it is made."""
    asked = [Prompt(str(messages[-1]["content"]), messages)]
    stream = Stream(options, tell)
    with tempfile.TemporaryDirectory() as folder:
        row = loop.answers(options, inputs, _context(Path(folder)), asked, stream)[0]
    stream.end(str(row["answer"]))
    return row


def _context(folder: Path) -> Context:
    return Context(folder, Checkpoints(folder / "checkpoints", _unsaid))


def _unsaid(text: str) -> None:
    """Nobody waits for a checkpoint here."""
