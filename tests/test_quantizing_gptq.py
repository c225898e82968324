"""GPTQ: the library's own bytes, whatever kills it in between, in a folder that opens anywhere."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import squeezing
import torch
from safetensors.torch import load_file
from squeezing import bytes_of, opened, quantize, rows
from tiny import make_data, make_model

from runner import files
from runner.errors import StepError

pytest.importorskip("gptqmodel", reason="needs the extra gptq")
pytest.importorskip("optimum", reason="needs the extra gptq")

OPTIONS = {"method": "gptq", "group_size": 32}
PROMPT = list(range(5, 37))

BY_HAND = """
import json, os, sys
os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
from gptqmodel import GPTQModel, QuantizeConfig
whole, saved, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = GPTQModel.load(whole, QuantizeConfig(bits=4, group_size=32))
shown = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
model.quantize(shown, batch_size=1, calibration_data_min_length=0)
model.save(saved)
"""


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """The folder of an undisturbed result."""
    place = tmp_path_factory.mktemp("made")
    done = quantize(tiny_model, place, rows(), **OPTIONS)
    assert done.ended
    assert done.layers == [1, 2]
    assert done.notes == []
    assert [path.name for path in place.iterdir() if path.is_file()] == []
    return place / "target"


def committed(place):
    """How many layers gptqmodel has kept, by its own store."""
    store = place / "scratch" / "finished"
    if not (store / "CURRENT").exists():
        return 0
    newest = json.loads((store / "CURRENT").read_text())["generations"][0]
    return json.loads((store / "objects" / newest).read_text())["cursor"]


def test_the_weights_are_those_of_the_library_called_by_hand(made, tiny_model, tmp_path):
    said = [sys.executable, "-c", BY_HAND, str(tiny_model), str(tmp_path / "by_hand")]
    subprocess.run(
        [*said, json.dumps(rows())], cwd=tmp_path, check=True, capture_output=True, timeout=300
    )
    ours, theirs = (load_file(each / "model.safetensors") for each in (made, tmp_path / "by_hand"))
    assert len(ours) == len(theirs) == 63
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype
        assert torch.equal(tensor, ours[name]), name


def test_the_folder_says_nothing_of_this_machine(made, tiny_model):
    names = {"config.json", "generation_config.json", "model.safetensors", "quantize_config.json"}
    assert set(bytes_of(made)) == names
    config, source = (files.read_json(folder / "config.json") for folder in (made, tiny_model))
    said = config.pop("quantization_config")
    assert config == source
    assert said == files.read_json(made / "quantize_config.json")
    assert (said["bits"], said["group_size"], said["sym"]) == (4, 32, True)
    assert "offload" not in json.dumps(said)
    for name in ("config.json", "quantize_config.json"):
        assert "/tmp" not in (made / name).read_text()


@pytest.mark.parametrize("layer", [1, 2])
def test_a_kill_loses_no_finished_layer_and_changes_no_byte(made, tiny_model, tmp_path, layer):
    first = quantize(tiny_model, tmp_path, rows(), lambda done: layer in done.layers, **OPTIONS)
    assert not first.ended
    kept = committed(tmp_path)
    assert kept >= layer - 1, "at most the layer in work is lost"
    then = quantize(tiny_model, tmp_path, rows(), **OPTIONS)
    assert then.ended
    assert then.layers == list(range(kept + 1, 3)), "no layer is done twice"
    assert bytes_of(tmp_path / "target") == bytes_of(made)


def test_finished_layers_of_something_else_do_not_count(made, tiny_model, tmp_path):
    quantize(tiny_model, tmp_path, rows(5), lambda done: 2 in done.layers, **OPTIONS)
    assert committed(tmp_path) > 0
    then = quantize(tiny_model, tmp_path, rows(), **OPTIONS)
    assert "begins anew" in then.notes[0]
    assert then.layers == [1, 2]
    assert bytes_of(tmp_path / "target") == bytes_of(made)


def unpacked(folder, source):
    """The plain model whose weights are what the 4-bit numbers stand for (GPTQ format 1)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tensors = load_file(folder / "model.safetensors")
    shifts = torch.arange(0, 32, 4)
    for name in [key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")]:
        packed, zeros, scales, groups = (
            tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")
        )
        numbers = (packed.unsqueeze(1) >> shifts.view(1, -1, 1)) & 15
        offsets = (((zeros.unsqueeze(-1) >> shifts) & 15) + 1).flatten(1)
        of_row = groups.long()
        weight = scales.float()[of_row] * (numbers.flatten(0, 1) - offsets[of_row])
        model.get_submodule(name).weight.data = weight.T
    return model.eval()


def test_plain_transformers_says_what_the_numbers_stand_for(made, tiny_model):
    [found] = opened(PROMPT, made)
    assert found["wrong"] == []
    assert found["plain"] == ["lm_head"]
    ids = torch.tensor([PROMPT])
    model = unpacked(made, tiny_model)
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert found["loss"] == pytest.approx(loss, abs=2e-3)  # bfloat16 beside float32


def test_every_width_and_skipped_layers_open(tiny_model, tmp_path):
    forms = {
        "eight": {"bits": 8},
        "three": {"bits": 3, "symmetric": False},
        "rows": {"group_size": -1},
        "skip": {"skip": ["layers.0.", "o_proj"]},
    }
    for name, form in forms.items():
        done = quantize(tiny_model, tmp_path / name, rows(), **{**OPTIONS, **form})
        assert done.ended
        assert ("keeps no finished layers where layers are skipped" in str(done.notes)) == (
            name == "skip"
        )
    whole, *found = opened(PROMPT, tiny_model, *(tmp_path / name / "target" for name in forms))
    for each in found:
        assert each["wrong"] == []
        assert each["loss"] == pytest.approx(whole["loss"], abs=0.05)
    first = [f"model.layers.0.{name}" for name in projections()]
    assert found[-1]["plain"] == [*first, "model.layers.1.self_attn.o_proj", "lm_head"]
    assert {len(each["plain"]) for each in found[:-1]} == {1}


def projections():
    attention = [f"self_attn.{name}_proj" for name in "qkvo"]
    return [*attention, *(f"mlp.{name}_proj" for name in ("gate", "up", "down"))]


def test_where_gptqmodel_keeps_nothing_it_is_said(tmp_path):
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "vocab_size": 258}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    heads |= {"bos_token_id": 256, "eos_token_id": 257}
    make_model(tmp_path / "whole")  # for its tokenizer
    MistralForCausalLM(MistralConfig(**sizes, **heads)).save_pretrained(tmp_path / "whole")
    done = quantize(tmp_path / "whole", tmp_path, rows(), **OPTIONS)
    assert done.layers == [1]
    assert done.notes == [
        "gptqmodel keeps no finished layers for models of this type: stopped, it begins anew"
    ]
    [found] = opened(PROMPT, tmp_path / "target")
    assert found["wrong"] == []


