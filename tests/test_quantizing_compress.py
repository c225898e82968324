"""AWQ, W8A8 and FP8: as the library makes them, resumable, and what can be done with them."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compressing import ROWS, made, options
from tiny import make_data

from runner import extras, files, products, quantized
from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.products import Files
from runner.quantizing import making, resuming
from runner.quantizing.settings import Options
from runner.quantizing.work import Work
from runner.recipe import Step
from runner.stage import Context
from runner.stages import adapt, load, process, quantize, save
from runner.training import kinds

pytest.importorskip("llmcompressor", reason="an extra: compress")
pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's libraries

METHODS = ("awq", "w8a8", "fp8")
HERE = Path(__file__).parent
BY_HAND = """
import json, sys
import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer
IntermediatesCache.pin_memory = lambda *a, **k: None
whole, rows = sys.argv[1], [{"input_ids": torch.tensor([r])} for r in json.loads(sys.argv[2])]
four = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)
groups = {"group_0": {"targets": ["Linear"], "weights": four}}
eight = dict(targets="Linear", ignore=["lm_head"])
RECIPES = {
    "awq": [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=["lm_head"])],
    "w8a8": [SmoothQuantModifier(), GPTQModifier(scheme="W8A8", **eight)],
    "fp8": [QuantizationModifier(scheme="FP8_DYNAMIC", **eight)],
}
answers = {}
for name, recipe in RECIPES.items():
    model = AutoModelForCausalLM.from_pretrained(whole)
    tokenizer = AutoTokenizer.from_pretrained(whole)
    data = {} if name == "fp8" else {"dataset": DataLoader(rows, batch_size=None)}
    oneshot(model=model, tokenizer=tokenizer, recipe=recipe, **data)
    prompt = rows[0]["input_ids"]
    answers[name] = model.generate(prompt, max_new_tokens=12, do_sample=False)[0].tolist()
    model.save_pretrained(name)
print(json.dumps(answers))
"""
OPENED = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
prompt = torch.tensor([json.loads(sys.argv[2])])
print(json.dumps(model.generate(prompt, max_new_tokens=12, do_sample=False)[0].tolist()))
"""


def context(folder: Path, notes: list[str] | None = None, **more: Any) -> Context:
    folder.mkdir(parents=True, exist_ok=True)
    told = notes if notes is not None else []
    return Context(
        folder, Checkpoints(folder / "checkpoints", told.append), note=told.append, **more
    )


def printed(source: str, *said: str, place: Path) -> Any:
    """What a program prints last, as JSON, in a process and a folder of its own."""
    command = [sys.executable, "-c", source, *said]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compress")


@pytest.fixture(scope="module")
def by_hand(tiny_model: Path, place: Path) -> dict[str, list[int]]:
    """Folders of the methods made by the library alone, and what the models said before that."""
    (place / "hand").mkdir()
    return printed(BY_HAND, str(tiny_model), json.dumps(ROWS), place=place / "hand")


@pytest.fixture(scope="module")
def ours(tiny_model: Path, place: Path) -> dict[str, Path]:
    """Folders of the methods made by the step's process."""
    found = {}
    for name in METHODS:
        found[name] = place / name
        found[name].mkdir()
        making.make(tiny_model, found[name], ROWS, options(name), context(place / f"draft-{name}"))
    return found


@pytest.mark.parametrize("name", METHODS)
def test_it_is_what_the_library_gives_and_opens_elsewhere_as_it_was(name, ours, by_hand, place):
    for each in ("model.safetensors", "config.json", "generation_config.json"):
        assert (ours[name] / each).read_bytes() == (place / "hand" / name / each).read_bytes()
    assert printed(OPENED, str(ours[name]), json.dumps(ROWS[0]), place=place) == by_hand[name]


