"""Every stage on a tiny random model: what it gives, what it refuses, and what it keeps."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny import make_data

from runner import files, products
from runner.checkpoint import Checkpoints
from runner.data.masks.mask import Encoder
from runner.errors import StepError, Stopped
from runner.products import Files, Model
from runner.quantizing import settings
from runner.stage import Context
from runner.stages import adapt, evaluate, generate, load, process, quantize, save


def context(folder: Path, **settings: Any) -> Context:
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    made = Context(
        draft=work,
        checkpoint=Checkpoints(folder / "checkpoints", notes.append),
        note=notes.append,
        **settings,
    )
    made.notes = notes  # type: ignore[attr-defined]
    return made


def kept(stage: Any, product: Any, folder: Path, inputs: Mapping[str, Any]) -> Any:
    """The product as a later run gets it: written, and read back."""
    folder.mkdir(parents=True)
    stage.save(product, folder)
    return stage.restore(folder, inputs)


def logits(model: Model) -> Any:
    import torch

    ids = torch.arange(1, 25).reshape(2, 12)
    with torch.inference_mode():
        return model.model(input_ids=ids).logits


@pytest.fixture
def model_files(tiny_model: Path) -> Files:
    return Files(tiny_model)


@pytest.fixture
def data_files(tmp_path: Path) -> Files:
    (tmp_path / "data").mkdir()
    make_data(tmp_path / "data" / "rows.jsonl")
    return Files(tmp_path / "data")


@pytest.fixture
def dataset(model_files: Files, data_files: Files, tmp_path: Path) -> products.Dataset:
    inputs = {"data": {"fetch.data": data_files}, "tokenizer": model_files}
    return process.run(process.Options(held_out=8), inputs, context(tmp_path / "p"))


@pytest.fixture
def loaded(model_files: Files, tmp_path: Path) -> Model:
    options = load.Options(dtype="float32")
    return load.run(options, {"files": model_files}, context(tmp_path / "l"))


@pytest.fixture
def adapted(loaded: Model, dataset: products.Dataset, tmp_path: Path) -> Model:
    options = adapt.Options(max_steps=4, effective_batch_size=4, learning_rate=1e-2)
    return adapt.run(options, {"model": loaded, "dataset": dataset}, context(tmp_path / "a"))


# --- process


def test_what_is_trained_is_the_answer_and_its_stop_token(dataset, model_files):
    tokenizer = products.open_tokenizer(model_files.folder)
    for row, example in zip(dataset.held_out, dataset.conversations(), strict=True):
        trained = [token for token in row["labels"] if token != products.IGNORED]
        assert tokenizer.decode(trained) == example["messages"][-1]["content"] + "<|im_end|>"
    for row in list(dataset.train) + list(dataset.held_out):
        assert all(
            label in (products.IGNORED, token)
            for label, token in zip(row["labels"], row["input_ids"], strict=True)
        )


def test_every_answer_of_a_longer_conversation_is_trained(model_files):
    tokenizer = products.open_tokenizer(model_files.folder)
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "uno"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "dos"},
    ]
    encoded = Encoder(tokenizer).encode({"messages": messages})
    trained = tokenizer.decode([token for token in encoded.labels if token != products.IGNORED])
    assert trained == "uno<|im_end|>dos<|im_end|>"
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(encoded.input_ids) == whole


def test_rows_held_out_are_never_trained_on(dataset):
    def tokens(rows):
        return {tuple(row["input_ids"]) for row in rows}

    assert len(dataset.held_out) == 8
    assert len(dataset.train) == 32
    assert not tokens(dataset.train) & tokens(dataset.held_out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the data has no rows"),
        ('{"messages": [\n', "rows.jsonl:1: is not valid JSON"),
        (
            '{"mesages": []}\n',
            'rows.jsonl:1: no shape has the columns mesages. Did you mean "messages"?',
        ),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', "has no message of the assistant"),
        ('{"messages": [{"role": "bot", "content": "a"}]}\n', 'the role "bot", which is none'),
        ('{"messages": [{"role": "user", "content": null}]}\n', "messages[0] has no content"),
        (
            '{"messages": [{"role": "user", "content": "a"}, '
            '{"role": "assistant", "content": "b"}]}\n' * 2,
            "1 rows stand both",
        ),
        (
            '{"messages": [{"role": "user", "content": "a"}, '
            '{"role": "assistant", "content": "b"}]}\n',
            "only 1",
        ),
    ],
)
def test_bad_data_is_refused_with_its_place(text, message, model_files, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text(text)
    inputs = {"data": {"fetch.data": Files(tmp_path / "data")}, "tokenizer": model_files}
    with pytest.raises(StepError) as raised:
        process.run(process.Options(held_out=1), inputs, context(tmp_path))
    assert message in str(raised.value)


def test_a_row_that_is_too_long_is_refused_with_the_option_to_allow_it(
    model_files, data_files, tmp_path
):
    inputs = {"data": {"fetch.data": data_files}, "tokenizer": model_files}
    with pytest.raises(StepError, match=r"it has \d+ tokens, and 5 are allowed"):
        process.run(process.Options(held_out=8, max_length=5), inputs, context(tmp_path))


def test_no_row_has_to_be_held_out(model_files, data_files, tmp_path):
    inputs = {"data": {"fetch.data": data_files}, "tokenizer": model_files}
    made = process.run(process.Options(held_out=0), inputs, context(tmp_path / "p"))
    read = kept(process, made, tmp_path / "kept", {})
    assert (len(read.train), len(read.held_out)) == (40, 0)


def test_a_template_that_hides_the_answer_is_refused(tiny_model, data_files, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}"
        "{% endfor %}"
    )
    inputs = {"data": {"fetch.data": data_files}, "tokenizer": Files(folder)}
    with pytest.raises(StepError, match="the chat template leaves out messages"):
        process.run(process.Options(held_out=8), inputs, context(tmp_path))


# --- the result never depends on whether an input came from memory or from the store


def test_a_dataset_is_the_same_from_the_store(dataset, tmp_path):
    read = kept(process, dataset, tmp_path / "kept", {})
    for name in ("train", "held_out"):
        assert list(getattr(read, name)) == list(getattr(dataset, name))


def test_a_loaded_model_is_the_same_from_the_store(loaded, model_files, tmp_path):
    read = kept(load, loaded, tmp_path / "kept", {"files": model_files})
    assert logits(read).equal(logits(loaded))


def test_an_adapted_model_is_the_same_from_the_store(adapted, model_files, tmp_path):
    base = load.run(load.Options(dtype="float32"), {"files": model_files}, context(tmp_path))
    read = kept(adapt, adapted, tmp_path / "kept", {"model": base})
    assert logits(read).equal(logits(adapted))


def test_an_adapted_model_in_bfloat16_is_the_same_from_the_store(dataset, model_files, tmp_path):
    def base():
        options = load.Options(dtype="bfloat16")
        return load.run(options, {"files": model_files}, context(tmp_path))

    options = adapt.Options(max_steps=2, effective_batch_size=4, learning_rate=1e-2)
    made = adapt.run(options, {"model": base(), "dataset": dataset}, context(tmp_path / "a"))
    read = kept(adapt, made, tmp_path / "kept", {"model": base()})
    assert logits(read).equal(logits(made))


@pytest.mark.parametrize("method", ["nf4", "fp4", "int8"])
def test_a_quantized_model_is_the_same_after_use_and_from_the_store(method, adapted, tmp_path):
    options = quantize.resolve(quantize.Options(method=method, gate=settings.Gate(rows=4)), {})
    made = quantize.run(options, {"model": adapted}, context(tmp_path / "q"))
    first = kept(quantize, made, tmp_path / "kept", {})
    weights = {name: value.clone() for name, value in first.model.state_dict().items()}
    before = logits(first)  # the forward pass in which bitsandbytes would have repacked
    assert all(value.equal(weights[name]) for name, value in first.model.state_dict().items())
    assert logits(first).equal(before)
    assert logits(quantize.restore(tmp_path / "kept", {})).equal(before)


def test_text_and_scores_are_the_same_from_the_store(loaded, dataset, tmp_path):
    options = generate.Options(max_new_tokens=4)
    rows = generate.run(options, {"model": loaded, "dataset": dataset}, context(tmp_path))
    assert kept(generate, rows, tmp_path / "rows", {}) == rows
    inputs = {"texts": {"before": rows}, "dataset": dataset, "model": loaded}
    scores = evaluate.run(evaluate.Options(), inputs, context(tmp_path))
    assert kept(evaluate, scores, tmp_path / "scores", {}) == scores


# --- load


def test_a_folder_without_weights_is_refused(tiny_model, tmp_path):
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())
    with pytest.raises(StepError, match="does not open as a model"):
        load.run(load.Options(), {"files": Files(tmp_path)}, context(tmp_path / "c"))


def test_pickled_weights_are_refused(tiny_model, tmp_path):
    import torch
    from safetensors.torch import load_file

    weights = load_file(tiny_model / "model.safetensors")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    for path in tiny_model.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    with pytest.raises(StepError, match="does not open as a model"):
        load.run(load.Options(), {"files": Files(tmp_path)}, context(tmp_path / "c"))


def test_auto_is_decided_before_the_key_is_made(monkeypatch):
    for native, dtype in ((True, "checkpoint"), (False, "float32")):
        monkeypatch.setattr("runner.hardware.computes_bfloat16", lambda native=native: native)
        assert load.resolve(load.Options(), {}).dtype == dtype
    assert load.resolve(load.Options(dtype="float16"), {}).dtype == "float16"


# --- adapt


def adapter_bytes(model: Model, folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True)
    adapt.save(model, folder)
    return {name: facts["blake3"] for name, facts in files.manifest(folder).items()}


def test_training_goes_on_from_a_checkpoint_to_the_same_bytes(model_files, dataset, tmp_path):
    options = adapt.Options(max_steps=9, effective_batch_size=4, checkpoint_every=2, dropout=0.1)

    def train(folder: Path, stop_after: int = 0) -> Model:
        seen: list[int] = []
        made = context(
            folder,
            progress=lambda done, *_, **__: seen.append(done),
            stop_signal=lambda: "SIGTERM" if stop_after and len(seen) >= stop_after else None,
        )
        base = load.run(load.Options(dtype="float32"), {"files": model_files}, context(folder))
        return adapt.run(options, {"model": base, "dataset": dataset}, made)

    whole = adapter_bytes(train(tmp_path / "whole"), tmp_path / "whole-bytes")
    for stop_after in (1, 4):
        with pytest.raises(Stopped):
            train(tmp_path / "broken", stop_after)
    assert Checkpoints(tmp_path / "broken" / "checkpoints", print).newest()[0] == 5
    damaged = max((tmp_path / "broken" / "checkpoints").iterdir())
    (damaged / "weights.safetensors").write_bytes(b"torn")
    assert adapter_bytes(train(tmp_path / "broken"), tmp_path / "broken-bytes") == whole


def test_training_teaches(adapted, loaded, dataset, tmp_path):
    rows = list(dataset.train)
    options = evaluate.Options()
    taught = evaluate.perplexity(adapted, rows, options, lambda rows: None)
    with adapted.model.disable_adapter():
        assert taught < evaluate.perplexity(adapted, rows, options, lambda rows: None)


def test_a_layer_that_does_not_exist_is_refused(loaded, dataset, tmp_path):
    options = adapt.Options(target_modules=("q_projj",), max_steps=1)
    with pytest.raises(StepError, match="q_projj"):
        adapt.run(options, {"model": loaded, "dataset": dataset}, context(tmp_path))


def test_a_loss_that_is_not_a_number_stops_training(loaded, dataset, tmp_path):
    import torch

    with torch.no_grad():
        loaded.model.lm_head.weight.fill_(math.nan)
    options = adapt.Options(max_steps=2)
    with pytest.raises(StepError, match="the loss is nan at step 1"):
        adapt.run(options, {"model": loaded, "dataset": dataset}, context(tmp_path))


# --- quantize


def test_quantizing_twice_and_double_quantized_int8_are_refused():
    from types import SimpleNamespace

    before: Any = SimpleNamespace(name="squeeze", stage_name="quantize", options=None)
    found = quantize.check(quantize.Options(), {"model": (before,)})
    assert [fault.fact for fault in found] == [
        "squeeze is quantized already; quantize the model before it."
    ]
    assert quantize.check(quantize.Options(method="int8", double_quantization=True), {})


def test_quantizing_makes_it_smaller_and_leaves_no_whole_copy(adapted, tmp_path):
    made = context(tmp_path)
    quantize.run(quantize.resolve(quantize.Options(), {}), {"model": adapted}, made)
    assert made.facts["bytes_after"] < made.facts["bytes_before"]
    assert [path.name for path in made.draft.iterdir()] == ["weights"]


# --- generate


def test_answers_end_at_the_stop_token_or_the_length(loaded, dataset, tmp_path):
    options = generate.Options(max_new_tokens=5, batch_size=3)
    rows = generate.run(options, {"model": loaded, "dataset": dataset}, context(tmp_path))
    assert [row["prompt"] for row in rows] == [
        row["messages"][0]["content"] for row in dataset.conversations()
    ]
    assert len({row["id"] for row in rows}) == len(rows) == 8
    for row in rows:
        assert row["finish"] in ("stop", "length")
        assert row["answer_tokens"] <= 5
        assert "<|im_end|>" not in row["answer"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_generation_goes_on_after_the_rows_that_are_kept(temperature, loaded, dataset, tmp_path):
    options = generate.Options(max_new_tokens=5, batch_size=3, temperature=temperature, seed=3)
    inputs = {"model": loaded, "dataset": dataset}
    whole = generate.run(options, inputs, context(tmp_path / "whole"))
    with pytest.raises(Stopped):
        generate.run(options, inputs, context(tmp_path / "b", stop_signal=lambda: "SIGTERM"))
    lines = (tmp_path / "b" / "work" / "rows.jsonl").read_text()
    assert lines.count("\n") == 3
    (tmp_path / "b" / "work" / "rows.jsonl").write_text(lines + lines[:40])  # a torn line
    progress: list[int] = []
    made = context(tmp_path / "b", progress=lambda done, *_, **__: progress.append(done))
    assert generate.run(options, inputs, made) == whole
    assert progress == [6, 8]


def test_greedy_answers_are_those_of_transformers(loaded, dataset, tmp_path):
    from transformers import pipeline

    options = generate.Options(max_new_tokens=6, batch_size=4)
    rows = generate.run(options, {"model": loaded, "dataset": dataset}, context(tmp_path))
    ask = pipeline("text-generation", model=loaded.model, tokenizer=loaded.tokenizer)
    for row in rows:
        said = ask(
            [{"role": "user", "content": row["prompt"]}],
            max_new_tokens=6,
            max_length=None,
            do_sample=False,
        )
        assert said[0]["generated_text"][-1]["content"].strip() == row["answer"]


# --- evaluate


def test_perplexity_is_that_of_each_row_alone(loaded, dataset):
    import torch

    rows = list(dataset.held_out)
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        with torch.inference_mode():
            scores = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        for position, label in enumerate(row["labels"][1:]):
            if label != products.IGNORED:
                total, count = total - scores[position, label].item(), count + 1
    found = evaluate.perplexity(loaded, rows, evaluate.Options(batch_size=3), lambda rows: None)
    assert found == pytest.approx(math.exp(total / count), rel=1e-4)


# --- save


def test_a_saved_model_opens_with_plain_transformers(adapted, tmp_path):
    from transformers import AutoModelForCausalLM

    save.run(save.Options(to=tmp_path / "out"), {"model": adapted}, context(tmp_path / "c"))
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    import torch

    ids = torch.arange(1, 13).reshape(1, 12)
    with torch.inference_mode():
        difference = (read(input_ids=ids).logits - adapted.model(input_ids=ids).logits).abs()
    assert difference.max() < 1e-4
    assert hasattr(adapted.model, "merge_and_unload")  # the model itself was only borrowed


def test_a_model_loaded_in_another_format_is_saved_in_that_format(loaded, tmp_path):
    from safetensors.torch import load_file

    save.run(save.Options(to=tmp_path / "out"), {"model": loaded}, context(tmp_path / "c"))
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {"torch.float32"}


def test_a_folder_with_something_else_is_left_alone(loaded, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "precious.txt").write_text("mine")
    with pytest.raises(StepError, match="holds something else and is left alone"):
        save.run(save.Options(to=target), {"model": loaded}, context(tmp_path / "c"))
    assert [path.name for path in target.iterdir()] == ["precious.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "l", "out"]
    save.run(save.Options(to=target, overwrite=True), {"model": loaded}, context(tmp_path / "c"))
    assert not (target / "precious.txt").exists()


def test_a_saved_folder_that_is_gone_or_changed_no_longer_counts(loaded, tmp_path):
    options = save.Options(to=tmp_path / "out")
    made = save.run(options, {"model": loaded}, context(tmp_path / "c"))
    (tmp_path / "kept").mkdir()
    save.save(made, tmp_path / "kept")
    assert save.stale(options, tmp_path / "kept", {}) is None
    (options.to / "config.json").unlink()
    assert "config.json is missing" in str(save.stale(options, tmp_path / "kept", {}))


def test_nothing_of_this_machine_is_in_what_is_saved(adapted, tmp_path):
    save.run(save.Options(to=tmp_path / "out"), {"model": adapted}, context(tmp_path / "c"))
    adapter_bytes(adapted, tmp_path / "adapter")
    for folder in (tmp_path / "out", tmp_path / "adapter"):
        for path in folder.glob("*.json"):
            json.loads(path.read_text())
            assert str(tmp_path.parent) not in path.read_text(), path.name
