"""Kills of GPTQ at random moments: the same bytes, no layer twice, at most the one in work lost."""

import random
import time

import pytest
from measure import first, row, size
from squeezing import Attempt, bytes_of, quantize, rows
from test_quantizing_gptq import OPTIONS, committed

pytest.importorskip("gptqmodel", reason="needs the extra gptq")
pytestmark = pytest.mark.timeout(7200)

LAYERS = 8
SHOWN = rows(64, longest=200)


def model(folder):
    """A random Llama of eight layers, slow enough to be killed in any of them."""
    import torch
    from tiny import make_model
    from transformers import AutoConfig, LlamaForCausalLM

    make_model(folder)
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers, config.intermediate_size = LAYERS, 256
    torch.manual_seed(1)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def test_a_killed_gptq_gives_the_same_bytes(tmp_path):
    begun, draw, wanted = time.monotonic(), random.Random(11), size("GPTQ_KILLS", 20)
    source = model(tmp_path / "model")
    whole = quantize(source, tmp_path / "whole", SHOWN, **OPTIONS)
    assert whole.layers == list(range(1, LAYERS + 1))
    expected = bytes_of(tmp_path / "whole" / "target")
    kills, runs, wrong, cursors = 0, 0, [], set()
    while kills < wanted:
        place, kept = tmp_path / str(runs), 0
        while True:
            moment = Moment(draw.randint(0, 3), draw.uniform(0, 1.5))
            attempt = quantize(source, place, SHOWN, moment, **OPTIONS)
            if attempt.layers[:1] not in ([], [kept + 1]):
                wrong.append(
                    f"{place}: went on at layer {attempt.layers[0]} after {kept} were kept"
                )
            if attempt.ended:
                break
            kills += 1
            before, kept = kept, committed(place)
            cursors.add(kept)
            if attempt.layers and kept < max(before, attempt.layers[-1] - 1):
                wrong.append(f"{place}: {attempt.layers[-1]} layers were told and {kept} are kept")
        runs += 1
        if bytes_of(place / "target") != expected:
            wrong.append(f"{place}: other bytes")
    row(
        f"SIGKILL of GPTQ of {LAYERS} layers at random times",
        f"{kills} kills of {runs} runs, with {len(cursors)} different numbers of layers finished",
        f"{len(wrong)} results with other bytes, layers done twice, or more than one layer lost",
        begun,
    )
    assert not wrong, first(wrong)


class Moment:
    """Some time after so many layers; from the first thing told on, not from the start."""

    def __init__(self, layers: int, delay: float) -> None:
        self.layers, self.delay, self.begun = layers, delay, time.monotonic()

    def __call__(self, attempt: Attempt) -> bool:
        """Whether it has come."""
        if self.layers == 0:
            return time.monotonic() > self.begun + 2 + 4 * self.delay
        reached = len(attempt.layers) >= self.layers
        return reached and time.monotonic() > attempt.told_at + self.delay
