"""Each form of the real model, saved, and opened by transformers or peft alone."""

from pathlib import Path

import pytest
from test_stages import context

from runner import products
from runner.products import Files, Model
from runner.saving import verify
from runner.stages import quantize, save

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(real_model: Path) -> Path:
    """The real model."""
    return real_model


def opened(folder: Path) -> Model:
    return products.open_model(folder, dtype="auto", attn_implementation="sdpa")


def adapted(folder: Path) -> Model:
    """The model with an adapter on all linear layers that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model

    base = opened(folder)
    torch.manual_seed(0)
    form = LoraConfig(
        r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = get_peft_model(base.model, form).eval()
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data.mul_(0.3)
    return Model(model, base.tokenizer)


def quantized(folder: Path, method: str, place: Path) -> Model:
    options = quantize.Options(method=method)
    return quantize.restore(
        quantize.run(options, {"model": opened(folder)}, context(place)).folder, {}
    )


@pytest.mark.parametrize("kind", ["copied", "merged", "adapter", "nf4", "int8"])
def test_a_saved_folder_of_every_kind_opens_alone(kind, folder, tmp_path):
    if kind in ("nf4", "int8"):
        model = quantized(folder, kind, tmp_path / "q")
    else:
        model = opened(folder) if kind == "copied" else adapted(folder)
    options = save.Options(
        to=tmp_path / "out",
        format="adapter" if kind == "adapter" else "hf",
        shard_size="100MB" if kind == "merged" else "5GB",
    )
    place = context(tmp_path / "s")
    save.run(options, {"model": model, "base": Files(folder)}, place)
    found = place.facts["verified"]
    assert found["difference"] <= (verify.TOLERANCE["quantized"] if kind == "nf4" else 0.03)
    assert found["likeliest"] > 0.8
    assert (tmp_path / "out" / "LICENSE").is_file()
    parts = len(list((tmp_path / "out").glob("model-*.safetensors")))
    assert (parts > 2) == (kind == "merged")
