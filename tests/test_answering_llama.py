"""Answers by llama.cpp from a tiny GGUF file: the rows, ids and draws that transformers gives."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from test_load import make_gguf

from runner import cli, convert, products
from runner.answering import loop
from runner.answering.settings import Options
from runner.answering.streaming import Stream
from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.products import Files
from runner.stage import Context
from runner.stages import generate

llama_cpp = pytest.importorskip("llama_cpp", reason="the extra gguf is not installed")
pytestmark = pytest.mark.filterwarnings("default")

PROMPTS = tuple(f"say {'the ' * number}{number}" for number in range(5))


@pytest.fixture(scope="module")
def gguf(tiny_model, tmp_path_factory) -> Path:
    return make_gguf(tiny_model, tmp_path_factory.mktemp("made") / "gguf")


def rows(place: Path, inputs: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    place.mkdir(parents=True)
    made = Options(**{"prompts": PROMPTS, "max_new_tokens": 8} | options)
    return generate.run(made, inputs, Context(place, Checkpoints(place / "c", print)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0, "top_k": 20, "samples": 2},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {"stop": ("e",), "max_new_tokens": 20},
        {"prefix": "Sure"},
    ],
    ids=str,
)
def test_the_same_weights_give_the_same_rows(options, gguf, tmp_path):
    converted = tmp_path / "converted"
    shutil.copytree(gguf, converted)
    convert.to_safetensors(converted, print)
    model = products.open_model(converted, dtype="float32")
    ours = rows(tmp_path / "ours", {"gguf": Files(gguf)}, engine="llama.cpp", **options)
    assert ours == rows(tmp_path / "theirs", {"model": model}, **options)


def test_log_probabilities_are_kept(gguf, tmp_path):
    for row in rows(tmp_path / "a", {"gguf": Files(gguf)}, engine="llama.cpp", logprobs=True):
        assert len(row["logprobs"]) == row["answer_tokens"]
        assert all(each <= 0 for each in row["logprobs"])


def test_greedy_answers_are_those_of_llama_cpp_by_hand(gguf, tmp_path):
    tokenizer = convert.open_gguf_tokenizer(gguf / "tiny.gguf")
    model = llama_cpp.Llama(str(gguf / "tiny.gguf"), n_ctx=256, verbose=False)
    found = rows(tmp_path / "a", {"gguf": Files(gguf)}, engine="llama.cpp")
    for row in found:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = []
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            if token == tokenizer.eos_token_id or len(answer) == 8:
                break
            answer.append(token)
        assert row["answer"] == tokenizer.decode(answer, skip_special_tokens=True).strip()
    model.close()


def test_an_answer_is_told_while_it_is_made(gguf, tmp_path):
    pieces: list[str] = []
    options = Options(prompts=PROMPTS[:1], max_new_tokens=8, engine="llama.cpp")
    context = Context(tmp_path, Checkpoints(tmp_path / "c", print))
    stream = Stream(options, pieces.append)
    (row,) = loop.answers(options, {"gguf": Files(gguf)}, context, stream=stream)
    assert len(pieces) > 1
    assert row["answer"].startswith("".join(pieces))


def test_a_step_without_one_gguf_file_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StepError, match="takes one GGUF file, and the step gives none"):
        rows(tmp_path / "a", {"gguf": Files(tmp_path / "empty")}, engine="llama.cpp")


def test_the_gguf_file_that_a_run_has_fetched_is_talked_to(gguf, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = {"path": str(gguf), "convert_gguf": False}
    recipe = {"name": "small", "steps": ["fetch"], "fetch": {"model": source}}
    Path("small.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    assert cli.main(["run", "small.yaml"]) == 0
    capsys.readouterr()
    words = ["small", "engine=llama.cpp", "max_new_tokens=8"]
    assert cli.main(["generate", *words[:1], "say 3", *words[1:], "--json"]) == 0
    (row,) = rows(tmp_path / "a", {"gguf": Files(gguf)}, engine="llama.cpp", prompts=("say 3",))
    assert json.loads(capsys.readouterr().out) == row
    monkeypatch.setattr(sys, "stdin", io.StringIO("say 3\n"))
    assert cli.main(["chat", *words]) == 0
    assert capsys.readouterr().out.split("> ")[1].strip() == row["answer"]
