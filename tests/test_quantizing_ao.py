"""torchao's forms: safetensors with the same bytes each time, that plain transformers opens."""

import pytest
from squeezing import bytes_of, opened, quantize

pytest.importorskip("torchao", reason="needs the extra torchao")

FORMS = {
    "int8": {"method": "torchao-int8"},
    "int4": {"method": "torchao-int4", "group_size": 32},
    "skip": {"method": "torchao-int8", "skip": ["layers.0.", "o_proj"]},
}
PROMPT = list(range(5, 37))

IN_MEMORY = """
import json, sys
import torch
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
from torchao.quantization.granularity import PerGroup
from transformers import AutoModelForCausalLM, TorchAoConfig
forms = {
    "int8": Int8WeightOnlyConfig(),
    "int4": IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
}
found = []
for form in forms.values():
    model = AutoModelForCausalLM.from_pretrained(
        sys.argv[1], dtype="auto", quantization_config=TorchAoConfig(form)
    ).eval()
    ids = torch.tensor([json.loads(sys.argv[2])])
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    text = model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
    found.append({"loss": loss, "text": text})
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """The folder of each form."""
    place = tmp_path_factory.mktemp("made")
    for name, form in FORMS.items():
        assert quantize(tiny_model, place / name, [], **form).ended
    return {name: place / name / "target" for name in FORMS}


def test_the_same_weights_give_the_same_bytes_and_no_pickle(made, tiny_model, tmp_path):
    assert quantize(tiny_model, tmp_path, [], **FORMS["int8"]).ended
    assert bytes_of(tmp_path / "target") == bytes_of(made["int8"])
    for folder in made.values():
        assert {*bytes_of(folder)} == {"config.json", "generation_config.json", "model.safetensors"}


def test_plain_transformers_opens_what_the_library_makes_in_memory(made, tiny_model):
    import json

    from squeezing import told

    found = opened(PROMPT, *made.values())
    in_memory = told(IN_MEMORY, str(tiny_model), json.dumps(PROMPT))
    for theirs, ours in zip(in_memory, found[:2], strict=True):
        assert ours["wrong"] == []
        assert (ours["loss"], ours["text"]) == (theirs["loss"], theirs["text"])
    assert found[-1]["wrong"] == []


def test_skipped_layers_keep_their_numbers(made, tiny_model):
    from safetensors import safe_open

    with (
        safe_open(tiny_model / "model.safetensors", "pt") as source,
        safe_open(made["skip"] / "model.safetensors", "pt") as result,
    ):
        names = {*source.keys()}
        kept = names & {*result.keys()}
        skipped = {name for name in names if "layers.0." in name or "o_proj" in name}
        assert {name for name in kept if "proj" in name} == {n for n in skipped if "proj" in n}
        assert all(source.get_tensor(name).equal(result.get_tensor(name)) for name in kept)


def test_groups_that_do_not_fit_are_refused(tiny_model, tmp_path):
    from runner.errors import StepError

    with pytest.raises(StepError, match="group_size 128 does not divide the 64 inputs"):
        quantize(tiny_model, tmp_path, [], method="torchao-int4", group_size=128)
