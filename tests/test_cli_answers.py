"""`runner generate` and `runner chat` on what a run has made."""

import io
import json
import sys
from pathlib import Path

import pytest
from tiny import make_data

from runner import cli, products, results
from runner.answering import talking
from runner.errors import RecipeError
from runner.report import folder

RECIPE = {
    "name": "small",
    "steps": ["fetch", "process", "load", "adapt"],
    "process": {"held_out": 2},
    "adapt": {"rank": 2, "max_steps": 2, "effective_batch_size": 2, "learning_rate": 0.02},
}
SHORT = "max_new_tokens=6"


@pytest.fixture
def place(tmp_path, tiny_model, monkeypatch):
    """A working directory with a recipe that loads the tiny model and teaches it."""
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path / "rows.jsonl")
    sources = {"model": {"path": str(tiny_model)}, "data": {"path": "rows.jsonl"}}
    Path("small.yaml").write_text(json.dumps({**RECIPE, "fetch": sources}), encoding="utf-8")
    return tmp_path


def done(*words):
    assert cli.main(["run", "small.yaml", *words]) == 0
    return next(folder.below(Path("runs"))).folder


def asked(capsys, *words):
    capsys.readouterr()
    code = cli.main(["generate", *words])
    return code, capsys.readouterr()


def test_the_last_model_of_a_run_answers(place, tiny_model, capsys):
    run = done("steps=[fetch,load]", "~process", "~adapt")
    code, said = asked(capsys, str(run), "say 3", SHORT, "--json")
    assert code == 0
    options = talking.options_of({"max_new_tokens": 6}, "say 3")
    (row,) = talking.answers({"model": products.open_model(tiny_model, dtype="auto")}, options)
    assert json.loads(said.out) == row
    code, said = asked(capsys, "small", "say 3", SHORT)
    assert said.out.rstrip("\n") == row["answer"]
    assert asked(capsys, f"small/{run.name}", "say 3", SHORT)[1].out == said.out


def test_a_taught_model_is_put_together_again(place, capsys):
    run = done()
    code, taught = asked(capsys, str(run), "say 3", SHORT, "--json")
    assert code == 0
    run = done("steps=[fetch,load]", "~process", "~adapt")
    _, plain = asked(capsys, str(run), "say 3", SHORT, "--json")
    assert json.loads(taught.out)["id"] == json.loads(plain.out)["id"]
    assert json.loads(taught.out)["answer"] != json.loads(plain.out)["answer"]


def test_samples_are_drawn_by_the_options_that_are_typed(place, capsys):
    done("steps=[fetch,load]", "~process", "~adapt")
    words = ("temperature=1", "samples=3", SHORT, "--json")
    _, said = asked(capsys, "small", "say 3", *words)
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["sample"] for row in rows] == [0, 1, 2]
    assert asked(capsys, "small", "say 3", *words)[1].out == said.out


def test_a_prompt_comes_from_standard_input(place, capsys, monkeypatch):
    done("steps=[fetch,load]", "~process", "~adapt")
    _, first = asked(capsys, "small", "say 3", SHORT)
    monkeypatch.setattr(sys, "stdin", io.StringIO("say 3"))
    assert asked(capsys, "small", "-", SHORT)[1].out == first.out


def test_a_conversation_goes_on_until_it_begins_anew(place, capsys, monkeypatch):
    done("steps=[fetch,load]", "~process", "~adapt")
    _, first = asked(capsys, "small", "say 3", SHORT)
    monkeypatch.setattr(sys, "stdin", io.StringIO("say 3\nsay 3\n/new\nsay 3\n\nnever\n"))
    assert cli.main(["chat", "small", SHORT]) == 0
    said = capsys.readouterr().out.split("> ")
    assert said[1] == said[4] == first.out
    assert said[2] != said[1]  # it has the first question before it
    assert len(said) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["temprature=1"], 'has no option "temprature". Did you mean "temperature"?'),
        (["temperature"], '"temperature" is no option. Write name=value.'),
        (["top_p=0.5"], "top_p has no effect on greedy answers"),
        (["file=rows.jsonl"], "file is not for here"),
        (["engine=vllm"], "vllm starts too slowly for single questions"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, said, place, capsys):
    code, printed = asked(capsys, "small", "say 3", *words)
    assert code == 1
    assert said in printed.err


def test_a_run_that_has_no_model_says_so(place, capsys):
    done("steps=[fetch]", "~process", "~adapt")
    code, said = asked(capsys, "small", "say 3")
    assert code == 1
    assert "this run has made no model." in said.err


def test_the_gguf_file_of_a_run_is_found_where_there_is_one(place):
    run = done("steps=[fetch,load,save]", "~process", "~adapt", "save={to: out, format: gguf}")
    assert [path.name for path in results.gguf_of(run, print).folder.glob("*.gguf")] == [
        "small-q8_0.gguf"
    ]
    run = done("steps=[fetch,load]", "~process", "~adapt")
    with pytest.raises(RecipeError, match="this run has no GGUF file"):
        results.gguf_of(run, print)


def test_a_model_that_is_gone_is_not_made_again_in_secret(place, capsys, own_store):
    run = done()
    (key,) = (keys["adapt"] for keys in [folder.read(run).keys])
    assert cli.main(["store", "rm", key]) == 0
    code, said = asked(capsys, str(run), "say 3")
    assert code == 1
    assert "what adapt made is not in the store" in said.err
    assert "runner run" in said.err
