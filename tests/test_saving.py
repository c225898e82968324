"""A model as others use it: each form opened by a plain process, its card, papers and files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_stages import adapted, context, data_files, dataset, loaded, logits, model_files
from tiny import make_model, make_recipe

from runner import cli, files, lock, products, secrets
from runner.errors import StepError
from runner.options import build
from runner.products import Files, Model
from runner.saving import card, formats, licence, papers, shards, verify
from runner.stage import About
from runner.stages import adapt, generate, quantize, save

__all__ = ["adapted", "data_files", "dataset", "loaded", "model_files"]  # fixtures

PLAIN = """
import sys, json, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, base = sys.argv[1:]
ids = torch.arange(1, 25).reshape(2, 12)
if base:
    from peft import PeftModel
    under = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    model = PeftModel.from_pretrained(under, folder)
else:
    model = AutoModelForCausalLM.from_pretrained(folder)
AutoTokenizer.from_pretrained(folder)
assert not [name for name in sys.modules if name.split(".")[0] == "runner"]
with torch.inference_mode():
    print(json.dumps(model(input_ids=ids).logits.float().tolist()))
"""


def opened(folder: Path, base: Path | str = "") -> Any:
    """The logits that a process with nothing of ours computes from a folder."""
    import torch

    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder), str(base)],
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"},
        cwd=folder.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return torch.tensor(json.loads(done.stdout.strip().splitlines()[-1]))


def saved(model: Model, tmp_path: Path, **given: Any) -> tuple[Path, dict[str, Any]]:
    """A model saved to `out`, and the facts of it; opened again where `verify` says so."""
    place = context(tmp_path / "s")
    made, faults = build(save.Options, {"to": str(tmp_path / "out"), "verify": False, **given})
    assert not faults, faults
    save.run(made, {"model": model}, place)
    return tmp_path / "out", place.facts


# --- forms


def test_a_model_that_lies_on_disk_is_copied_and_opens_alone(tiny_model, tmp_path):
    model = products.open_model(tiny_model, dtype="auto", attn_implementation="sdpa")
    before = logits(model).float()
    folder, facts = saved(model, tmp_path, verify=True)
    assert opened(folder).equal(before)
    assert facts["verified"]["difference"] == 0
    assert (folder / "model.safetensors").read_bytes() == (
        tiny_model / "model.safetensors"
    ).read_bytes()


def test_an_adapter_is_merged_and_opens_with_transformers_alone(adapted, tmp_path):
    before = logits(adapted)
    folder, facts = saved(adapted, tmp_path, verify=True)
    assert opened(folder).allclose(before, atol=1e-4)
    assert facts["verified"]["difference"] < verify.TOLERANCE["float32"]
    assert facts["verified"]["likeliest"] == 1


def test_an_adapter_alone_opens_with_peft_on_its_base(adapted, tiny_model, tmp_path):
    before = logits(adapted)
    folder, facts = saved(adapted, tmp_path, verify=True, format="adapter")
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith("model")]
    assert opened(folder, tiny_model).allclose(before, atol=1e-4)
    assert facts["verified"]["difference"] < verify.TOLERANCE["float32"]
    assert facts["library"] == "peft"


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_quantized_weights_are_saved_as_they_are_after_use_too(method, adapted, dataset, tmp_path):
    made = quantize.run(
        quantize.Options(method=method), {"model": adapted}, context(tmp_path / "q")
    )
    model = quantize.restore(made.folder, {})
    inputs = {"model": model, "dataset": dataset}
    generate.run(generate.Options(max_new_tokens=2), inputs, context(tmp_path / "g"))
    before = logits(model)
    folder, facts = saved(model, tmp_path, verify=True)
    furthest = (opened(folder) - before).abs().max() / before.abs().max()
    assert furthest < verify.TOLERANCE["quantized"]
    assert facts["quantized"]


def test_a_trained_prompt_is_saved_alone_and_said(loaded, dataset, tiny_model, tmp_path):
    options = adapt.Options(method="prompt", virtual_tokens=4, max_steps=2, effective_batch_size=4)
    inputs = {"model": loaded, "dataset": dataset}
    model = adapt.run(options, inputs, context(tmp_path / "a"))
    place = context(tmp_path / "s")
    save.run(save.Options(to=tmp_path / "out"), {"model": model}, place)
    assert any("saved alone" in note for note in place.notes)
    assert place.facts["library"] == "peft"
    assert place.facts["verified"]["difference"] < verify.TOLERANCE["float32"]


def test_there_must_be_an_adapter_to_save_one(loaded, tmp_path):
    with pytest.raises(StepError, match="the model has no adapter"):
        saved(loaded, tmp_path, format="adapter")
    assert not (tmp_path / "out").exists()


def test_every_form_that_an_option_takes_is_in_the_table():
    from typing import get_args, get_type_hints

    assert {*get_args(get_type_hints(save.Options)["format"])} == {*formats.FORMATS}


# --- verified


def spoiled(folder: Path, how: str) -> None:
    from safetensors.torch import load_file, save_file

    if how == "weights":
        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in tensors if "q_proj" in name)
        tensors[name] = tensors[name].roll(1, 0) * 4
        (folder / "model.safetensors").unlink()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "tokenizer":
        config = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = config["model"]["vocab"]
        vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
        (folder / "tokenizer.json").write_text(json.dumps(config))
    elif how == "template":
        (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    else:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").write_bytes(b"torn")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("weights", "its logits differ from those of the model in memory"),
        ("tokenizer", "its tokenizer makes other tokens"),
        ("template", "its tokenizer makes other tokens"),
        ("torn", "a new process does not open it"),
    ],
)
def test_a_folder_that_is_another_model_is_refused_and_the_target_left(
    how, message, loaded, tmp_path, monkeypatch
):
    def badly(model: Model, folder: Path, told: formats.How) -> formats.Written:
        written = formats.hf(model, folder, told)
        spoiled(folder, how)
        return written

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "older.txt").write_text("mine")
    monkeypatch.setattr(formats, "FORMATS", {"hf": badly})
    with pytest.raises(StepError, match=message):
        saved(loaded, tmp_path, verify=True, overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["older.txt"]
    assert not list(tmp_path.glob(".out.*"))


# --- shards and copies


def test_weights_are_split_into_files_of_the_set_size(loaded, tmp_path):
    before = logits(loaded)
    whole = sum(p.numel() * 4 for p in loaded.model.parameters())
    folder, _ = saved(loaded, tmp_path, shard_size="0.1MB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 3
    assert all(path.stat().st_size < 110_000 for path in parts)
    assert not (folder / "model.safetensors").exists()
    index = json.loads((folder / shards.INDEX).read_text())
    assert index["metadata"]["total_size"] == whole
    assert {*index["weight_map"].values()} == {path.name for path in parts}
    assert logits(products.open_model(folder, dtype="auto")).equal(before)


def test_weights_that_are_small_enough_are_left_as_they_lie(tiny_model, tmp_path):
    model = products.open_model(tiny_model)
    folder, _ = saved(model, tmp_path, shard_size="1GB")
    assert sorted(path.name for path in folder.glob("*.safetensors*")) == ["model.safetensors"]


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=50), min_size=1, max_size=30),
    limit=st.integers(min_value=1, max_value=60),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy
def test_every_tensor_goes_into_one_file_and_no_file_is_too_large(sizes, limit):
    named = {str(number): size for number, size in enumerate(sizes)}
    groups = list(shards._groups(named, limit))
    assert [name for names in groups for name in names] == [*named]
    for names in groups:
        assert names
        assert len(names) == 1 or sum(named[name] for name in names) <= limit


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5 * 10**9),
        ("0.5 MB", 500_000),
        ("12kb", 12_000),
        ("5", None),
        ("x", None),
        ("0GB", None),
    ],
)
def test_a_size_is_a_number_and_a_unit(text, size):
    assert shards.parsed(text) == size


def test_a_copy_is_a_file_of_its_own(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    files.clone(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").stat().st_ino != (tmp_path / "a").stat().st_ino
    with open(tmp_path / "b", "r+b") as file:
        file.write(b"mine")
    assert (tmp_path / "a").read_bytes()[:4] == b"\0\1\2\3"
    (tmp_path / "empty").touch()
    files.clone(tmp_path / "empty", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b""
    with pytest.raises(FileExistsError):
        files.clone(tmp_path / "a", tmp_path / "b")


def test_a_copy_is_whole_where_the_kernel_cannot_make_it(tmp_path, monkeypatch):
    def refuse(*_: Any) -> int:
        raise OSError("not here")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    files.clone(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


@pytest.mark.parametrize("linked", [False, True])
def test_the_stores_own_files_are_shared_only_where_that_is_asked_for(linked, tiny_model, tmp_path):
    model = products.open_model(make_model(tmp_path / "store"))
    folder, _ = saved(model, tmp_path, hard_links=linked)
    pair = [path / "model.safetensors" for path in (folder, tmp_path / "store")]
    assert pair[0].samefile(pair[1]) is linked


# --- papers


def told(tmp_path: Path, **given: Any) -> Any:
    row = {"step": "load", "stage": "load", "key": "ab" * 16, "inputs": {"files": ["fetch.model"]}}
    return card.Told(
        **{
            "title": "trial",
            "library": "transformers",
            "quantized": False,
            "base": {"repo": "acme/tiny", "type": "model", "commit": "c" * 40},
            "is_changed": True,
            "licence": licence.Licence("mit", note="That of the base."),
            "lineage": [{**row, "seconds": 1.5, "facts": {}}],
            "sources": {
                "fetch.model": {"repo": "acme/tiny", "type": "model", "commit": "c" * 40},
                "fetch.data": {"repo": "acme/rows", "type": "dataset", "commit": "d" * 40},
            },
            "scores": {},
            "confidence": 0.95,
            "size": 1000,
            "parameters": 2_000_000,
            **given,
        }
    )


SCORES = {
    "evaluate": {
        "exact_match": {"before": 0.0, "after": 0.97},
        "perplexity": {"model": 1.0634},
        "intervals": {"exact_match": {"after": [0.9, 1.0]}},
        "samples": [
            {"prompt": "say 7", "expected": "49", "answers": {"before": "?", "after": "49"}}
        ],
        "rows": [],
    }
}


def test_a_card_is_read_back_by_the_hubs_own_class(tmp_path):
    from huggingface_hub import ModelCard

    card.write(told(tmp_path, scores=SCORES), tmp_path)
    read = ModelCard.load(tmp_path / "README.md", ignore_metadata_errors=False)
    data = read.data.to_dict()
    assert data["base_model"] == "acme/tiny"
    assert data["base_model_relation"] == "finetune"
    assert data["datasets"] == ["acme/rows"]
    assert (data["license"], data["library_name"]) == ("mit", "transformers")
    assert data["pipeline_tag"] == "text-generation"
    results = {
        (each.metric_type, each.metric_name): each.metric_value for each in read.data.eval_results
    }
    assert results == {
        ("exact_match", "exact match, before"): 0.0,
        ("exact_match", "exact match, after"): 0.97,
        ("perplexity", "perplexity, model"): 1.0634,
    }
    for text in (
        "| exact match | after | 0.97 | 0.9 to 1 |",
        "a confidence of 95%",
        "say 7",
        "c" * 40,
    ):
        assert text in read.text, text


def test_a_card_of_an_adapter_says_how_to_put_it_on_its_base(tmp_path):
    from huggingface_hub import ModelCard

    card.write(told(tmp_path, library="peft"), tmp_path)
    read = ModelCard.load(tmp_path / "README.md")
    assert read.data.base_model_relation == "adapter"
    code = re.search(r"```python\n(.*?)```", read.text, re.S)
    assert code
    assert f'from_pretrained("acme/tiny", revision="{"c" * 40}")' in code[1]
    compile(code[1], "card", "exec")


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_no_answer_breaks_out_of_its_place_in_a_card(text):
    shown = card.fenced(text)
    fence = shown.split("text\n", 1)[0]
    assert set(fence) == {"`"}
    inside = shown.removeprefix(f"{fence}text\n").removesuffix(f"\n{fence}")
    assert inside == text
    assert fence not in inside


def test_a_card_whose_answers_look_like_cards_keeps_its_own_metadata(tmp_path):
    from huggingface_hub import ModelCard

    evil = "---\nlicense: other\n---\n```\n# Not the title\n{{ 7 * 7 }} <script>"
    samples = [{"prompt": evil, "expected": evil, "answers": {"after": evil}}]
    card.write(told(tmp_path, scores={"evaluate": {"samples": samples}}), tmp_path)
    read = ModelCard.load(tmp_path / "README.md")
    assert read.data.license == "mit"
    assert "{{ 7 * 7 }}" in read.text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            {"README.md": "---\nlicense: gemma\nlicense_link: https://x\n---\n# It"},
            ("gemma", "https://x"),
        ),
        ({"README.md": "# none", "LICENSE": "MIT License\n\nCopyright"}, ("mit", None)),
        ({"LICENSE.txt": "Apache License\n   Version 2.0, January 2004"}, ("apache-2.0", None)),
        ({"README.md": "---\n: [\n---\n"}, (None, None)),
        ({"LICENSE": "Do as you like."}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_the_licence_is_that_of_the_base(content, found, tmp_path):
    base, folder = tmp_path / "base", tmp_path / "out"
    base.mkdir()
    folder.mkdir()
    for name, text in content.items():
        (base / name).write_text(text)
    made = licence.of(base)
    assert (made.id, made.link) == found
    licence.carry(base, folder)
    assert {path.name for path in folder.iterdir()} == {*content} - {"README.md"}


def test_papers_name_no_place_of_this_machine_and_no_token(tmp_path, monkeypatch):
    home, place = tmp_path / "home", tmp_path / "recipes"
    for each in (home, place, tmp_path / "out"):
        each.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MY_TOKEN", "a-very-secret-word")
    secrets.known.cache_clear()
    made = context(tmp_path / "c")
    made.about = About(
        recipe="trial",
        step="save",
        plain={
            "name": "trial",
            "store": {"path": str(tmp_path / "store")},
            "fetch": {"data": {"path": str(place / "data" / "rows.jsonl")}},
            "process": {"template": str(tmp_path / "elsewhere" / "chat.jinja")},
            "evaluate": {"judges": [{"path": f"{place}/judge.py:polite"}]},
            "save": {
                "to": str(tmp_path / "models" / "mine"),
                "push": {"repo": "a/b"},
                "overwrite": True,
            },
        },
        place=place / "r.yaml",
        lineage=[
            {"step": "fetch.data", "facts": {"said": f"in {home}/x the word a-very-secret-word"}}
        ],
        sources={"fetch.data": {"path": place / "data" / "rows.jsonl", "digest": "abc"}},
    )
    papers.write(tmp_path / "out", made)
    text = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert str(tmp_path) not in text
    assert "a-very-secret-word" not in text
    recipe = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert recipe == {
        "name": "trial",
        "fetch": {"data": {"path": "data/rows.jsonl"}},
        "process": {"template": "chat.jinja"},
        "evaluate": {"judges": [{"path": "judge.py:polite"}]},
        "save": {"to": "mine"},
    }
    kept = lock.read(tmp_path / "out" / "recipe.yaml")
    assert kept
    assert kept.sources == {"fetch.data": {"path": "data/rows.jsonl", "digest": "abc"}}


# --- in a run


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe over all stages, and a base that says its licence."""
    monkeypatch.chdir(tmp_path)
    base = make_model(tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    (base / "LICENSE").write_text("Apache License\n")
    make_recipe(tmp_path, base, max_steps=2, merge=True)
    return tmp_path


def test_a_run_leaves_a_model_with_card_recipe_lock_and_lineage(place, capfd):
    from huggingface_hub import ModelCard

    assert cli.main(["run", "tiny.yaml"]) == 0, capfd.readouterr()
    folder = place / "saved"
    read = ModelCard.load(folder / "README.md", ignore_metadata_errors=False)
    assert read.data.license == "apache-2.0"
    assert {each.metric_name for each in read.data.eval_results} == {
        "exact match, before",
        "exact match, after",
        "perplexity, reference",
        "perplexity, model",
    }
    assert "say " in read.text
    assert (folder / "LICENSE").read_text() == "Apache License\n"
    lineage = json.loads((folder / "lineage.json").read_text())
    record = json.loads(max(place.glob("runs/tiny/*/record.json")).read_text())
    assert {row["step"]: row["key"] for row in lineage["steps"]} == {
        name: row["key"] for name, row in record["steps"].items() if name != "save"
    }
    listed = json.loads((folder / "runner.json").read_text())["files"]
    assert {path.name for path in folder.iterdir()} == {*listed, "runner.json"}
    for name in ("README.md", "recipe.yaml", "recipe.lock", "lineage.json"):
        assert str(place.parent) not in (folder / name).read_text(), name
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    capfd.readouterr()
    assert cli.main(["run", "tiny.yaml"]) == 0
    assert "0 steps run" in capfd.readouterr()[0]
    assert cli.main(["run", "tiny.yaml", "--fresh", "save", "save.overwrite=false"]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_model_that_is_only_pushed_is_kept_in_the_store_until_its_figures_are_good(
    place, capfd, monkeypatch
):
    import hub as double
    from hub import Token
    from huggingface_hub import constants

    recipe = json.loads((place / "tiny.yaml").read_text())
    recipe["save"] = {"push": "someone/new", "verify": False}
    recipe["evaluate"] |= {"require": {"model.perplexity": "< 1"}}
    (place / "tiny.yaml").write_text(json.dumps(recipe))
    word = "hf_" + "w" * 30
    monkeypatch.setenv("HF_TOKEN", word)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with double.serve(tokens={word: Token("write")}) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        assert cli.main(["run", "tiny.yaml"]) == 1
        assert "not pushed to someone/new" in _log(place)
        assert ("model", "someone/new") not in server.repos
        assert cli.main(["run", "tiny.yaml", "evaluate.require={model.perplexity: '> 1'}"]) == 0
        assert "it is not at someone/new yet" in _log(place)
        there = server.repos["model", "someone/new"].branches["main"].files
        assert {"model.safetensors", "README.md", "lineage.json", "runner.json"} <= {*there}
        assert cli.main(["run", "tiny.yaml", "evaluate.require={model.perplexity: '> 1'}"]) == 0
        assert "0 steps run" in capfd.readouterr()[0]
    assert word not in "".join(path.read_text() for path in place.glob("runs/*/*/*.json"))


def _log(place: Path) -> str:
    return max(place.glob("runs/tiny/*/log.txt")).read_text()


def test_what_save_cannot_do_is_said_before_any_work(tmp_path):
    from types import SimpleNamespace

    def found(inputs: Any = None, **given: Any) -> list[str]:
        made, faults = build(save.Options, given)
        assert not faults
        return [fault.fact for fault in save.check(made, inputs or {})]

    assert found() == ['save needs "to": The folder to write.']
    assert found(push="a/b") == []
    assert found(push={"repo": "b"}) == ['"b" does not say whose it is.']
    assert found(to="x", shard_size="5") == ['"5" is no size.']
    squeezed = SimpleNamespace(name="squeeze", stage_name="quantize", options=None)
    assert found({"model": (squeezed,)}, to="x", format="adapter") == [
        "squeeze gives a whole model, so there is no adapter to save."
    ]


def test_what_was_saved_without_a_folder_is_the_same_from_the_store(loaded, tmp_path):
    place = context(tmp_path / "s")
    made = save.run(save.Options(push=None, to=None, verify=False), {"model": loaded}, place)
    (tmp_path / "kept").mkdir()
    save.save(made, tmp_path / "kept")
    again = save.restore(tmp_path / "kept", {})
    assert isinstance(again, Files)
    assert files.manifest(again.folder) == files.manifest(made.folder)
    assert save.stale(save.Options(), tmp_path / "kept", place.facts) is None


@pytest.mark.parametrize("padded", [False, True])
def test_a_tokenizer_that_was_used_is_written_as_it_was_opened(padded, tmp_path):
    from runner.saving import tokenizers

    source = make_model(tmp_path / "source")
    if padded:  # its own file says how it pads
        made = json.loads((source / "tokenizer.json").read_text())
        made["truncation"] = {
            "direction": "Right",
            "max_length": 9,
            "strategy": "LongestFirst",
            "stride": 0,
        }
        (source / "tokenizer.json").write_text(json.dumps(made))
    used = products.open_tokenizer(source)
    before = used(["a", "long one"], padding=True, truncation=True, max_length=7)["input_ids"]
    tokenizers.write(used, tmp_path / "out")
    products.write_tokenizer(products.open_tokenizer(source), tmp_path / "fresh")
    for path in (tmp_path / "fresh").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    again = used(["a", "long one"], padding=True, truncation=True, max_length=7)["input_ids"]
    assert again == before


# --- GGUF


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_an_adapted_model_is_saved_as_one_gguf_file_and_opened_again(adapted, tmp_path, kind):
    folder, facts = saved(adapted, tmp_path, format="gguf", gguf=kind, verify=True)
    assert facts["verified"]["difference"] <= facts["verified"]["tolerance"] < 0.3
    assert (folder / f"model-{kind}.gguf").stat().st_size == facts["bytes"] - sum(
        path.stat().st_size for path in folder.iterdir() if path.suffix != ".gguf"
    )
    assert "from llama_cpp import Llama" in (folder / "README.md").read_text()
    assert not [path for path in folder.iterdir() if path.suffix == ".safetensors"]


def test_a_model_that_lies_on_disk_is_saved_as_one_gguf_file_and_opened_again(tiny_model, tmp_path):
    model = products.open_model(tiny_model, dtype="float32")
    folder, facts = saved(model, tmp_path, format="gguf", gguf="f32", verify=True)
    assert facts["verified"]["difference"] <= facts["verified"]["tolerance"]
    assert [path.name for path in folder.glob("*.gguf")] == ["model-f32.gguf"]


def test_a_kind_of_gguf_that_there_is_not_and_a_quantized_model_are_refused():
    from types import SimpleNamespace

    squeezed: Any = SimpleNamespace(
        name="squeeze", stage_name="quantize", options=quantize.Options(method="nf4")
    )
    options, faults = build(save.Options, {"to": "out", "format": "gguf", "gguf": "q9"})
    assert options, faults
    found = save.check(options, {"model": (squeezed,)})
    assert [fault.where for fault in found] == [("gguf",), ("format",)]
