"""How many rows are in memory at once: what fits, and no more than is fast."""

import pytest
from lessons import model

from runner import hardware
from runner.training import claims, fitting, methods
from runner.training.fitting import Fit
from runner.training.settings import Options


@pytest.fixture(scope="module")
def taught():
    """A small model with an adapter."""
    return methods.attach(model(), Options(), lambda text: None)


def fit(taught, longest, free, monkeypatch, **options):
    monkeypatch.setattr(hardware, "free_memory", lambda name: free)
    options = Options(**{"effective_batch_size": 16, **options})
    return fitting.fit(options, taught, [1, longest, 3])


def beside(taught, longest, rows, *, twice=False):
    return claims.beside_weights(Options(), taught, longest, rows, checkpointing=twice)


def test_on_a_cpu_no_more_tokens_go_at_once_than_are_fast(taught, monkeypatch):
    for longest, rows in ((10, 16), (60, 8), (200, 2), (600, 1)):
        assert fit(taught, longest, 10**12, monkeypatch) == Fit(rows, False)
    assert fit(taught, 60, None, monkeypatch) == Fit(8, False)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_no_more_rows_go_at_once_than_the_memory_holds(rows, taught, monkeypatch):
    enough = beside(taught, 60, rows) / fitting.USABLE
    assert fit(taught, 60, int(1.05 * enough), monkeypatch).micro_batch_size == rows
    less = fit(taught, 60, int(0.9 * enough), monkeypatch).micro_batch_size
    assert less == max(1, rows // 2)


def test_rows_that_are_asked_for_are_not_argued_with(taught, monkeypatch):
    assert fit(taught, 60, 1, monkeypatch, micro_batch_size=5) == Fit(5, False)
    assert fit(taught, 60, 1, monkeypatch, objective="kto") == Fit(16, False)
    asked = fit(taught, 60, 1, monkeypatch, micro_batch_size=2, gradient_checkpointing=True)
    assert asked == Fit(2, True)


def test_a_model_that_cannot_be_estimated_goes_by_the_rule_of_thumb(taught, monkeypatch):
    monkeypatch.setattr(claims, "to_train", None)
    assert beside(taught, 60, 1) is None
    by_thumb = 60 * fitting.bytes_per_token(taught.config, False)
    assert fit(taught, 60, 3 * by_thumb, monkeypatch).micro_batch_size == 2


def test_what_is_computed_twice_takes_less_beside_the_weights(taught, monkeypatch):
    gpu = hardware.Gpu("a GPU", 1 << 30, (9, 0))
    monkeypatch.setattr(hardware, "gpus", lambda: (gpu,))
    plain, twice = (beside(taught, 60, 8, twice=each) for each in (False, True))
    assert twice < plain
    monkeypatch.setattr(fitting, "_free", lambda: int((plain + twice) / 2 / fitting.USABLE))
    options = Options(effective_batch_size=8)
    assert fitting.fit(options, taught, [60]) == Fit(8, True)
    monkeypatch.setattr(fitting, "_free", lambda: int(1.05 * plain / fitting.USABLE))
    assert fitting.fit(options, taught, [60]) == Fit(8, False)
