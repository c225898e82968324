"""Configurations of other trainers, in the form that their documentation gives them."""

from pathlib import Path

import pytest

from runner import cli, hardware
from runner.compose import compose
from runner.stages import known

AXOLOTL = """\
base_model: HuggingFaceTB/SmolLM2-135M
load_in_8bit: false
load_in_4bit: true
datasets:
  - path: mhenrichsen/alpaca_2k_test
    type: alpaca
dataset_prepared_path: last_run_prepared
val_set_size: 0.05
output_dir: ./outputs/qlora-out
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
sequence_len: 4096
sample_packing: true
wandb_project:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 3
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
bf16: true
tf32: false
gradient_checkpointing: true
warmup_steps: 10
weight_decay: 0.0
special_tokens:
  pad_token: <|endoftext|>
"""
AXOLOTL_DPO = """\
base_model: HuggingFaceTB/SmolLM2-135M
rl: ipo
datasets:
  - path: rows.jsonl
    ds_type: json
    split: train
    type: chat_template.default
  - rows.jsonl
adapter: lora
peft_use_dora: true
lora_r: 8
lora_target_modules: [q_proj, v_proj]
val_set_size: 32
micro_batch_size: 1
learning_rate: 0.00001
optimizer: muon
"""
LLAMA_FACTORY = """\
### model
model_name_or_path: HuggingFaceTB/SmolLM2-135M-Instruct
quantization_bit: 4
trust_remote_code: true
### method
stage: dpo
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: q_proj,v_proj
pref_beta: 0.1
pref_loss: sigmoid  # choices: [sigmoid (dpo), orpo, simpo]
### dataset
dataset: llamafactory/demo
template: llama3
cutoff_len: 2048
max_samples: 1000
### output
output_dir: saves/smol/lora/dpo
logging_steps: 10
overwrite_output_dir: true
### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
flash_attn: sdpa
"""


GPU = hardware.Gpu("H100", 80_000_000_000, (9, 0))
"""What the machines have that such configurations are written for."""


@pytest.fixture
def imported(tmp_path, monkeypatch, capsys):
    """The composed recipe that a configuration becomes, and what is said of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "gpus", lambda: (GPU,))
    Path("rows.jsonl").write_text("{}\n")

    def call(text):
        Path("theirs.yaml").write_text(text)
        assert cli.main(["import", "theirs.yaml", "mine.yaml"]) == 0, capsys.readouterr().err
        call.said = capsys.readouterr().out.splitlines()
        return compose("mine", [], known()).plain

    return call


def within(recipe, step, **wanted):
    assert {name: recipe[step][name] for name in wanted} == wanted


def test_what_axolotl_says_is_said_here(imported):
    recipe = imported(AXOLOTL)
    assert recipe["fetch"]["model"]["repo"] == "HuggingFaceTB/SmolLM2-135M"
    within(recipe["fetch"], "data", repo="mhenrichsen/alpaca_2k_test", type="dataset")
    within(recipe, "process", shape="alpaca", max_length=4096, pack=True, train_on="assistant")
    within(recipe, "adapt", method="qlora", rank=32, alpha=16.0, dropout=0.05, epochs=3.0)
    within(recipe, "adapt", effective_batch_size=8, micro_batch_size=2, target_modules="auto")
    within(recipe, "adapt", optimizer="paged_adamw_8bit", schedule="cosine", learning_rate=2e-4)
    within(recipe, "adapt", precision="bfloat16", gradient_checkpointing=True, warmup_steps=10)
    assert recipe["save"]["to"].endswith("outputs/qlora-out")


def test_what_has_no_meaning_here_is_listed_and_stands_in_the_recipe(imported):
    imported(AXOLOTL)
    assert imported.said == [
        "has no meaning here: dataset_prepared_path: last_run_prepared",
        "has no meaning here: val_set_size: 0.05",
        "has no meaning here: special_tokens: {'pad_token': '<|endoftext|>'}",
        "mine.yaml",
        "  runner plan mine",
        "  runner run mine",
    ]
    lines = Path("mine.yaml").read_text().splitlines()
    assert lines[:3] == [
        "# From theirs.yaml.",
        "# Run:   runner run mine",
        "# Has no meaning here: dataset_prepared_path",
    ]


def test_pairs_dora_and_several_sources_are_taken_from_axolotl(imported):
    recipe = imported(AXOLOTL_DPO)
    within(recipe, "adapt", objective="dpo", loss="ipo", method="dora", optimizer="adamw")
    within(recipe, "adapt", target_modules=["q_proj", "v_proj"], learning_rate=1e-5)
    within(recipe, "process", shape="preference", held_out=32, split="train")
    assert recipe["process"]["data"] == ["fetch.data1", "fetch.data2"]
    assert "has no meaning here: optimizer: muon" in imported.said
    assert "Not taken up of datasets: ds_type: json" in imported.said
    assert "Not taken up of datasets: type: chat_template.default" in imported.said


def test_what_llama_factory_says_is_said_here(imported):
    recipe = imported(LLAMA_FACTORY)
    assert recipe["fetch"]["data"]["repo"] == "llamafactory/demo"
    within(recipe, "adapt", method="qlora", base="nf4", rank=8, target_modules=["q_proj", "v_proj"])
    within(recipe, "adapt", objective="dpo", loss="sigmoid", beta=0.1, effective_batch_size=8)
    within(recipe, "adapt", learning_rate=5e-6, epochs=3.0, warmup_ratio=0.1, schedule="cosine")
    within(recipe, "process", shape="preference", max_length=2048, first=1000)
    within(recipe, "load", attention="sdpa")
    within(recipe, "save", overwrite=True)
    names = ["trust_remote_code", "do_train", "template", "logging_steps"]
    listed = [line.split(": ")[1] for line in imported.said if line.startswith("has no")]
    assert listed == names


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("stage: rm", {"objective": "reward"}),
        ("stage: kto", {"objective": "kto"}),
        ("stage: dpo\npref_loss: orpo", {"objective": "orpo"}),
        ("finetuning_type: full", {"method": "full"}),
        ("use_rslora: true", {"method": "rslora"}),
        ("quantization_bit: 8", {"method": "qlora", "base": "int8"}),
        ("lora_target: all", {"target_modules": "auto"}),
    ],
)
def test_methods_and_objectives_of_llama_factory_have_their_names_here(change, wanted, imported):
    recipe = imported(f"model_name_or_path: a/b\ndataset: rows.jsonl\n{change}\n")
    within(recipe, "adapt", **wanted)


def test_what_this_machine_lacks_is_told_and_the_recipe_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "gpus", lambda: ())
    text = LLAMA_FACTORY.replace("llamafactory/demo", "identity")
    Path("theirs.yaml").write_text(text + "optim: paged_adamw_8bit\nenable_liger_kernel: true\n")
    assert cli.main(["import", "theirs.yaml", "mine.yaml"]) == 0
    _, mend = capsys.readouterr().out.split("to be mended before it runs here:\n")
    assert "paged memory needs a GPU, and there is none." in mend
    assert "Liger's kernels need a GPU, and there is none." in mend
    assert f"{tmp_path}/identity does not exist." in mend
    assert "name: mine\n" in Path("mine.yaml").read_text()


@pytest.mark.parametrize("text", ["steps: [fetch]\n", "- a\n", "a: [\n"])
def test_what_is_neither_is_refused(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(text)
    assert cli.main(["import", "theirs.yaml", "mine.yaml"]) == 1
    assert "theirs.yaml" in capsys.readouterr().err
    assert not Path("mine.yaml").exists()
