"""Answers of the real model by vLLM: the rows and ids of transformers, whatever is killed."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_answering_real import QUESTIONS

from runner import products
from runner.answering.settings import Options
from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.products import Model
from runner.stage import Context
from runner.stages import generate

pytest.importorskip("vllm", reason="the extra vllm is not installed")
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),
]
LENGTH = 16
DRAWN = {"temperature": 0.9, "top_p": 0.95, "samples": 2, "max_new_tokens": 12, "batch_size": 4}


@pytest.fixture(scope="module")
def model(real_model: Path) -> Model:
    """In the number format of its files, so that vLLM reads them where they lie."""
    return products.open_model(real_model, dtype="auto")


@pytest.fixture(scope="module")
def exact(real_model: Path) -> Model:
    """In float32, where other code for the same product makes hardly any token another."""
    opened = products.open_model(real_model, dtype="float32")
    return Model(opened.model, opened.tokenizer)


def answers(model: Model, place: Path, **options: Any) -> list[dict[str, Any]]:
    return run(model, place, **options)[0]


def run(model: Model, place: Path, **options: Any) -> tuple[list[dict[str, Any]], Context]:
    place.mkdir(parents=True, exist_ok=True)
    context = Context(place, Checkpoints(place / "c", print))
    told = {"prompts": QUESTIONS, "max_new_tokens": LENGTH, "engine": "vllm"} | options
    return generate.run(Options(**told), {"model": model}, context), context


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["answer"] for row in rows]


def test_greedy_rows_are_those_of_transformers(exact, tmp_path):
    theirs = answers(exact, tmp_path / "theirs", engine="transformers")
    ours, context = run(exact, tmp_path / "ours")
    assert ours == theirs
    assert context.facts["engine"].startswith("vLLM ")
    assert not (tmp_path / "ours" / "vllm").exists()  # what was written for vLLM is gone


def test_log_probabilities_are_those_of_transformers(exact, tmp_path):
    settings = {"logprobs": True, "prefix": "Well", "max_new_tokens": 8, "temperature": 0.5}
    theirs = answers(exact, tmp_path / "theirs", engine="transformers", **settings | {"top_k": 1})
    ours = answers(exact, tmp_path / "ours", **settings | {"top_k": 1})
    assert texts(ours) == texts(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one["logprobs"] == pytest.approx(other["logprobs"], abs=1e-3)


def test_stop_texts_and_repetition_are_those_of_transformers(exact, tmp_path):
    settings = {"stop": (".", " is"), "repetition_penalty": 1.3, "min_new_tokens": 2}
    theirs = answers(exact, tmp_path / "theirs", engine="transformers", **settings)
    ours = answers(exact, tmp_path / "ours", **settings)
    assert ours == theirs
    assert sum(row["finish"] == "stop" for row in ours) > 2


def test_answers_follow_a_schema_or_a_regular_expression(model, tmp_path):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "legs": {"enum": [2, 4]}},
        "required": ["name", "legs"],
        "additionalProperties": False,
    }
    words = answers(model, tmp_path / "words", regex="Yes|No|Maybe")
    assert {*texts(words)} <= {"Yes", "No", "Maybe"}
    asked = ("Describe a dog as JSON.", "Describe a bird as JSON.")
    for row in answers(
        model, tmp_path / "json", prompts=asked, json_schema=schema, max_new_tokens=60
    ):
        assert {*json.loads(row["answer"])} == {"name", "legs"}


def test_samples_differ_and_their_seeds_belong_to_them(model, tmp_path):
    rows = answers(model, tmp_path / "whole", **DRAWN)
    assert len({row["id"] for row in rows}) == len(rows) == 2 * len(QUESTIONS)
    assert len({*texts(rows)}) > len(QUESTIONS)
    assert answers(model, tmp_path / "again", **DRAWN) == rows
    other = answers(model, tmp_path / "other", **DRAWN | {"seed": 1})
    assert sum(map(str.__ne__, texts(other), texts(rows))) > len(QUESTIONS)


def test_an_adapter_is_added_in_a_copy_of_the_model(exact, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    opened = products.open_model(Path(exact.tokenizer.name_or_path), dtype="float32")
    taught = get_peft_model(opened.model, LoraConfig(target_modules=["q_proj", "v_proj"]))
    for name, weight in taught.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    before = {name: each.clone() for name, each in taught.state_dict().items()}
    model = Model(taught.eval(), opened.tokenizer)
    ours = answers(model, tmp_path / "ours")
    assert texts(ours) == texts(answers(model, tmp_path / "theirs", engine="transformers"))
    assert texts(ours) != texts(answers(exact, tmp_path / "bare"))
    assert all(torch.equal(each, before[name]) for name, each in taught.state_dict().items())
    assert taught.config._name_or_path == str(exact.tokenizer.name_or_path)


def test_a_model_that_vllm_does_not_open_is_an_error_with_its_reason(model, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "nothing_of_the_kind"}')
    with pytest.raises(StepError, match="vLLM does not open the model") as caught:
        answers(Model(model.model, model.tokenizer, folder), tmp_path / "a")
    assert "generate.engine=transformers" in caught.value.command


WORKER = """
import sys
from pathlib import Path
from runner import products
from test_answering_vllm import DRAWN, answers
model = products.open_model(Path(sys.argv[1]), dtype="auto")
print(len(answers(model, Path(sys.argv[2]), **DRAWN)), flush=True)
"""


def test_draws_are_the_same_after_kills_and_no_process_is_left(real_model, model, tmp_path):
    whole = answers(model, tmp_path / "whole", **DRAWN)
    path = f"{Path(__file__).parent}:{Path(__file__).parent.parent}"
    env = {**os.environ, "PYTHONPATH": path}
    kept = tmp_path / "killed" / "rows.jsonl"

    def done() -> int:
        return len(kept.read_text().splitlines()) if kept.exists() else 0

    lines = [0]
    while len(lines) <= 3:
        command = [sys.executable, "-c", WORKER, str(real_model), str(kept.parent)]
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as child:
            while done() <= lines[-1] and child.poll() is None:
                time.sleep(0.01)
            child.kill()
        lines.append(done())
    assert 0 < lines[1] < lines[2] < lines[3] <= len(whole)
    assert lines[1] < len(whole)
    time.sleep(1)
    assert not [each for each in processes() if str(kept.parent) in each]
    assert answers(model, kept.parent, **DRAWN) == whole


def processes() -> list[str]:
    """What each process of ours has open, its log too."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            opened = [os.readlink(link) for link in (each / "fd").iterdir()]
        except OSError:
            continue
        found.append(" ".join(opened))
    return found


def test_probabilities_of_draws_are_the_models(model, tmp_path):
    """A thousand draws of one token come as often as the model says, within four deviations."""
    asked = {"prompts": ("Answer with yes or no: is the sky blue?",), "max_new_tokens": 1}
    rows = answers(model, tmp_path, **asked, temperature=1.0, top_k=4, samples=1000, logprobs=True)
    chances = {row["answer"]: math.exp(row["logprobs"][0]) for row in rows}
    assert 1 < len(chances) <= 4
    total = sum(chances.values())
    for answer, chance in chances.items():
        share, wanted = texts(rows).count(answer) / len(rows), chance / total
        assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / len(rows))
