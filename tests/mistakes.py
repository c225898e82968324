"""Mistakes that people make in recipes: one change each to a recipe that is right."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hub import Repo

RECIPE = """\
name: right
steps: [fetch, process, load, before, adapt, generate, quantize, evaluate, save]
seed: 1
fetch:
  model: {path: model}
  data: {path: rows.jsonl}
process: {held_out: 4, max_length: 128}
load: {dtype: float32}
before: {stage: generate, max_new_tokens: 8}
adapt: {rank: 4, max_steps: 2, effective_batch_size: 4}
generate: {max_new_tokens: 8}
quantize: {method: nf4}
evaluate: {reference: adapt}
save: {to: out, verify: false}
"""
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
"""A template that never ends an answer."""
COMMIT = "0" * 40


@dataclass(frozen=True)
class Mistake:
    """One change: to the recipe's text, by overrides, or of a file; and what is said of it.

    `fact` and `cure` are parts of the text: what is wrong, and what to do about it.
    """

    name: str
    fact: str
    cure: str
    change: tuple[str, str] = ("", "")
    words: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    recipe: str = "right.yaml"

    def lay(self, folder: Path, model: Path) -> list[str]:
        """Write the recipe and its files; gives the words that follow `runner check` or `run`."""
        old, new = self.change
        assert old in RECIPE, old
        (folder / "right.yaml").write_text(RECIPE.replace(old, new) if old else RECIPE)
        (folder / "rows.jsonl").write_text("".join(map(row, range(24))))
        (folder / "model").symlink_to(model)
        for name, text in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        return [self.recipe, *self.words]


def row(number: int, answer: str = "") -> str:
    """A line of conversations."""
    said = {"role": "user", "content": f"say {number}"}
    return json.dumps({"messages": [said, {"role": "assistant", "content": answer or "so"}]}) + "\n"


def repositories() -> list[Repo]:
    """What is on the Hub: a model that all may have, and one that is gated."""
    content = {"config.json": b"{}", "model.safetensors": bytes(2048)}
    return [Repo("acme/tiny", files=content), Repo("acme/gated", files=content, gated=True)]


def hub(repo: str) -> tuple[str, str]:
    """The model comes from the Hub."""
    return "{path: model}", f"{{repo: {repo}}}"


KEYS = (
    Mistake("a key", 'adapt has no option "rnk"', 'Did you mean "rank"?', ("rank: 4", "rnk: 4")),
    Mistake("a key at the top", 'a recipe has no "sed"', '"seed"', ("seed: 1", "sed: 1")),
    Mistake(
        "a key of process",
        'process has no option "maxlength"',
        '"max_length"',
        ("max_length: 128", "maxlength: 128"),
    ),
    Mistake("a key of quantize", '"methd"', '"method"', ("method: nf4", "methd: nf4")),
    Mistake(
        "a key within an option",
        'save.push has no option "privat"',
        '"private"',
        ("verify: false", "push: {repo: me/it, privat: true}"),
    ),
    Mistake("a key of a source", '"pth"', '"path"', ("{path: rows.jsonl}", "{pth: rows.jsonl}")),
    Mistake(
        "a key of evaluate", '"metric"', '"metrics"', ("reference:", "metric: [f1], reference:")
    ),
    Mistake(
        "a key of an override",
        'generate has no option "max_tokens"',
        "max_new_tokens",
        words=("generate.max_tokens=4",),
    ),
)
TYPES = (
    Mistake(
        "a word for a number", "adapt.rank must be", "a whole number", ("rank: 4", "rank: four")
    ),
    Mistake(
        "a number out of range", "max_length", "at least 1", ("max_length: 128", "max_length: 0")
    ),
    Mistake(
        "a word for a truth", "save.verify", "true or false", ("verify: false", 'verify: "no"')
    ),
    Mistake("a text for a list", "process.filters", "a list", ("held_out: 4", "filters: all")),
    Mistake("a rate in words", "learning_rate", "a number", ("rank: 4", "learning_rate: fast")),
    Mistake(
        "no such choice", "load.dtype takes", '"float16"?', ("dtype: float32", "dtype: flot16")
    ),
    Mistake(
        "steps that are no list",
        "steps must be",
        "a list",
        ("[fetch, process, load, before, adapt, generate, quantize, evaluate, save]", "fetch"),
    ),
    Mistake("a negative seed", "seed must be", "at least 0", ("seed: 1", "seed: -1")),
)
NAMES = (
    Mistake("a step", '"laod" is neither a stage', '"load"?', ("process, load,", "process, laod,")),
    Mistake("a stage", 'no stage "genrate"', '"generate"?', ("stage: generate", "stage: genrate")),
    Mistake("a preset", 'adapt has no preset "loar"', '"lora"?', words=("adapt=loar",)),
    Mistake("a recipe", 'no recipe "rihgt', '"right"?', recipe="rihgt"),
    Mistake("a step to leave out", 'no step "befor"', '"before"?', words=("~befor",)),
    Mistake(
        "a step in a role",
        '"adpat" is no earlier step',
        '"adapt"?',
        ("reference: adapt", "reference: adpat"),
    ),
    Mistake(
        "a step twice",
        "stands in steps twice",
        "a name of its own",
        ("process, load,", "process, process, load,"),
    ),
)
SOURCES = (
    Mistake("a file", "row.jsonl does not exist", '"rows.jsonl"?', ("rows.jsonl", "row.jsonl")),
    Mistake("a repository", "has no model acme/tniy", "hf auth login", hub("acme/tniy")),
    Mistake("a branch", 'no revision "mian"', '"main"?', hub("acme/tiny, revision: mian")),
    Mistake("a gated repository", "acme/gated is gated", "hf auth login", hub("acme/gated")),
    Mistake(
        "a pattern",
        "no file that fits include",
        '"model.safetensors"?',
        hub("acme/tiny, include: [modl.safetensors]"),
    ),
    Mistake(
        "a URL without its digest",
        "may change: say its sha256",
        "runner lock",
        ("{path: rows.jsonl}", '{url: "http://127.0.0.1:9/rows.jsonl"}'),
    ),
    Mistake(
        "a URL that nobody serves",
        "cannot be fetched",
        "Connection refused",
        ("{path: rows.jsonl}", f'{{url: "http://127.0.0.1:9/rows.jsonl", sha256: "{"0" * 64}"}}'),
    ),
    Mistake(
        "a wheel that is not there",
        "No matching distribution found",
        "llm-of-nobody==1.0",
        ("{path: model}", '{wheel: "llm-of-nobody==1.0", members: ["*"]}'),
    ),
    Mistake(
        "a wheel that is not pinned",
        "must be pinned",
        "name==version",
        ("{path: model}", '{wheel: "llm>=1", members: ["*"]}'),
    ),
)
MASKS = (
    Mistake(
        "a template that is none",
        "template.jinja:1: is no chat template",
        "Jinja",
        ("held_out: 4", "template: template.jinja"),
        files={"template.jinja": "{% for m in messages %}{{ m.content }"},
    ),
    Mistake(
        "a template that is not there",
        "templat.jinja does not exist",
        '"template.jinja"?',
        ("held_out: 4", "template: templat.jinja"),
        files={"template.jinja": CHAT},
    ),
    Mistake(
        "a template that never ends an answer",
        "No token ends an answer",
        "process.template=FILE",
        ("held_out: 4", "template: template.jinja"),
        files={"template.jinja": CHAT},
    ),
    Mistake(
        "a column",
        'no shape has a column "quesion"',
        '"question"?',
        ("held_out: 4", "columns: {quesion: q}"),
    ),
    Mistake(
        "a row that is no conversation",
        "rows.jsonl:3",
        "process.on_bad_row=skip",
        files={"rows.jsonl": row(0) + row(1) + '{"messages": "hello"}\n' + row(3)},
    ),
    Mistake(
        "a row that is too long",
        "and 128 are allowed",
        "process.max_length=",
        files={"rows.jsonl": row(0) + row(1, "long " * 200) + "".join(map(row, range(9)))},
    ),
)
STEPS = (
    Mistake(
        "quantized twice",
        "load quantizes already",
        "leave load.quantization out",
        ("dtype: float32", "quantization: {method: nf4}"),
        ("~adapt", "evaluate.reference=load"),
    ),
    Mistake(
        "all weights of a quantized model",
        "full cannot train them",
        "method=qlora",
        ("rank: 4", "method: full"),
        ("load.quantization={method: int8}", "~quantize"),
    ),
    Mistake(
        "an adapter of a whole model",
        "gives a whole model",
        "no adapter to save",
        ("verify: false", "format: adapter"),
    ),
    Mistake(
        "pairs of which there are none",
        "dpo learns from",
        "adapt.objective=sft",
        ("rank: 4", "objective: dpo"),
    ),
    Mistake(
        "a step too early",
        "adapt needs model",
        "It comes from: load",
        ("load, before, adapt", "adapt, load, before"),
    ),
    Mistake(
        "a folder that is taken",
        "holds something else",
        "save.overwrite=true",
        files={"out/notes.txt": "mine"},
    ),
    Mistake(
        "two lengths of a training",
        "says already how long to train",
        "Leave out one.",
        ("rank: 4", "epochs: 1"),
    ),
)
MISTAKES = {
    "keys": KEYS,
    "types": TYPES,
    "names": NAMES,
    "sources": SOURCES,
    "masks": MASKS,
    "steps": STEPS,
}