def test_groups_that_do_not_fit_are_refused_before_any_layer(tiny_model, tmp_path):
    with pytest.raises(StepError, match="group_size 128 does not divide the 64 inputs"):
        quantize(tiny_model, tmp_path, rows(), method="gptq", group_size=128)
    assert squeezing.bytes_of(tmp_path / "target") == {}


@pytest.fixture(scope="module")
def base(made, tiny_model, tmp_path_factory):
    """The result with its tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "model"
    shutil.copytree(made, folder)
    for pattern in ("tokenizer*", "*.jinja"):
        for path in tiny_model.glob(pattern):
            shutil.copy(path, folder)
    return folder


def recipe(place, base, steps, **more):
    """A recipe on a model's folder, with rows beside it."""
    place.mkdir(exist_ok=True)
    make_data(place / "rows.jsonl")
    said = {
        "name": "tiny",
        "steps": steps.split(),
        "fetch": {"model": {"path": str(base)}, "data": {"path": "rows.jsonl"}},
        "process": {"held_out": 8},
        "save": {"to": "saved"},
        "after": {"stage": "generate", "max_new_tokens": 6, "rows": 3},
        **more,
    }
    path = place / "tiny.yaml"
    path.write_text(
        json.dumps({name: said[name] for name in said if name in KEPT | {*said["steps"]}})
    )
    return path


