"""What training gives, on disk: an adapter alone, or a whole model."""

from collections.abc import Callable
from pathlib import Path

from runner import files, products, quantized
from runner.products import Model
from runner.training import methods, objectives

WHOLE, SETTINGS = "model", "adapt.json"
"""Where a result that is a whole model lies, and how it (or an adapter's base) is opened."""


def write(product: Model, folder: Path) -> None:
    """Write the adapter alone, or the whole model, and the chat template it was taught with."""
    model = product.model
    is_adapter = hasattr(model, "peft_config")
    held_in = quantized.description(model.get_base_model()) if is_adapter else None
    said = {"attention": model.config._attn_implementation, "held_in": held_in}
    said |= {"scores": True} if objectives.scores(model) and not is_adapter else {}
    files.write_json(folder / SETTINGS, said)
    if not is_adapter:
        products.write_model(model, products.untouched(product.tokenizer), folder / WHOLE)
        return
    methods.write(model, folder, product.reference)
    template = product.tokenizer.chat_template
    (folder / products.TEMPLATE).write_text(template or "", encoding="utf-8")


def read(folder: Path, base_model: Callable[[], Model]) -> Model:
    """Open the whole model, or put the adapter onto its base, which is asked for only then."""
    said = files.read_json(folder / SETTINGS)
    if (folder / WHOLE).is_dir():
        settings = {"dtype": "auto", "attn_implementation": said["attention"]}
        return products.open_model(folder / WHOLE, scores=said.get("scores", False), **settings)
    template = (folder / products.TEMPLATE).read_text(encoding="utf-8")
    base = products.with_template(base_model(), template or None)
    shaped = objectives.reshaped(base.model, base.tokenizer, folder)
    model = methods.read(shaped, folder, said["held_in"])
    return Model(model.eval(), base.tokenizer, reference=base.reference)
