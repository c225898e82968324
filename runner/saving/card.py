"""The model card: what a person wants to know first, and what the Hub reads.

https://huggingface.co/docs/hub/model-cards
"""

import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runner import __version__, files, hardware
from runner.plan import versions
from runner.saving.licence import Licence

TEMPLATE = "card.md.jinja"
NAME = "README.md"
TAG = "recipe-runner"
LONGEST = 1500
"""Characters of an answer that are shown."""


@dataclass(frozen=True)
class Told:
    """What a card is made of."""

    title: str
    library: str
    """What opens the folder: transformers, peft or llama.cpp."""
    quantized: bool
    base: Mapping[str, Any]
    """What the base was pinned to: repo and commit, or a wheel, a path, a URL."""
    is_changed: bool
    """Whether anything was done to the base's weights."""
    licence: Licence
    lineage: Sequence[Mapping[str, Any]]
    sources: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, Any]]
    """By step, the scores that it gave."""
    confidence: float | None
    """The share of draws between the ends of an interval."""
    size: int
    """Bytes of the weights."""
    parameters: int


def write(told: Told, folder: Path) -> None:
    """Write the card; a ValueError of huggingface_hub's where its own check finds a fault."""
    from huggingface_hub import ModelCard

    text = f"---\n{_data(told).to_yaml()}\n---\n\n{_body(told)}"
    card = ModelCard(text, ignore_metadata_errors=False)
    files.write_text(folder / NAME, str(card), synced=False)


def _data(told: Told) -> Any:
    """The metadata that the Hub reads, with the scores as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out",
            dataset_name="rows held out of the recipe's data",
            metric_type=row.name.replace(" ", "_"),
            metric_value=row.number,
            metric_name=f"{row.name}, {row.of}",
        )
        for row in scores(told.scores)
    ]
    repo = told.base.get("repo")
    relation = (
        "adapter" if told.library == "peft" else "quantized" if told.quantized else "finetune"
    )
    given: dict[str, Any] = {
        "base_model": repo,
        "base_model_relation": relation if repo and told.is_changed else None,
        "datasets": _datasets(told) or None,
        "library_name": told.library,
        "license": told.licence.id,
        "license_name": told.licence.name,
        "license_link": told.licence.link,
        "pipeline_tag": "text-generation",
        "tags": [TAG],
        "model_name": told.title if results else None,
        "eval_results": results or None,
    }
    return ModelCardData(**{name: value for name, value in given.items() if value is not None})


def _datasets(told: Told) -> list[str]:
    return [
        str(row["repo"])
        for row in told.sources.values()
        if row.get("type") == "dataset" and row.get("repo")
    ]


@cache
def _template() -> Any:
    """The page, compiled: that takes longer than filling it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(  # noqa: S701  the page is Markdown: texts are fenced, cells escaped
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters["fenced"] = fenced
    return page.get_template(TEMPLATE)


def _body(told: Told) -> str:
    shown = _template().render(
        title=told.title,
        summary=_summary(told),
        use=_use(told),
        base_note=_base_note(told),
        scores=list(scores(told.scores)),
        confidence=_confidence(told),
        samples=list(_samples(told.scores)),
        steps=[{**row, "seconds": f"{row['seconds']:.1f}"} for row in told.lineage],
        sources=list(_sources(told.sources)),
        facts=list(_facts(told)),
        license_note=told.licence.note,
    )
    return re.sub(r"\n{3,}", "\n\n", shown).rstrip() + "\n"


def _summary(told: Told) -> str:
    base = told.base.get("repo") or told.base.get("wheel") or "a model from a local file"
    link = f"[{base}](https://huggingface.co/{base})" if told.base.get("repo") else f"`{base}`"
    stages = {row["stage"]: row for row in told.lineage}
    done = []
    if "adapt" in stages:
        done.append("taught on data of its own")
    if "quantize" in stages:
        done.append(f"quantized to {stages['quantize']['facts'].get('method', 'fewer bits')}")
    what = "An adapter for" if told.library == "peft" else "Made from"
    return f"{what} {link}{': ' + ' and '.join(done) if done else ''}."


def _use(told: Told) -> str:
    if told.library == "llama.cpp":
        return (
            "from llama_cpp import Llama\n\n"
            'model = Llama("PATH_OF_THE_GGUF_FILE")\n'
            'messages = [{"role": "user", "content": "Hello"}]\n'
            "print(model.create_chat_completion(messages))"
        )
    if told.library == "transformers":
        return (
            "from transformers import pipeline\n\n"
            'messages = [{"role": "user", "content": "Hello"}]\n'
            'print(pipeline("text-generation", "PATH_OR_NAME")(messages))'
        )
    base = told.base.get("repo") or "FOLDER_OF_THE_BASE"
    commit = told.base.get("commit")
    revision = f', revision="{commit}"' if told.base.get("repo") and commit else ""
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base}"{revision})\n'
        'model = PeftModel.from_pretrained(base, "PATH_OR_NAME")\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH_OR_NAME")'
    )


