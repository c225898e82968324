"""Training in this very process."""

from typing import Any

from runner import products
from runner.products import Dataset, Model
from runner.stage import Context
from runner.training.settings import Options


def train(source: Model, dataset: Dataset, options: Options, context: Context) -> Model:
    """The model, taught in place from the newest checkpoint on, or from the start."""
    from transformers import set_seed

    from runner.training import loop, methods, objectives

    source = products.with_template(source, dataset.template)
    set_seed(options.seed)
    shaped = objectives.shaped(source.model, source.tokenizer, options)
    model: Any = methods.attach(shaped, options)
    context.facts |= loop.train(model, source.tokenizer, dataset, options, context)
    return Model(model.eval(), source.tokenizer)
