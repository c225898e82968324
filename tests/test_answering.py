"""Answers of a tiny random model: settings, draws, batches, rows that fail, and rows on disk."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runner import files, products
from runner.answering import sampling
from runner.answering.settings import Options
from runner.checkpoint import Checkpoints
from runner.errors import StepError, Stopped
from runner.products import Model
from runner.stage import Context
from runner.stages import generate

PROMPTS = tuple("say " + "many " * (number * 7 % 11) + str(number) for number in range(13))


def context(folder: Path, **settings: Any) -> Context:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Context(folder / "work", Checkpoints(folder / "checkpoints", print), **settings)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    from tiny import make_model

    folder = make_model(tmp_path_factory.mktemp("model"), seed=1)
    return products.open_model(folder, dtype="float32")


@pytest.fixture
def ask(model, tmp_path):
    """Answer by these options, in a draft of its own each time."""
    tried = []

    def answer(_inputs: Any = None, _context: Any = None, **options: Any) -> list[dict[str, Any]]:
        made = generate.resolve(Options(**{"prompts": PROMPTS, "max_new_tokens": 8} | options), {})
        tried.append(made)
        inputs = {"model": model} | (_inputs or {})
        return generate.run(made, inputs, _context or context(tmp_path / str(len(tried))))

    return answer


def texts(rows):
    return [row["answer"] for row in rows]


def by_hand(model: Model, prompt: str, **settings: Any) -> str:
    """What transformers answers to one prompt, without padding; what is generated, as a text."""
    ids = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    settings = {"max_new_tokens": 8, "do_sample": False, **settings}
    output = model.model.generate(**ids, pad_token_id=model.tokenizer.pad_token_id, **settings)
    answer = output[0, ids["input_ids"].shape[1] :]
    return model.tokenizer.decode(answer, skip_special_tokens=True)


# --- what is asked


def test_prompts_of_the_recipe_are_answered_in_their_order(ask):
    rows = ask()
    assert [row["prompt"] for row in rows] == list(PROMPTS)
    assert {row["expected"] for row in rows} == {None}
    assert len({row["id"] for row in rows}) == len(PROMPTS)


def test_a_text_file_has_one_prompt_a_line(ask, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n\n", encoding="utf-8")
    assert ask(prompts=(), file=path) == ask()


def test_json_lines_hold_prompts_or_conversations(ask, tmp_path):
    question = {"role": "user", "content": PROMPTS[2]}
    lines = [
        {"prompt": PROMPTS[0], "expected": "zero"},
        {"messages": [question]},
        {"messages": [question, {"role": "assistant", "content": "two"}]},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    rows = ask(prompts=(), file=path)
    assert [row["prompt"] for row in rows] == [PROMPTS[0], PROMPTS[2], PROMPTS[2]]
    assert [row["expected"] for row in rows] == ["zero", None, "two"]
    whole = ask()
    assert texts(rows) == [whole[0]["answer"], whole[2]["answer"], whole[2]["answer"]]


@pytest.mark.parametrize(
    ("line", "said"), [("{", "is not valid JSON"), ('{"messages": []}', "needs a `prompt`")]
)
def test_a_line_that_cannot_be_asked_is_named(line, said, ask, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n' + line, encoding="utf-8")
    with pytest.raises(StepError, match=rf"prompts\.jsonl:2: {said}"):
        ask(prompts=(), file=path)


def test_the_content_of_a_file_of_prompts_is_in_the_key(tmp_path):
    from runner.options import keyed

    found = []
    for name, text in (("a.txt", "one"), ("b.txt", "one"), ("a.txt", "two")):
        (tmp_path / name).write_text(text)
        found.append(keyed(generate.resolve(Options(file=tmp_path / name), {})))
    assert found[0] == found[1] != found[2]


def test_a_file_that_changes_while_it_is_read_is_refused(model, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("one")
    options = generate.resolve(Options(file=path), {})
    path.write_text("two")
    with pytest.raises(StepError, match="changed while it was read"):
        generate.run(options, {"model": model}, context(tmp_path))


def test_an_empty_file_is_refused(ask, tmp_path):
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(StepError, match="nothing to answer"):
        ask(prompts=(), file=tmp_path / "none.txt")


def test_plain_text_is_gone_on_with_where_chat_is_false(ask, model):
    (row,) = ask(prompts=("once upon",), chat=False)
    ids = model.tokenizer("once upon", return_tensors="pt")
    output = model.model.generate(
        **ids, max_new_tokens=8, do_sample=False, pad_token_id=model.tokenizer.pad_token_id
    )
    answer = output[0, ids["input_ids"].shape[1] :]
    assert row["answer"] == model.tokenizer.decode(answer, skip_special_tokens=True)


# --- ids


def test_an_id_is_of_prompt_settings_and_sample_alone(ask):
    ids = [row["id"] for row in ask()]
    assert [row["id"] for row in ask(batch_size=3, logprobs=True)] == ids
    assert [row["id"] for row in ask(prompts=PROMPTS[5:])] == ids[5:]
    assert not {*ids} & {row["id"] for row in ask(max_new_tokens=7)}
    drawn = ask(temperature=1.0, samples=3, rows=2)
    assert [row["sample"] for row in drawn] == [0, 1, 2, 0, 1, 2]
    assert len({row["id"] for row in drawn}) == 6
    first = [row["id"] for row in ask(temperature=1.0, samples=1, rows=2)]
    assert first == [drawn[0]["id"], drawn[3]["id"]]


def test_a_prompt_that_is_asked_again_is_another_row(ask):
    rows = ask(prompts=("one", "two", "one"), temperature=1.0)
    assert len({row["id"] for row in rows}) == 3
    assert rows[0]["answer"] != rows[2]["answer"]


# --- draws


@pytest.mark.parametrize("size", [1, 2, 5, 16, "auto"])
def test_what_is_drawn_does_not_depend_on_the_batch(size, ask):
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "samples": 2}
    whole = ask(batch_size=4, **settings)
    assert ask(batch_size=size, **settings) == whole
    assert ask(batch_size=size, prompts=PROMPTS[3:6], **settings) == whole[6:12]
    assert len({*texts(whole)}) > len(whole) // 2


def test_another_seed_draws_other_answers(ask):
    assert texts(ask(temperature=1.0)) != texts(ask(temperature=1.0, seed=1))


def test_noise_draws_from_the_softmax_of_the_scores():
    import torch

    scores = torch.tensor([2.0, 1.0, 0.0, -torch.inf])
    rows = [f"row {number}" for number in range(20_000)]
    noise = sampling.Noise(rows, width=3)
    ids = torch.zeros(len(rows), 3, dtype=torch.long)
    drawn = Counter(noise(ids, scores.expand(len(rows), 4)).argmax(-1).tolist())
    shares = scores.softmax(-1).tolist()
    assert drawn[3] == 0
    chi2 = sum((drawn[t] - len(rows) * s) ** 2 / (len(rows) * s) for t, s in enumerate(shares[:3]))
    assert chi2 < 13.8  # exceeded once in 1,000 times (2 degrees of freedom)


def test_noise_is_of_the_row_and_the_number_of_the_token():
    import torch

    def drawn(rows, length):
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        return sampling.Noise(rows, width=2)(ids, torch.zeros(len(rows), 9))

    assert drawn(["a", "b"], 4)[1].equal(drawn(["b"], 4)[0])
    assert not drawn(["a"], 4).equal(drawn(["b"], 4))
    assert not drawn(["a"], 4).equal(drawn(["a"], 5))


@pytest.mark.parametrize(("name", "value"), [("top_k", 1), ("top_p", 1e-6), ("min_p", 1.0)])
def test_settings_that_leave_one_token_give_the_greedy_answers(name, value, ask):
    assert texts(ask(temperature=1.0, **{name: value})) == texts(ask())


# --- as transformers does by hand


@pytest.mark.parametrize(
    "settings",
    [{}, {"repetition_penalty": 1.4}, {"no_repeat_ngram_size": 1}, {"min_new_tokens": 8}],
    ids=lambda settings: next(iter(settings), "greedy"),
)
def test_answers_are_those_of_transformers_row_by_row(settings, ask, model):
    assert texts(ask(**settings)) == [
        by_hand(model, prompt, **settings).strip() for prompt in PROMPTS
    ]


@pytest.mark.parametrize("length_penalty", [1.0, -2.0])
def test_beams_are_those_of_transformers(length_penalty, ask, model):
    rows = ask(beams=3, length_penalty=length_penalty)
    settings = {"num_beams": 3, "length_penalty": length_penalty}
    assert texts(rows) == [by_hand(model, prompt, **settings).strip() for prompt in PROMPTS]
    assert texts(rows) != texts(ask())


def test_stop_texts_end_the_answer_where_transformers_stops_and_are_left_out(ask, model):
    whole = texts(ask(max_new_tokens=24))
    seen = Counter(letter for text in whole for letter in text[2:20] if letter.isascii())
    stop = tuple(letter for letter, _ in seen.most_common(2))
    rows = ask(max_new_tokens=24, stop=stop)
    assert any(row["finish"] == "stop" for row in rows)
    for row, before in zip(rows, whole, strict=True):
        assert not any(text in row["answer"] for text in stop)
        said = by_hand(
            model,
            row["prompt"],
            max_new_tokens=24,
            stop_strings=list(stop),
            tokenizer=model.tokenizer,
        )
        cut = min((said.index(text) for text in stop if text in said), default=None)
        assert row["answer"] == said[:cut].strip()
        assert before.startswith(row["answer"])


def test_settings_of_the_models_own_do_not_come_in(ask, model, monkeypatch):
    before = ask()
    own = model.model.generation_config
    monkeypatch.setattr(own, "repetition_penalty", 1.9)
    monkeypatch.setattr(own, "no_repeat_ngram_size", 1)
    assert ask() == before


def test_an_answer_goes_on_from_the_prefix(ask, model):
    (row,) = ask(prompts=(PROMPTS[0],), prefix="Sure: ")
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPTS[0]}], add_generation_prompt=True, tokenize=False
    )
    ids = model.tokenizer(text + "Sure: ", add_special_tokens=False, return_tensors="pt")
    output = model.model.generate(
        **ids, max_new_tokens=8, do_sample=False, pad_token_id=model.tokenizer.pad_token_id
    )
    answer = output[0, ids["input_ids"].shape[1] :]
    said = "Sure: " + model.tokenizer.decode(answer, skip_special_tokens=True)
    assert row["answer"] == said.strip()
    assert row["prompt_tokens"] == ids["input_ids"].shape[1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guessed_tokens_change_no_answer(temperature, ask, model):
    whole = texts(ask(temperature=temperature, batch_size=1))
    assert texts(ask(temperature=temperature, prompt_lookup=3)) == whole
    assert texts(ask({"assistant": model}, temperature=temperature)) == whole


def test_an_assistant_with_another_vocabulary_is_refused(ask, model):
    class Other:
        def get_vocab(self):
            return {"one": 1}

    with pytest.raises(StepError, match="another vocabulary"):
        ask({"assistant": Model(model.model, Other())})


def test_logprobs_are_those_of_the_model(ask, model):
    import torch

    for row in ask(logprobs=True, temperature=1.0, batch_size=5):
        assert len(row["logprobs"]) == row["answer_tokens"]
    (row,) = ask(logprobs=True, prompts=PROMPTS[:1])
    text = model.tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPTS[0]}], add_generation_prompt=True, tokenize=False
    )
    ids = model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        for logprob in row["logprobs"]:
            scores = model.model(ids).logits[0, -1].log_softmax(-1)
            best = int(scores.argmax())
            assert math.isclose(logprob, float(scores[best]), abs_tol=1e-4)
            ids = torch.cat([ids, torch.tensor([[best]])], 1)


# --- constrained


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_match_the_regular_expression(temperature, ask):
    pytest.importorskip("llguidance")
    rows = ask(regex=r"[a-c]{2}-[0-9]{1,9}!", temperature=temperature, max_new_tokens=40)
    assert {row["finish"] for row in rows} == {"stop"}
    assert all(re.fullmatch(r"[a-c]{2}-[0-9]{1,9}!", row["answer"]) for row in rows)
    assert len({*texts(rows)}) > (3 if temperature else 1)


def test_answers_are_json_of_the_schema(ask):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}, "word": {"enum": ["yes", "no"]}},
        "required": ["sure", "word"],
        "additionalProperties": False,
    }
    for beams in (1, 2):
        for row in ask(json_schema=schema, max_new_tokens=180, beams=beams):
            found = json.loads(row["answer"])
            assert isinstance(found["sure"], bool)
            assert found["word"] in ("yes", "no")


def test_a_choice_is_made_as_transformers_makes_it_by_hand(ask, model):
    pytest.importorskip("llguidance")
    words = ("yes", "no", "nor")
    paths = [[*model.tokenizer(word)["input_ids"], model.tokenizer.eos_token_id] for word in words]

    before = len(model.tokenizer("assistant\n")["input_ids"])

    def allowed(_, ids):
        text = model.tokenizer.decode(ids)
        said = text[text.rindex("assistant\n") + before :]
        answer = model.tokenizer(said)["input_ids"]
        longer = [path for path in paths if path[: len(answer)] == answer]
        return [path[len(answer)] for path in longer if len(path) > len(answer)]

    rows = ask(regex="|".join(words))
    assert texts(rows) == [
        by_hand(model, prompt, prefix_allowed_tokens_fn=allowed) for prompt in PROMPTS
    ]


# --- what cannot be answered


def test_a_prompt_that_is_too_long_is_recorded_and_the_rest_goes_on(ask):
    rows = ask(prompts=(PROMPTS[0], "long " * 60, PROMPTS[1]))
    assert [row["finish"] == "error" for row in rows] == [False, True, False]
    assert re.fullmatch(r"the prompt has \d+ tokens, and the model takes 256", rows[1]["reason"])
    assert [rows[0], rows[2]] == ask()[:2]


def test_an_answer_ends_where_the_model_holds_no_more(ask):
    (row,) = ask(prompts=("x" * 222,), max_new_tokens=50, no_repeat_ngram_size=0)
    assert row["prompt_tokens"] + row["answer_tokens"] <= 256
    together = ask(prompts=("x" * 222, "x" * 210), max_new_tokens=50)
    assert together[0]["answer"] == row["answer"]


def narrow(model, monkeypatch, fits):
    """Memory for batches (rows, width) that fit, and for no others."""
    import torch

    forward = model.model.forward

    def watched(*args, input_ids=None, **rest):
        if not fits(*input_ids.shape):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, input_ids=input_ids, **rest)

    monkeypatch.setattr(model.model, "forward", watched)


def test_where_memory_runs_out_batches_become_smaller(ask, model, monkeypatch, tmp_path):
    whole, notes = ask(temperature=1.0), []
    narrow(model, monkeypatch, lambda rows, width: rows <= 3)
    made = context(tmp_path / "narrow", note=notes.append)
    assert ask(_context=made, temperature=1.0, batch_size=13) == whole
    assert notes[-1].startswith("memory ran out: batches of at most")


def test_a_row_for_which_there_is_no_memory_is_recorded(ask, model, monkeypatch):
    whole = ask()
    narrow(model, monkeypatch, lambda rows, width: width <= 100)
    rows = ask(prompts=(*PROMPTS, "x" * 120))
    assert rows[:-1] == whole
    assert rows[-1]["finish"] == "error"
    assert rows[-1]["reason"] == "there is not enough memory for it"


def test_another_error_is_no_lack_of_memory(ask, model, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the weights are gone")

    monkeypatch.setattr(model.model, "forward", broken)
    with pytest.raises(RuntimeError, match="the weights are gone"):
        ask()


# --- rows that leave a batch


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1.0, "stop": ("e", "a", "1", "/")},
        {"temperature": 1.0, "regex": "[a-z]{1,30}!"},
        {"temperature": 1.0, "stop": ("x",), "logprobs": True, "repetition_penalty": 1.2},
    ],
    ids=lambda settings: list(settings)[1],
)
def test_rows_that_are_over_leave_the_batch_and_change_nothing(settings, ask, model, monkeypatch):
    if "regex" in settings:
        pytest.importorskip("llguidance")
    many = {"prompts": tuple(f"say {n}" for n in range(10, 40)), "max_new_tokens": 40, **settings}
    alone = ask(batch_size=2, **many)
    sizes, forward = [], model.model.forward

    def watched(*args, input_ids=None, **rest):
        sizes.append(len(input_ids))
        return forward(*args, input_ids=input_ids, **rest)

    monkeypatch.setattr(model.model, "forward", watched)
    together = ask(batch_size=30, **many)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 30
    assert "logprobs" in settings or len({*sizes}) > 1
    for row, other in zip(together, alone, strict=True):
        assert row.pop("logprobs", []) == pytest.approx(other.pop("logprobs", []), abs=1e-4)
        assert row == other
    assert len({row["answer_tokens"] for row in alone}) > 1 or "logprobs" in settings


# --- rows on disk


def test_parquet_has_the_same_rows(ask, tmp_path):
    import pyarrow.parquet as pq

    rows = ask(logprobs=True)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        generate.save(rows, tmp_path / name)
    assert generate.restore(tmp_path / "a", {}) == rows
    table = pq.read_table(tmp_path / "a" / "rows.parquet").to_pylist()
    for row, kept in zip(rows, table, strict=True):
        assert kept.pop("logprobs") == pytest.approx(row.pop("logprobs"), rel=1e-6)
        assert kept == row
    for name in ("rows.jsonl", "rows.parquet"):
        assert files.digest(tmp_path / "a" / name) == files.digest(tmp_path / "b" / name)


def test_a_run_that_is_stopped_after_every_batch_gives_the_same_rows(ask, tmp_path):
    whole = ask(temperature=1.0, batch_size=3)
    seen = []
    for attempt in range(30):
        stopping = context(tmp_path / "stopped", stop_signal=lambda: "SIGTERM")
        try:
            rows = ask(_context=stopping, temperature=1.0, batch_size=(attempt % 3) + 1)
            break
        except Stopped:
            lines = (tmp_path / "stopped" / "work" / "rows.jsonl").read_text().splitlines()
            seen.append(len(lines))
    assert rows == whole
    assert seen == sorted(set(seen))


def test_figures_say_how_fast_each_batch_was(ask, tmp_path):
    figures, made = [], context(tmp_path / "figures")
    made.metrics = figures.append
    rows = ask(_context=made, batch_size=4)
    assert figures[-1]["step"] == len(rows)
    assert sum(row["answer_tokens"] for row in figures) == made.facts["answer_tokens"]
    assert all(row["tokens_per_second"] > 0 for row in figures)
