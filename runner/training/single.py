"""Training in this very process."""

from pathlib import Path
from typing import Any

from runner import products
from runner.products import Dataset, Model
from runner.stage import Context
from runner.training.settings import Options


def train(
    source: Model, dataset: Dataset, options: Options, context: Context, adapter: Path | None
) -> Model:
    """The model, taught in place from the newest checkpoint on, or from the start.

    `adapter` is the folder of one to go on with.
    """
    from transformers import set_seed

    from runner.training import loop, methods, objectives

    source = products.with_template(source, dataset.template)
    set_seed(options.seed)
    shaped = objectives.shaped(source.model, source.tokenizer, options)
    came_in = methods.formats(shaped)
    model: Any = methods.attach(shaped, options, context.note, adapter)
    context.facts |= loop.train(model, source.tokenizer, dataset, options, context)
    model = methods.finish(model, options, came_in, context.note)
    reference = source.reference if hasattr(model, "peft_config") else None
    return Model(model.eval(), source.tokenizer, reference=reference)
