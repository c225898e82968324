"""Which options of answers contradict one another, and what is said of it before any work."""

from types import SimpleNamespace
from typing import Any

import pytest

from runner import hardware
from runner.answering.settings import Options
from runner.hardware import Gpu
from runner.stages import generate

MODEL: dict[str, Any] = {"model": (SimpleNamespace(name="load", options=None),)}
ASKED = {"prompts": ("one",)}


def faults(inputs=None, **options):
    found = generate.check(Options(**ASKED | options), MODEL if inputs is None else inputs)
    return [(".".join(fault.where), fault.fact) for fault in found]


def places(inputs=None, **options):
    return [where for where, _ in faults(inputs, **options)]


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"top_p": 0.9, "top_k": 5}, ["top_p", "top_k"]),
        ({"min_p": 0.1}, ["min_p"]),
        ({"samples": 2}, ["samples"]),
        ({"top_p": 0.0, "temperature": 1.0}, ["top_p"]),
        ({"beams": 3, "temperature": 1.0}, ["temperature"]),
        ({"beams": 3, "logprobs": True}, ["logprobs"]),
        ({"beams": 3, "prompt_lookup": 2}, ["prompt_lookup"]),
        ({"length_penalty": 2.0}, ["length_penalty"]),
        ({"prompt_lookup": 2, "logprobs": True}, ["logprobs"]),
        ({"prompt_lookup": 2, "batch_size": 4}, ["batch_size"]),
        ({"batch_size": 0}, ["batch_size"]),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, ["min_new_tokens"]),
        ({"stop": ("a", "")}, ["stop"]),
        ({"file_digest": "abc"}, ["file_digest"]),
        ({"prompts": ()}, [""]),
    ],
    ids=str,
)
def test_contradictions_are_found_before_any_work(options, where):
    assert places(**options) == where


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "samples": 4},
        {"beams": 4, "length_penalty": 0.5, "no_repeat_ngram_size": 3},
        {"prompt_lookup": 4, "batch_size": 1},
        {"logprobs": True, "stop": ("\n",), "prefix": "Sure", "repetition_penalty": 1.1},
    ],
    ids=str,
)
def test_what_goes_together_is_no_fault(options):
    assert faults(**options) == []


def test_a_constraint_is_checked_before_any_work():
    pytest.importorskip("llguidance")
    assert places(regex="(a|b") == ["regex"]
    assert places(json_schema={"type": "nonsense"}) == ["json_schema"]
    assert places(json_schema={"type": "object"}, regex="a") == ["regex"]
    assert places(regex="a", prefix="x") == ["prefix"]
    assert places(regex="a", min_new_tokens=2) == ["min_new_tokens"]
    assert faults(json_schema={"type": "object"}) == faults(regex="yes|no") == []


def test_engines_say_what_they_cannot_do():
    step = MODEL["model"]
    assert places({}) == [""]
    assert places(MODEL | {"gguf": step}) == ["gguf"]
    assert places(MODEL | {"assistant": step}, beams=2) == ["assistant"]
    assert places(MODEL | {"assistant": step}, prompt_lookup=2) == ["prompt_lookup"]
    found = places({"gguf": step}, engine="llama.cpp", beams=2)
    assert found[-1] == "beams"
    assert "engine" in places({}, engine="llama.cpp")


def test_vllm_says_by_name_what_it_does_not_have(monkeypatch):
    step = MODEL["model"]
    others = {"beams": 2, "prompt_lookup": 2, "no_repeat_ngram_size": 2}
    found = dict(faults(MODEL | {"assistant": step, "gguf": step}, engine="vllm", **others))
    assert found["no_repeat_ngram_size"] == (
        "no_repeat_ngram_size is for engine: transformers or llama.cpp."
    )
    assert {*others, "assistant", "gguf"} < {*found}
    constrained = dict(faults(engine="vllm", regex="a", logprobs=True))
    assert "logprobs of constrained answers is for" in constrained["logprobs"]
    assert places(memory_share=0.5, gpus=2) == ["memory_share", "gpus"]
    monkeypatch.setattr(hardware, "gpus", lambda: (Gpu("one", 1 << 30, (9, 0)),))
    assert dict(faults(engine="vllm", gpus=2))["gpus"] == "there are 1 GPUs, not 2."
    assert "" in places({}, engine="vllm")


def test_an_engine_without_its_library_names_the_line_that_brings_it(monkeypatch):
    monkeypatch.setattr("runner.extras.find_spec", lambda name: None)
    for engine, extra in (("vllm", "vllm"), ("llama.cpp", "gguf")):
        first = faults(engine=engine)[0]
        assert first[0] == "engine"
        assert f'pip install "recipe-runner[{extra}]"' in first[1]