@pytest.mark.parametrize("name", METHODS)
def test_nothing_else_is_left_in_the_folder_or_beside_it(name, ours, place):
    written = {path.name for path in ours[name].iterdir()}
    model = {"config.json", "generation_config.json", "model.safetensors"}
    assert written == {*model, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert str(place) not in (ours[name] / "config.json").read_text()
    assert [path.name for path in (place / f"draft-{name}").iterdir()] == []


@pytest.mark.parametrize("name", METHODS)
def test_the_output_layer_keeps_its_format(name, ours):
    import torch
    from safetensors.torch import load_file

    tensors = load_file(ours[name] / "model.safetensors")
    assert tensors["lm_head.weight"].dtype == torch.bfloat16
    assert "model.layers.1.mlp.down_proj.weight_scale" in tensors


def test_layers_that_are_to_be_skipped_keep_their_weights(tiny_model, tmp_path):
    from safetensors.torch import load_file

    (tmp_path / "made").mkdir()
    chosen = options("w8a8", skip=("layers.0.", "v_proj"))
    making.make(tiny_model, tmp_path / "made", ROWS, chosen, context(tmp_path / "draft"))
    scaled = {
        name for name in load_file(tmp_path / "made" / "model.safetensors") if "scale" in name
    }
    assert len(scaled) == 6
    assert not [name for name in scaled if "layers.0." in name or "v_proj" in name]


# --- going on


def begun(tiny_model: Path, folder: Path, name: str, until: int) -> None:
    """Quantize in a process that is killed once so many pieces are done."""
    command = [sys.executable, str(HERE / "compressing.py"), str(tiny_model), str(folder), name]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith(f"{until} of "):
            process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def kept(folder: Path) -> dict[str, int]:
    found = sorted((folder / "scratch").glob("*.safetensors"))
    return {path.name: path.stat().st_mtime_ns for path in found}


@pytest.mark.parametrize(("name", "until"), [("awq", 2), ("w8a8", 5)])
def test_a_killed_run_goes_on_to_the_same_bytes_and_does_no_layer_twice(
    name, until, tiny_model, ours, tmp_path
):
    begun(tiny_model, tmp_path, name, until)
    before = kept(tmp_path)
    assert len(before) >= until
    (tmp_path / "scratch" / "writing").write_bytes(b"half a pie")
    command = [sys.executable, str(HERE / "compressing.py"), str(tiny_model), str(tmp_path), name]
    subprocess.run(command, check=True, capture_output=True)
    assert made(tmp_path).items() <= {p.name: files.digest(p) for p in ours[name].iterdir()}.items()
    after = kept(tmp_path)
    assert len(after) == {"awq": 3, "w8a8": 6}[name]
    assert before.items() <= after.items()


def given(folder: Path, notes: list[str]) -> Work:
    return Work(
        whole=folder,
        target=folder,
        scratch=folder,
        options=options("awq"),
        rows=ROWS,
        progress=lambda *_: None,
        note=notes.append,
    )


def test_what_other_releases_have_made_is_not_gone_on_with(tmp_path):
    import torch

    notes: list[str] = []
    resuming.Kept(tmp_path, notes.append).write(0, {"a": torch.ones(2)})
    assert resuming.Kept(tmp_path, notes.append).has(0)
    assert notes == []
    files.write_json(tmp_path / "made_with.json", {"llmcompressor": "0.13"})
    assert not resuming.Kept(tmp_path, notes.append).has(0)
    assert "other releases" in notes[0]


def test_of_a_release_that_goes_another_way_nothing_is_kept_and_that_is_said(tmp_path, monkeypatch):
    from llmcompressor.pipelines.sequential import helpers

    notes: list[str] = []
    monkeypatch.delattr(helpers, "Subgraph")
    with resuming.pieces(None, given(tmp_path, notes), passes=1):
        pass
    assert notes[0].startswith("nothing is kept of llm-compressor ")


# --- what is refused


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("gpt_neox", "awq", "AWQ does not know which layers of GPTNeoXForCausalLM to scale"),
        ("gpt2", "fp8", "finds no layer of GPT2LMHeadModel to quantize"),
    ],
)
def test_a_model_that_the_library_does_not_know_is_refused(kind, name, said, tiny_model, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small["num_attention_heads"] = 2
    if kind == "gpt2":
        small = {"n_embd": 32, "n_layer": 2, "n_head": 2}
    config = AutoConfig.for_model(kind, vocab_size=258, **small)
    whole = tmp_path / "whole"
    AutoModelForCausalLM.from_config(config).save_pretrained(whole)
    for path in tiny_model.glob("token*"):
        shutil.copy(path, whole)
    (tmp_path / "made").mkdir()
    with pytest.raises(StepError, match=said):
        making.make(whole, tmp_path / "made", ROWS, options(name), context(tmp_path / "draft"))


def test_groups_that_do_not_divide_a_layer_are_refused(tiny_model, tmp_path):
    (tmp_path / "made").mkdir()
    chosen = options("awq", group_size=128)
    with pytest.raises(StepError, match="group_size 128 does not divide the 64 inputs"):
        making.make(tiny_model, tmp_path / "made", ROWS, chosen, context(tmp_path / "draft"))


def test_making_needs_both_libraries_and_reading_one(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "llmcompressor" else name)
    assert extras.missing("compressed-tensors") is None
    assert '"recipe-runner[compress]"' in str(extras.missing("compress"))


# --- what comes after


@pytest.fixture
def dataset(tiny_model: Path, tmp_path: Path) -> products.Dataset:
    (tmp_path / "data").mkdir()
    make_data(tmp_path / "data" / "rows.jsonl")
    inputs = {"data": {"fetch.data": Files(tmp_path / "data")}, "tokenizer": Files(tiny_model)}
    return process.run(process.Options(held_out=8), inputs, context(tmp_path / "p"))


def loaded(folder: Path, tmp_path: Path) -> products.Model:
    return load.run(load.Options(), {"files": Files(folder)}, context(tmp_path / "l"))


@pytest.mark.parametrize("name", METHODS)
def test_it_loads_and_is_saved_unchanged(name, ours, tmp_path):
    model = loaded(ours[name], tmp_path)
    save.run(save.Options(to=tmp_path / "out"), {"model": model}, context(tmp_path / "s"))
    for path in ours[name].glob("*.safetensors"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_an_adapter_on_awq_learns_in_every_layer_and_is_read_back(ours, dataset, tmp_path):
    import torch

    model = loaded(ours["awq"], tmp_path)
    chosen = adapt.Options(max_steps=6, effective_batch_size=4, learning_rate=1e-2, rank=2)
    inputs = {"model": model, "dataset": dataset}
    taught = adapt.run(chosen, inputs, context(tmp_path / "a"))
    moved = [w.abs().sum() > 0 for n, w in taught.model.named_parameters() if "lora_B" in n]
    assert len(moved) == 14
    assert all(moved)
    (tmp_path / "kept").mkdir()
    adapt.save(taught, tmp_path / "kept")
    again = adapt.restore(tmp_path / "kept", {**inputs, "model": loaded(ours["awq"], tmp_path)})
    ids = torch.tensor([ROWS[0]])
    with torch.inference_mode():
        assert again.model(input_ids=ids).logits.equal(taught.model(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["w8a8", "fp8"])
def test_training_on_rounded_activations_is_refused_before_it_begins(name, ours, dataset, tmp_path):
    step = Step("quantize", "quantize", quantize, Options(method=name), {})
    (fault,) = kinds.check(adapt.Options(), {"model": (step,)})
    assert f"quantize gives {name}" in fault.fact
    inputs = {"model": loaded(ours[name], tmp_path), "dataset": dataset}
    with pytest.raises(StepError, match="rounds its activations too"):
        adapt.run(adapt.Options(max_steps=1), inputs, context(tmp_path / "a"))


def test_a_model_that_only_weights_are_rounded_of_can_be_taught(ours, tmp_path):
    assert quantized.unteachable(loaded(ours["awq"], tmp_path).model) is None


def test_an_asymmetric_one_opens_here_and_says_where_it_does_not(tiny_model, tmp_path):
    notes: list[str] = []
    (tmp_path / "made").mkdir()
    asked = options("awq", symmetric=False, group_size=-1)
    making.make(tiny_model, tmp_path / "made", ROWS, asked, context(tmp_path / "draft", notes))
    (note,) = notes
    assert note.startswith("asymmetric: it opens in transformers 5.17")
    weights = files.read_json(tmp_path / "made" / "config.json")["quantization_config"]
    how = weights["config_groups"]["group_0"]["weights"]
    assert (how["symmetric"], how["strategy"]) == (False, "channel")
    assert loaded(tmp_path / "made", tmp_path).model.is_quantized