KEPT = {"name", "steps"}


def run(path, *words):
    """Run a recipe in a process of its own: its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", str(path), *words],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.returncode, done.stdout + done.stderr


def test_a_recipe_makes_it_by_its_old_name_and_says_so(tiny_model, tmp_path):
    squeeze = {
        "method": "auto-gptq",
        "group_size": 32,
        "calibration": {"rows": 6},
        "gate": {"rows": 4},
    }
    path = recipe(tmp_path, tiny_model, "fetch process load quantize after save", quantize=squeeze)
    code, said = run(path)
    assert code == 0, said
    assert "quantize.method: auto-gptq is another name for gptq" in said
    [found] = opened(PROMPT, tmp_path / "saved")
    assert found["wrong"] == []
    assert not (tmp_path / "logs").exists()
    code, said = run(
        recipe(
            tmp_path,
            tiny_model,
            "fetch process load quantize",
            quantize={**squeeze, "group_size": 128},
        )
    )
    assert code == 1
    assert "quantize: group_size 128 does not divide the 64 inputs" in said


def test_a_checkpoint_of_auto_gptq_loads_and_is_saved_as_one_that_opens(base, tmp_path):
    from test_autogptq import SAID

    old = tmp_path / "old"
    shutil.copytree(base, old)
    (old / "model.safetensors").rename(old / "gptq_model-4bit-32g.safetensors")
    config = files.read_json(old / "config.json")
    del config["quantization_config"]
    files.write_json(old / "config.json", config)
    files.write_json(old / "quantize_config.json", SAID)
    for folder, name in ((base, "a"), (old, "b")):
        path = recipe(tmp_path / name, folder, "fetch process load after save")
        code, said = run(path)
        assert code == 0, said
        assert "bfloat16, gptq" in said
    first, second = opened(PROMPT, tmp_path / "a" / "saved", tmp_path / "b" / "saved")
    assert first["wrong"] == second["wrong"] == []
    assert (first["loss"], first["text"]) == (second["loss"], second["text"])


@pytest.mark.filterwarnings("ignore")  # of other people's libraries
def test_an_adapter_on_gptq_weights_trains_every_tensor(base, tmp_path):
    from test_load import loaded

    from runner.products import Files
    from runner.training import methods
    from runner.training.settings import Options

    model, _ = loaded(Files(base), tmp_path)
    adapted = methods.attach(model.model, Options(method="lora", rank=4), print)
    trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 7
    for name, weight in trained.items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    adapted.train()
    ids = torch.tensor([PROMPT])
    adapted(input_ids=ids, labels=ids).loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in trained.values())
    with pytest.raises(StepError, match="dora cannot train what GPTQ has quantized"):
        methods.attach(loaded(Files(base), tmp_path / "b")[0].model, Options(method="dora"), print)


def test_a_recipe_trains_on_it_and_refuses_what_cannot_be_merged(base, tmp_path):
    adapt = {"rank": 4, "max_steps": 4, "effective_batch_size": 4, "learning_rate": 0.01}
    path = recipe(tmp_path, base, "fetch process load adapt after", adapt=adapt)
    code, said = run(path)
    assert code == 0, said
    order = "Fetch the model unquantized, train on it, merge, and quantize last."
    squeeze = {"quantize": {"method": "nf4"}}
    for steps, more in (
        ("fetch process load adapt", {"adapt": {**adapt, "merge": True}}),
        ("fetch process load adapt save", {"adapt": adapt}),
        ("fetch process load adapt quantize", {"adapt": adapt, **squeeze}),
    ):
        code, said = run(recipe(tmp_path / "no", base, steps, **more))
        assert code == 1, said
        assert "an adapter cannot be merged into weights quantized with gptq." in said
        assert order in said
    code, said = run(recipe(tmp_path / "no", base, "fetch process load quantize", **squeeze))
    assert code == 1
    assert "the model is quantized already, with gptq." in said
