"""What a training takes of memory is asked before anything is fetched or read."""

import pytest
from tiny import make_recipe

from runner import hardware, room, running
from runner.errors import StepError
from runner.stages import load
from runner.training import claims
from runner.training.settings import Options

DATASET = {"max_length": 200}


def model(folder, **options):
    """What is known of a model that was not loaded yet."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    given = load.Options(**{"dtype": "checkpoint", **options})
    return {"origin": {"folder": str(folder)}, "load": given, "bytes": size}


def needed(folder, dataset=DATASET, **options):
    return claims.claim(Options(**options), model(folder), dataset).estimate.needed


def test_what_takes_more_is_told_to_take_more(tiny_model):
    least = needed(tiny_model)
    assert needed(tiny_model, rank=64) > least
    assert needed(tiny_model, micro_batch_size=8) > 2 * least
    assert needed(tiny_model, objective="dpo") > least
    assert needed(tiny_model, {"max_length": 100}) < least
    assert needed(tiny_model, {"max_length": 200, "rows_up_to_tokens": {"16": 3}}) < least / 2


def test_all_weights_are_held_and_trained_in_float32(tiny_model):
    whole = claims.claim(Options(method="full"), model(tiny_model), DATASET).estimate
    assert whole.optimizer == 2 * whole.gradients == 2 * whole.weights


def test_a_training_that_does_not_fit_is_refused_before_it_begins(
    tiny_model, tmp_path, monkeypatch
):
    path = make_recipe(tmp_path, tiny_model, micro_batch_size=4, max_steps=1)
    planned, store = running.prepare(str(path), ["process.max_length=4096"])
    room.check_memory(planned, store)
    monkeypatch.setattr(hardware, "free_memory", lambda name: 700_000_000)
    with pytest.raises(StepError, match="does not fit: it needs about") as raised:
        room.check_memory(planned, store)
    assert raised.value.step == "adapt"
    assert raised.value.command == (
        "Try adapt.micro_batch_size=1, or adapt.gradient_checkpointing=true, or adapt=qlora,"
        " or process.max_length=2048"
    )


def test_where_nothing_is_known_nothing_is_said(tiny_model):
    assert claims.claim(Options(), model(tiny_model), {}) is None
    assert claims.claim(Options(), {"bytes": 5}, DATASET) is None
    assert claims.claim(Options(), {**model(tiny_model), "origin": {}}, DATASET) is None
