"""Folders of auto-gptq, told and renamed without any library that reads their weights."""

import json

import pytest

from runner.errors import StepError
from runner.models import autogptq, form

SAID = {
    "bits": 4,
    "group_size": 32,
    "damp_percent": 0.01,
    "desc_act": False,
    "static_groups": False,
    "sym": True,
    "true_sequential": True,
    "model_name_or_path": "/home/somebody/model",
    "model_file_base_name": "gptq_model-4bit-32g",
    "is_marlin_format": False,
    "quant_method": "gptq",
    "checkpoint_format": "gptq",
}


def folder_of(place, *weights, config=None, own=SAID):
    place.mkdir()
    for name in weights:
        (place / name).write_text(name)
    (place / "config.json").write_text(json.dumps({"model_type": "llama", **(config or {})}))
    (place / "quantize_config.json").write_text(json.dumps(own))
    return place


def names(folder):
    with autogptq.renamed(folder, form.read(folder).config) as opened:
        return {path.name: path.resolve().name for path in opened.iterdir()}, opened


def test_what_only_its_own_file_says_of_quantization_is_told(tmp_path):
    folder = folder_of(tmp_path / "a", "gptq_model-4bit-32g.safetensors")
    found = form.read(folder)
    assert found.quantized == "gptq"
    said = found.config["quantization_config"]
    assert not {*said} & {"is_marlin_format", "model_name_or_path", "model_file_base_name"}
    assert (said["bits"], said["group_size"], said["checkpoint_format"]) == (4, 32, "gptq")


def test_weights_get_the_names_that_transformers_looks_for(tmp_path):
    one, _ = names(folder_of(tmp_path / "one", "gptq_model-4bit-32g.safetensors"))
    assert one["model.safetensors"] == "gptq_model-4bit-32g.safetensors"
    assert "gptq_model-4bit-32g.safetensors" not in one
    stem = "gptq_model-4bit-32g"
    parts = [f"{stem}-0000{n}-of-00002.safetensors" for n in (1, 2)]
    many, opened = names(folder_of(tmp_path / "many", *parts, f"{stem}.safetensors.index.json"))
    assert many["model.safetensors.index.json"] == f"{stem}.safetensors.index.json"
    assert {name: many[name] for name in parts} == {name: name for name in parts}
    assert not opened.exists()


def test_a_folder_that_opens_already_is_left_alone(tmp_path):
    quantization = {"quant_method": "gptq", "bits": 4}
    folder = folder_of(
        tmp_path / "a",
        "model.safetensors",
        config={"quantization_config": quantization},
        own=quantization,
    )
    assert names(folder)[1] == folder


def test_weights_in_marlins_order_are_refused(tmp_path):
    folder = folder_of(tmp_path / "a", own={**SAID, "is_marlin_format": True})
    with pytest.raises(StepError, match="Marlin"):
        form.read(folder)


def test_another_method_is_not_touched(tmp_path):
    folder = folder_of(tmp_path / "a", "model.safetensors", own={"quant_method": "awq", "bits": 4})
    assert form.read(folder).quantized is None
    assert names(folder)[1] == folder
