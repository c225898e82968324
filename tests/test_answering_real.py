"""Answers of the real model of the quickstart: as transformers gives them, whatever the batch."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from runner import hardware, products
from runner.answering.settings import Options
from runner.checkpoint import Checkpoints
from runner.products import Model
from runner.stage import Context
from runner.stages import generate

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Name three animals that live in Africa, and say in a few words what each of them eats.",
    "2 + 2 =",
    "Is the sky blue? Answer with yes or no.",
    "Translate into French: good morning.",
    "Tell me a short story about a fox and a crow who meet in a forest on a rainy day in autumn, "
    "and who cannot agree on which of them has the better voice.",
    "Who wrote Hamlet?",
)
LENGTH = 16
DRAWN = {"temperature": 0.9, "top_p": 0.95, "samples": 2, "max_new_tokens": 12}
EXACT = pytest.mark.skipif(
    hardware.device() != "cpu" or not hardware.computes_bfloat16(),
    reason="only a CPU with bfloat16 multiplies the same in batches of any size",
)


@pytest.fixture(scope="module")
def folder(real_model: Path) -> Path:
    """The real model."""
    return real_model


@pytest.fixture(scope="module")
def exact(folder: Path) -> Model:
    """In float32, where other code for the same product makes no token another."""
    return products.open_model(folder, dtype="float32")


def answers(model: Model, place: Path, **options: Any) -> list[dict[str, Any]]:
    place.mkdir(parents=True, exist_ok=True)
    asked = Options(**{"prompts": QUESTIONS, "max_new_tokens": LENGTH} | options)
    return generate.run(asked, {"model": model}, Context(place, Checkpoints(place / "c", print)))


def by_hand(model: Model, question: str, **settings: Any) -> str:
    """What transformers answers to one question, without padding."""
    ids = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    ).to(model.model.device)
    settings = {"max_new_tokens": LENGTH, "do_sample": False, **settings}
    output = model.model.generate(**ids, pad_token_id=model.tokenizer.pad_token_id, **settings)
    answer = output[0, ids["input_ids"].shape[1] :]
    return str(model.tokenizer.decode(answer, skip_special_tokens=True))


def test_greedy_answers_are_those_of_the_pipeline_token_for_token(exact, tmp_path):
    from transformers import pipeline

    ask = pipeline("text-generation", model=exact.model, tokenizer=exact.tokenizer)
    rows = answers(exact, tmp_path)
    for row, question in zip(rows, QUESTIONS, strict=True):
        said = ask(
            exact.tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                tokenize=False,
            ),
            max_new_tokens=LENGTH,
            max_length=None,
            do_sample=False,
            return_tensors=True,
        )
        prompt = row["prompt_tokens"]
        ids = said[0]["generated_token_ids"][prompt:]
        assert row["answer_tokens"] == len(ids)
        assert row["answer"] == exact.tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.long
def test_beams_stop_texts_and_choices_are_those_of_transformers_by_hand(exact, tmp_path):
    beams = answers(exact, tmp_path / "beams", beams=3, rows=4)
    stops = answers(exact, tmp_path / "stops", stop=(".", " is"))
    for row in beams:
        assert row["answer"] == by_hand(exact, row["prompt"], num_beams=3).strip()
    assert sum(row["finish"] == "stop" for row in stops) > 2
    for row in stops:
        assert "." not in row["answer"]
        said = by_hand(exact, row["prompt"], stop_strings=[".", " is"], tokenizer=exact.tokenizer)
        cut = min((said.index(each) for each in (".", " is") if each in said), default=None)
        assert row["answer"] == said[:cut].strip()


@pytest.mark.long
def test_a_choice_is_that_of_transformers_by_hand_and_json_is_json(exact, tmp_path):
    pytest.importorskip("llguidance")
    words, eos = ("Yes", "No", "Maybe"), exact.tokenizer.eos_token_id
    texts = {token: exact.tokenizer.decode([token]) for token in range(len(exact.tokenizer))}
    parts = {token: text for token, text in texts.items() if any(text in word for word in words)}

    def allowed(_, ids):
        """All tokens that a word may go on with, however it is cut into tokens."""
        said = exact.tokenizer.decode(ids.tolist()[len(prompt) :])
        going = [t for t, text in parts.items() if any(w.startswith(said + text) for w in words)]
        return [token for token in going if parts[token]] + ([eos] if said in words else [])

    for row in answers(exact, tmp_path / "choice", regex="Yes|No|Maybe", rows=5):
        prompt = exact.tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}],
            add_generation_prompt=True,
            return_dict=True,
        )["input_ids"]
        assert row["answer"] == by_hand(exact, row["prompt"], prefix_allowed_tokens_fn=allowed)
        assert row["answer"] in words
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "legs": {"enum": [2, 4]}},
        "required": ["name", "legs"],
        "additionalProperties": False,
    }
    prompts = ("Describe a dog as JSON.", "Describe a bird as JSON.")
    for row in answers(
        exact, tmp_path / "json", prompts=prompts, json_schema=schema, max_new_tokens=60
    ):
        assert {*json.loads(row["answer"])} == {"name", "legs"}


@EXACT
def test_draws_are_the_same_in_any_batch(folder, tmp_path):
    model = products.open_model(folder, dtype="bfloat16")
    whole = answers(model, tmp_path / "16", batch_size=16, **DRAWN)
    assert answers(model, tmp_path / "1", batch_size=1, **DRAWN) == whole
    assert answers(model, tmp_path / "5", batch_size=5, **DRAWN) == whole
    assert len({row["answer"] for row in whole}) > len(whole) // 2


WORKER = """
import sys, time
from pathlib import Path
from runner import products
from test_answering_real import DRAWN, QUESTIONS, answers
model = products.open_model(Path(sys.argv[1]), dtype="bfloat16")
print("ready", flush=True)
sys.stdin.readline()
print(len(answers(model, Path(sys.argv[2]), batch_size=2, **DRAWN)), flush=True)
"""


@pytest.mark.long
def test_draws_are_the_same_after_twenty_kills(folder, tmp_path):
    model = products.open_model(folder, dtype="bfloat16")
    begun = time.monotonic()
    whole = answers(model, tmp_path / "whole", batch_size=2, **DRAWN)
    lasted, draw = time.monotonic() - begun, random.Random(3)
    path = f"{Path(__file__).parent}:{Path(__file__).parent.parent}"
    env = {**os.environ, "PYTHONPATH": path}
    kept = tmp_path / "killed" / "rows.jsonl"

    def done() -> int:
        return len(kept.read_text().splitlines()) if kept.exists() else 0

    lines = [0]
    while len(lines) <= 20:
        command = [sys.executable, "-c", WORKER, str(folder), str(kept.parent)]
        with subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as child:
            assert child.stdout.readline() == "ready\n"
            child.stdin.write("\n")
            child.stdin.flush()
            while done() <= lines[-1] and child.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0, lasted / 8))
            child.kill()
        lines.append(done())
    assert answers(model, kept.parent, batch_size=2, **DRAWN) == whole
    assert len(set(lines)) > 2
