"""What is learned from which rows: one module for each objective, in one table.

A module says which rows it learns from (`ROWS`), the options of adapt that are its own with what
they are where they are left out (`OPTIONS`), what can be wrong in them (`check`), and makes its
Trainer (`trainer`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from runner import files
from runner.errors import StepError
from runner.options import Fault
from runner.products import Kind
from runner.recipe import Step
from runner.training.objectives import dpo, grpo, kto, orpo, reward, rows, sft
from runner.training.objectives.given import Given
from runner.training.settings import Options


class Objective(Protocol):
    """What a module in the table has."""

    ROWS: Kind
    OPTIONS: Mapping[str, Any]

    def check(self, options: Options) -> list[Fault]:
        """What is wrong with the options that are this objective's own."""

    def trainer(self, given: Given) -> Any:
        """A Trainer over the rows."""


TABLE: Mapping[str, Objective] = {
    "sft": sft,
    "dpo": dpo,
    "orpo": orpo,
    "kto": kto,
    "reward": reward,
    "grpo": grpo,
}
FIGURES = {"loss", "learning_rate", "grad_norm", "epoch", "num_tokens", "step_time"}
"""What a Trainer logs that is no figure of the objective's own."""


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """What is wrong with the objective's options, and with what the dataset's step says it makes.

    Nothing heavy is loaded.
    """
    faults = _of_others(options) + TABLE[options.objective].check(options)
    for step in inputs.get("dataset", ()):
        made = rows.made_by(getattr(step.options, "shape", "auto"))
        if made and made != TABLE[options.objective].ROWS:
            faults.append(Fault(("objective",), *_unfit(options.objective, made)))
    return faults


def resolve(options: Options) -> Options:
    """The options with what the objective takes where they are left out."""
    taken = {
        name: default
        for name, default in TABLE[options.objective].OPTIONS.items()
        if getattr(options, name) is None
    }
    return grpo.resolve(dpo.resolve(replace(options, **taken)))


def task_type(options: Options) -> str:
    """What peft calls the model that the objective trains."""
    return reward.TASK if options.objective == "reward" else "CAUSAL_LM"


def shaped(model: Any, tokenizer: Any, options: Options) -> Any:
    """The model as the objective trains it: one that writes, or for `reward` one that scores."""
    return reward.scorer(model, tokenizer) if options.objective == "reward" else model


def scores(model: Any) -> bool:
    """Whether a model gives a number for a text instead of going on with it."""
    return reward.is_scorer(model)


def reshaped(model: Any, tokenizer: Any, folder: Path) -> Any:
    """The model as it must be for the adapter of this folder."""
    config = files.read_json(folder / "adapter_config.json")
    return reward.scorer(model, tokenizer) if config["task_type"] == reward.TASK else model


def trainer(given: Given) -> Any:
    """The Trainer of the objective; StepError where the dataset or the model do not fit it."""
    insist(given.options, given.dataset.kind)
    options = resolve(given.options)
    return TABLE[options.objective].trainer(replace(given, options=options))


def insist(options: Options, made: Kind | None) -> None:
    """StepError where the objective does not learn from rows of this kind, if that is known."""
    if made and made != TABLE[options.objective].ROWS:
        raise StepError(*_unfit(options.objective, made))


def figures(logs: Mapping[str, Any]) -> dict[str, float]:
    """What of a Trainer's log the objective says of itself: rewards, margins, lengths."""
    return {
        name: float(value)
        for name, value in logs.items()
        if isinstance(value, (int, float))
        and name not in FIGURES
        and not name.startswith("profiling/")
    }


def _of_others(options: Options) -> list[Fault]:
    """The options that are set and mean nothing to this objective."""
    faults = []
    for name in sorted({each for objective in TABLE.values() for each in objective.OPTIONS}):
        if getattr(options, name) in (None, ()) or name in TABLE[options.objective].OPTIONS:
            continue
        owners = " or ".join(kind for kind, one in TABLE.items() if name in one.OPTIONS)
        fact = f"{name} means nothing to {options.objective}."
        faults.append(Fault((name,), fact, f"Leave it out, or set objective: {owners}."))
    return faults


def _unfit(objective: str, made: Kind) -> tuple[str, str]:
    """Why an objective cannot learn from such rows, and what would."""
    others = " or ".join(name for name, one in TABLE.items() if made == one.ROWS)
    wanted = TABLE[objective].ROWS
    return (
        f"{objective} learns from {rows.WORDS[wanted]}, and the dataset has {rows.WORDS[made]}.",
        f"Set adapt.objective={others}, or process.shape={rows.SHAPES[wanted]}",
    )
