"""What processes that train together are given, in a folder that each of them opens."""

import dataclasses
from pathlib import Path
from typing import Any

from runner import files, options, products
from runner.errors import StepError
from runner.products import Dataset, Model
from runner.stage import About, Context
from runner.training.settings import Options

SPEC, STOP, EVENTS = "spec.json", "stop", "events-{}.jsonl"
DATASET, MODEL, ADAPTER, RESULT = "dataset", "model", "adapter", "result"


def hand_over(
    folder: Path,
    source: Model,
    dataset: Dataset,
    settings: Options,
    context: Context,
    adapter: Path | None,
) -> None:
    """Write the model (where it does not lie on disk already), the rows and the options.

    An adapter that the model has is taken off it; `adapter` is the folder of one to go on with.
    """
    files.remove(folder)
    (folder / DATASET).mkdir(parents=True)
    products.save_dataset(dataset, folder / DATASET)
    spec = {
        "attention": source.model.config._attn_implementation,
        "template": source.tokenizer.chat_template,
        "model": str((source.folder or _written(folder, source)).resolve()),
        "checkpoints": str(context.checkpoint.folder.resolve()),
        "reference": options.plain(source.reference),
        "adapter": str(adapter.resolve()) if adapter else None,
        "options": options.plain(settings),
        "about": options.plain(context.about),
        "measured": [dict(row) for row in context.measured],
    }
    files.write_json(folder / SPEC, spec)


def change(folder: Path, settings: Options) -> None:
    """Give other options to the processes that will open the folder."""
    spec = files.read_json(folder / SPEC)
    files.write_json(folder / SPEC, {**spec, "options": options.plain(settings)})


def spec_of(folder: Path) -> Any:
    """What hand_over wrote, but for the options; these come as `Options`."""
    spec = files.read_json(folder / SPEC)
    settings, faults = options.build(Options, spec["options"])
    assert not faults, faults
    beside = spec["about"].pop("folder")
    about = About(**spec["about"], folder=Path(beside) if beside else None)
    return {**spec, "options": settings, "about": about}


def open_model(folder: Path) -> Model:
    """The model that was handed over, with the adapter that it had."""
    from runner.training import methods

    spec = files.read_json(folder / SPEC)
    opened = products.open_model(
        Path(spec["model"]), dtype="auto", attn_implementation=spec["attention"]
    )
    opened.tokenizer.chat_template = spec["template"]
    opened = dataclasses.replace(opened, reference=spec["reference"])
    if (folder / ADAPTER).is_dir():
        return dataclasses.replace(opened, model=methods.read(opened.model, folder / ADAPTER))
    return opened


def _written(folder: Path, source: Model) -> Path:
    from runner import quantized
    from runner.training import methods
    from runner.training.methods import adapters

    model = source.model
    if quantized.description(adapters.base_of(model)):
        raise StepError(
            "a model that was quantized when it was loaded cannot be handed to several processes.",
            "Load it unquantized, and take adapt.method=qlora",
        )
    if hasattr(model, "peft_config"):
        (folder / ADAPTER).mkdir()
        methods.write(model, folder / ADAPTER)
        model = model.unload()
    (folder / MODEL).mkdir()
    products.write_model(model, products.untouched(source.tokenizer), folder / MODEL)
    return folder / MODEL
