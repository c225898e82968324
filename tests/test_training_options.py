"""The options of a training: what they say to the Trainer, and which contradict one another."""

from dataclasses import replace

import pytest
import torch
from lessons import OPTIONS, Lesson, adapter, distance, model

from runner import hardware
from runner.errors import StepError
from runner.hardware import Gpu
from runner.training import arguments, checks
from runner.training.settings import Options

H100 = Gpu("H100", 80 << 30, (9, 0))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: ())


@pytest.mark.parametrize(
    ("said", "where", "fact"),
    [
        ({"epochs": 1.0, "max_steps": 5}, "max_steps", "epochs says already how long"),
        ({"max_steps": 5, "max_tokens": 5}, "max_tokens", "max_steps says already how long"),
        ({"epochs": 0.0}, "epochs", "0 epochs train nothing"),
        ({"micro_batch_size": 9}, "micro_batch_size", "9 rows are more than the 8"),
        ({"warmup_steps": 1, "warmup_ratio": 0.1}, "warmup_ratio", "warmup_steps says already"),
        ({"warmup_steps": 9, "max_steps": 5}, "warmup_steps", "9 steps of warmup are more"),
        ({"learning_rate_floor": 0.1}, "learning_rate_floor", "does not end at a floor"),
        ({"beta2": 1.0}, "beta1", "a beta of 1"),
        ({"keep": "best"}, "keep", "needs looks while it trains"),
        ({"patience": 2}, "patience", "needs looks while it trains"),
        (
            {"keep": "best", "evaluate_every": 2, "evaluate_rows": 0},
            "keep",
            "needs rows to look at",
        ),
        ({"precision": "float16"}, "precision", "float16 needs a GPU"),
        ({"kernels": "liger"}, "kernels", "need a GPU"),
        ({"optimizer": "paged_adamw_8bit"}, "optimizer", "paged memory needs a GPU"),
    ],
)
def test_what_contradicts_is_said_before_any_work(no_gpu, said, where, fact):
    found = checks.contradictions(Options(**said))
    assert any(fault.where == (where,) and fact in fault.fact for fault in found), found


def test_the_defaults_contradict_nothing(no_gpu):
    assert checks.contradictions(Options()) == []
    many = Options(max_steps=50, schedule="cosine", learning_rate_floor=0.1, warmup_ratio=0.1)
    assert checks.contradictions(many) == []


def test_what_the_machine_decides_is_decided_before_the_key_is_made(monkeypatch):
    monkeypatch.setattr(hardware, "gpus", lambda: ())
    decided = checks.resolve(Options())
    assert (decided.precision, decided.kernels) == ("as_loaded", "torch")
    monkeypatch.setattr(hardware, "gpus", lambda: (H100,))
    monkeypatch.setattr(hardware, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(checks, "_has_liger", lambda: True)
    decided = checks.resolve(Options())
    assert (decided.precision, decided.kernels) == ("bfloat16", "liger")
    assert checks.resolve(Options(precision="as_loaded", kernels="torch")).kernels == "torch"


@pytest.mark.parametrize(
    ("said", "steps", "expected"),
    [
        ({}, 100, 3),
        ({}, 10, 1),
        ({"warmup_steps": 7}, 100, 7),
        ({"warmup_steps": 7}, 3, 3),
        ({"warmup_steps": 0}, 100, 0),
        ({"warmup_ratio": 0.25}, 10, 3),
        ({"warmup_ratio": 0.0}, 10, 0),
        ({"warmup_ratio": 1.0}, 10, 10),
    ],
)
def test_the_warmup_is_counted_in_steps(said, steps, expected):
    assert arguments.warmup_steps(Options(**said), steps) == expected


CURVES = {
    "linear": [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
    "constant": [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1],
    "cosine": [0, 0.5, 1, 0.966, 0.868, 0.722, 0.55, 0.378, 0.232, 0.134],
    "warmup_stable_decay": [0.1, 0.55, 1, 1, 1, 1, 1, 1, 1, 0.55],
    "inverse_sqrt": [0, 0.5, 1, 0.816, 0.707, 0.632, 0.577, 0.535, 0.5, 0.471],
}


@pytest.mark.parametrize("schedule", CURVES)
def test_every_schedule_is_its_curve(tmp_path, schedule):
    falling = {"learning_rate_floor": 0.1} if schedule in checks.FALLING else {}
    lesson = Lesson(tmp_path, replace(OPTIONS, max_steps=10, warmup_steps=2, **falling))
    lesson.run(schedule=schedule, learning_rate=1.0, optimizer="sgd", loss_limit=None)
    rates = [row["learning_rate"] for row in lesson.metrics if "loss" in row]
    assert rates == pytest.approx(CURVES[schedule], abs=1e-3)


def test_long_gradients_are_shortened(tmp_path):
    def step(**changes):
        options = replace(OPTIONS, max_steps=1, warmup_steps=0, optimizer="sgd", loss_limit=None)
        lesson = Lesson(tmp_path / str(changes), options)
        taught = lesson.run(learning_rate=1.0, **changes)
        b = [value for name, value in adapter(taught).items() if "lora_B" in name]
        return sum(float((value**2).sum()) for value in b) ** 0.5, lesson.metrics[1]

    whole, row = step(max_grad_norm=0.0)
    cut, same = step(max_grad_norm=row["gradient_norm"] / 4)
    assert row["gradient_norm"] == same["gradient_norm"]
    assert cut == pytest.approx(whole / 4, rel=1e-3)


def test_bfloat16_computes_in_it_and_leaves_the_adapter_in_float32(tmp_path):
    taught = Lesson(tmp_path / "b").run(precision="bfloat16")
    assert {p.dtype for p in taught.parameters() if p.requires_grad} == {torch.float32}
    plain = Lesson(tmp_path / "f").run(precision="as_loaded")
    assert 0 < distance(taught, plain) < 0.1


def test_float32_is_what_the_model_must_be_loaded_in(tmp_path):
    with pytest.raises(StepError, match=r"loaded in bfloat16.\n.*load\.dtype=float32"):
        Lesson(tmp_path).run(model().to(torch.bfloat16), precision="float32")