def _base_note(told: Told) -> str:
    commit = told.base.get("commit")
    return f"The base is `{told.base['repo']}` at commit `{commit}`." if commit else ""


@dataclass(frozen=True)
class Row:
    """One score, as the table shows it."""

    name: str
    of: str
    number: float
    interval: str

    @property
    def value(self) -> str:
        """The number for people: four digits."""
        return f"{self.number:.4g}"


def scores(given: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Every score with what it is of; of texts in the recipe's order, before and after."""
    for step, found in given.items():
        for name, value in found.items():
            if name in ("intervals", "samples", "rows") or not isinstance(value, Mapping):
                continue
            for of, number in value.items():
                bounds = found.get("intervals", {}).get(name, {}).get(of)
                shown = f"{bounds[0]:.4g} to {bounds[1]:.4g}" if bounds else ""
                title = of if len(given) == 1 else f"{step}.{of}"
                yield Row(name.replace("_", " "), title, number, shown)


def _confidence(told: Told) -> str:
    has_some = any(row.interval for row in scores(told.scores))
    return f"a confidence of {told.confidence:.0%}" if has_some and told.confidence else ""


def _samples(given: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for found in given.values():
        for sample in found.get("samples", ()):
            yield {
                "prompt": sample["prompt"],
                "expected": sample.get("expected"),
                "answers": list(sample["answers"].items()),
            }


def _sources(sources: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """What was fetched, and the commit or digest that says exactly what."""
    for name, row in sources.items():
        kind = next((each for each in ("repo", "wheel", "url", "path") if row.get(each)), None)
        pin = next((row[each] for each in ("commit", "sha256", "digest") if row.get(each)), None)
        if kind:
            yield {"name": name, "what": cell(row[kind]), "pin": str(pin or "nothing")}


def _facts(told: Told) -> Iterator[tuple[str, str]]:
    yield "weights", f"{files.human_bytes(told.size)}, {told.parameters / 1e6:,.1f} M parameters"
    gpus = ", ".join(gpu.name for gpu in hardware.gpus())
    yield "made on", f"{hardware.cores()} cores ({platform.machine()}), {gpus or 'no GPU'}"
    yield "time", f"{sum(row['seconds'] for row in told.lineage):.0f} s in all steps"
    yield "runner", __version__
    yield "libraries", ", ".join(f"{name} {version}" for name, version in versions().items())


def cell(text: Any) -> str:
    """A text inside a table of Markdown."""
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", " ".join(str(text).split()))


def fenced(text: Any) -> str:
    """A text as it is, whatever is in it: between fences that are longer than any of its own."""
    shown = str(text)
    if len(shown) > LONGEST:
        shown = f"{shown[:LONGEST]}…"
    longest = max((len(each) for each in re.findall(r"`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"
