"""The papers of a saved model: card, licence, recipe and lineage, from what the run knows of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import products
from runner.products import Files, Row
from runner.saving import card, licence, papers, shards
from runner.saving.formats import Written
from runner.stage import Context, Facts

SAMPLES = 3
"""Answers that a card shows where no step has chosen some."""


@dataclass(frozen=True)
class Model:
    """What the card says of a model that is no longer in memory."""

    library: str
    is_quantized: bool
    parameters: int
    size: int


def about(written: Written, folder: Path) -> Model:
    """What is to be said of a model, while it is in memory."""
    from runner.memory import shape

    if written.library == "peft":
        return Model("peft", False, shards.parameters(folder), products.weight_bytes(folder))
    return Model(
        library=written.library,
        is_quantized=bool(getattr(written.model, "is_quantized", False)),
        parameters=shape.parameters_of(written.model),
        size=(folder / written.file).stat().st_size
        if written.file
        else products.weight_bytes(folder),
    )


def write(model: Model, inputs: Mapping[str, Any], folder: Path, context: Context) -> None:
    """Write the card, the licence's text, the recipe with its lock file, and the lineage."""
    about, clean = context.about, papers.Cleaner.of(context)
    name = base_of(about.lineage)
    base: Files | None = inputs.get("base") if name == _last_model(about.lineage) else None
    at = base.folder if base else None
    sources = {step: clean.cleaned(row) for step, row in about.sources.items()}
    licence.carry(at, folder)
    papers.write(folder, context)
    told = card.Told(
        title=about.recipe or folder.name.split(".")[1],
        library=model.library,
        quantized=model.is_quantized,
        base=sources.get(name or "", {}),
        is_changed=any(row["stage"] in ("adapt", "quantize") for row in about.lineage),
        licence=licence.of(at),
        lineage=[clean.cleaned(row) for row in about.lineage],
        sources=sources,
        scores=_scores(inputs),
        confidence=_confidence(inputs, about.plain),
        size=model.size,
        parameters=model.parameters,
    )
    card.write(told, folder)


def base_of(lineage: Sequence[Facts]) -> str | None:
    """The step that fetched the model from which everything began."""
    for row in lineage:
        if row["stage"] == "load":
            inputs = row["inputs"]
            return str((inputs.get("base") or inputs["files"])[0])
    return None


def _last_model(lineage: Sequence[Facts]) -> str | None:
    """The step that fills the role of the base where the recipe names none."""
    found = [row["step"] for row in lineage if str(row["step"]).endswith(".model")]
    return found[-1] if found else None


def _scores(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The scores by step; where nothing was scored, the first answers alone."""
    scores: dict[str, Any] = dict(inputs.get("scores", {}))
    if scores:
        return scores
    samples = _samples(inputs.get("texts", {}))
    return {"answers": {"samples": samples}} if samples else {}


def _samples(texts: Mapping[str, Sequence[Row]]) -> list[Row]:
    found: dict[str, Row] = {}
    for name, rows in texts.items():
        for row in rows[:SAMPLES]:
            new = {"prompt": row["prompt"], "expected": row.get("expected"), "answers": {}}
            sample = found.setdefault(str(row["prompt"]), new)
            sample["answers"].setdefault(name, row["answer"])
    return list(found.values())[:SAMPLES]


def _confidence(inputs: Mapping[str, Any], recipe: Facts) -> float | None:
    """How sure the intervals are, where all scores have the same."""
    found = {recipe.get(name, {}).get("confidence") for name in inputs.get("scores", {})}
    return found.pop() if len(found) == 1 else None
