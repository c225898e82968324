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

OUMI = """\
# QLoRA for a small model
model:
  model_name: "HuggingFaceTB/SmolLM2-135M-Instruct"
  model_max_length: 2048
  torch_dtype_str: "bfloat16"
  attn_implementation: "sdpa"
  load_pretrained_weights: True
  trust_remote_code: True
  enable_liger_kernel: False
data:
  train:
    datasets:
      - dataset_name: "yahma/alpaca-cleaned"
    target_col: "prompt"
    use_async_dataset: True
training:
  trainer_type: "TRL_SFT"
  use_peft: True
  save_steps: 50
  num_train_epochs: 1
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 32
  enable_gradient_checkpointing: True
  gradient_checkpointing_kwargs:
    use_reentrant: False
  optimizer: "adamw_torch_fused"
  learning_rate: 3.0e-04
  lr_scheduler_type: "cosine"
  warmup_steps: 100
  weight_decay: 0.01
  compile: False
  dataloader_num_workers: "auto"
  logging_steps: 100
  output_dir: "output/smol.qlora"
  enable_wandb: True
peft:
  q_lora: True
  bnb_4bit_quant_type: "nf4"
  bnb_4bit_compute_dtype: "bfloat16"
  lora_r: 8
  lora_alpha: 16
  lora_dropout: 0.0
  lora_target_modules: [q_proj, v_proj]
  peft_save_mode: ADAPTER_ONLY
fsdp:
  enable_fsdp: True
"""
OUMI_MIX = """\
model: {model_name: a/b, adapter_model: c/d, torch_dtype_str: float32, chat_template: auto}
data:
  train:
    mixture_strategy: first_exhausted
    collator_name: text_completions_only_with_padding
    train_target: FINAL_ASSISTANT_TURN
    pack: true
    datasets:
      - {dataset_name: text_sft, dataset_path: rows.jsonl, mixture_proportion: 0.75}
      - dataset_name: PromptResponseDataset
        mixture_proportion: 0.25
        split: train
        shuffle: true
        seed: 7
        dataset_kwargs:
          hf_dataset_path: org/questions
          prompt_column: question
          response_column: answer
          assistant_only: true
  validation: {datasets: [{dataset_name: org/held}]}
training:
  trainer_type: oumi
  num_train_epochs: 3
  max_steps: 20
  warmup_ratio: 0.1
  warmup_steps: 5
  mixed_precision_dtype: BF16
  eval_strategy: steps
  eval_steps: 10
  use_deterministic: true
  adam_beta2: 0.95
  seed: 42
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


def test_what_oumi_says_in_sections_is_said_here(imported):
    recipe = imported(OUMI.replace("enable_wandb: True", "enable_wandb: False"))
    within(recipe["fetch"], "model", repo="HuggingFaceTB/SmolLM2-135M-Instruct")
    within(recipe["fetch"], "data", repo="yahma/alpaca-cleaned", type="dataset")
    within(recipe, "process", max_length=2048, train_on="all", shape="auto")
    within(recipe, "load", dtype="bfloat16", attention="sdpa")
    within(recipe, "adapt", objective="sft", method="qlora", base="nf4", rank=8, alpha=16.0)
    within(
        recipe, "adapt", target_modules=["q_proj", "v_proj"], effective_batch_size=64, epochs=1.0
    )
    within(recipe, "adapt", optimizer="adamw", schedule="cosine", warmup_steps=100, kernels="auto")
    within(recipe, "adapt", gradient_checkpointing=True, checkpoint_every=50, weight_decay=0.01)
    within(recipe, "save", format="adapter")
    assert recipe["save"]["to"].endswith("output/smol.qlora")


def test_what_oumi_says_and_nobody_understands_here_is_listed_with_its_section(imported):
    imported(OUMI.replace("enable_wandb: True", "enable_wandb: False"))
    listed = [line.split(": ")[1] for line in imported.said if line.startswith("has no")]
    assert sorted(listed) == [
        "data.train.target_col",
        "data.train.use_async_dataset",
        "fsdp",
        "model.trust_remote_code",
        "peft.bnb_4bit_compute_dtype",
        "training.dataloader_num_workers",
        "training.gradient_checkpointing_kwargs",
        "training.logging_steps",
    ]
    assert "# Has no meaning here: peft.bnb_4bit_compute_dtype\n" in Path("mine.yaml").read_text()
    assert any(line.startswith("Oumi trains every token") for line in imported.said)


def test_a_mixture_of_oumi_is_mixed_here(imported):
    recipe = imported(OUMI_MIX)
    assert recipe["fetch"]["data2"]["repo"] == "org/questions"
    assert recipe["process"]["weights"] == {"fetch.data1": 0.75, "fetch.data2": 0.25}
    within(recipe, "process", stopping_strategy="first_exhausted", pack=True, train_on="last")
    within(recipe, "adapt", method="full", max_steps=20, epochs=None, warmup_steps=5)
    within(recipe, "adapt", warmup_ratio=None, precision="bfloat16", evaluate_every=10, beta2=0.95)
    within(recipe, "adapt", deterministic=True)
    assert recipe["seed"] == 42
    assert recipe["load"]["dtype"] == "float32"
    for line in (
        "Not taken up of datasets: seed: 7",
        "Not taken up of datasets: dataset_kwargs: {'prompt_column': 'question',"
        " 'response_column': 'answer', 'assistant_only': True}",
        "has no meaning here: model.adapter_model: c/d",
        "has no meaning here: data.validation: {'datasets': [{'dataset_name': 'org/held'}]}",
    ):
        assert line in imported.said


@pytest.mark.parametrize(
    ("data", "training", "wanted"),
    [
        ("", "trainer_type: TRL_DPO", {"adapt": {"objective": "dpo"}}),
        ("", "trainer_type: trl_kto", {"process": {"shape": "unpaired"}}),
        ("", "trainer_type: TRL_SFT, use_peft: true", {"adapt": {"method": "lora"}}),
        ("", "optimizer: adafactor, max_steps: -1", {"adapt": {"optimizer": "adafactor"}}),
        ("sample_count: 9, split: test", "", {"process": {"first": 9, "split": "test"}}),
        (
            "dataset_kwargs: {prompt_column: q, response_column: a}",
            "",
            {"process": {"columns": {"prompt": "q", "completion": "a"}}},
        ),
    ],
)
def test_methods_and_rows_of_oumi_have_their_names_here(data, training, wanted, imported):
    rows = f"{{dataset_name: text_sft, dataset_path: rows.jsonl, {data}}}"
    recipe = imported(
        f"model: {{model_name: a/b}}\ndata: {{train: {{datasets: [{rows}]}}}}\n"
        f"training: {{{training}}}\n"
    )
    for step, options in wanted.items():
        within(recipe, step, **options)


def test_an_adapter_that_oumi_goes_on_with_is_fetched(imported):
    text = "model: {model_name: a/b, adapter_model: c/d}\ntraining: {use_peft: true}\n"
    rows = "data: {train: {datasets: [{dataset_name: org/rows}]}}\n"
    recipe = imported(text + rows + "peft: {q_lora: true, use_bnb_nested_quant: true}\n")
    assert recipe["fetch"]["adapter"]["repo"] == "c/d"
    within(recipe, "adapt", adapter="fetch.adapter", base="nf4", double_quantization=True)
    assert "Oumi takes fp4 where nothing is said; adapt.base has nf4." in imported.said


def test_rewards_of_oumi_must_be_named_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(
        "model: {model_name: a/b}\ndata: {train: {datasets: [{dataset_name: org/rows}]}}\n"
        "training: {trainer_type: TRL_GRPO, reward_functions: [count_letters],"
        " grpo: {num_generations: 6, use_vllm: true}, per_device_train_batch_size: 6}\n"
    )
    assert cli.main(["import", "theirs.yaml", "mine.yaml"]) == 0
    said = capsys.readouterr().out
    assert "has no meaning here: training.reward_functions: ['count_letters']" in said
    assert "has no meaning here: training.grpo.use_vllm: True" in said
    assert "grpo needs a function that scores what is written." in said
    assert "generations: 6\n" in Path("mine.yaml").read_text()


def test_steps_win_over_epochs_for_whoever_says_both(imported):
    recipe = imported(AXOLOTL + "max_steps: 70\nwarmup_ratio: 0.1\nadam_beta2: 0.95\n")
    within(recipe, "adapt", max_steps=70, epochs=None, warmup_steps=10, warmup_ratio=None)
    within(recipe, "adapt", beta2=0.95)


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


@pytest.mark.parametrize("text", ["steps: [fetch]\n", "- a\n", "a: [\n", "model: a/b\n"])
def test_what_is_neither_is_refused(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(text)
    assert cli.main(["import", "theirs.yaml", "mine.yaml"]) == 1
    assert "theirs.yaml" in capsys.readouterr().err
    assert not Path("mine.yaml").exists()
