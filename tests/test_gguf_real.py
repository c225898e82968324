"""SmolLM2-135M as GGUF: llama.cpp gives what transformers gives, as far as its numbers allow."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.gguf import writing

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]

WINDOWS, WIDTH = 4, 256
QUESTIONS = ["What is the capital of France?", "Write one sentence about the sea.", "Count to 10."]
ANSWER = 24


@dataclass(frozen=True)
class Source:
    """What transformers gives in float32: logits of a text in windows, and greedy answers."""

    folder: Path
    windows: list[list[int]]
    logits: list[Any]
    prompts: list[list[int]]
    answers: list[list[int]]


@pytest.fixture(scope="module")
def source(real_model: Path) -> Source:
    """SmolLM2-135M-Instruct, fetched as the quickstart does; RUNNER_REAL_MODEL names one there."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = real_model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(held_out())["input_ids"]
    windows = [ids[start : start + WIDTH] for start in range(0, WINDOWS * WIDTH, WIDTH)]
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    prompts = [
        tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        for chat in chats
    ]
    with torch.no_grad():
        logits = [model(torch.tensor([window])).logits[0].numpy() for window in windows]
        answers = [
            model.generate(torch.tensor([ids]), max_new_tokens=ANSWER, do_sample=False)[0].tolist()
            for ids in prompts
        ]
    ends = [answer[len(ids) :] for ids, answer in zip(prompts, answers, strict=True)]
    return Source(folder, windows, logits, prompts, ends)


@pytest.fixture
def llama(source: Source, tmp_path: Path) -> Callable[[str], Any]:
    """Opens the model in one kind in llama.cpp, with what it remembers of a text in float32."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

    def open_kind(kind: str) -> Any:
        file = tmp_path / f"{kind}.gguf"
        writing.write(source.folder, file, kind, lambda done, total, unit: None, print)
        return llama_cpp.Llama(
            str(file),
            n_ctx=WIDTH,
            n_batch=WIDTH,
            logits_all=True,
            type_k=0,
            type_v=0,
            verbose=False,
        )

    return open_kind


def held_out() -> str:
    """Prose that ships with Python."""
    from pydoc_data.topics import topics

    return "\n".join(text for _, text in sorted(topics.items())[1::2])


def seen(llama: Any, windows: list[list[int]]) -> list[Any]:
    """Logits of every window."""
    found = []
    for window in windows:
        llama.reset()
        llama.eval(window)
        found.append(llama.scores[: len(window)].copy())
    return found


def perplexity(logits: list[Any], windows: list[list[int]]) -> float:
    import torch

    losses = [
        torch.nn.functional.cross_entropy(torch.tensor(each[:-1]), torch.tensor(window[1:]))
        for each, window in zip(logits, windows, strict=True)
    ]
    return float(torch.stack(losses).mean().exp())


def agreement(one: list[Any], other: list[Any]) -> float:
    """Share of places whose most likely next token is the same."""
    return float(
        sum((a.argmax(-1) == b.argmax(-1)).mean() for a, b in zip(one, other, strict=True))
        / len(one)
    )


def answered(llama: Any, prompt: list[int], count: int) -> list[int]:
    """The greedy answer, at most `count` tokens."""
    llama.reset()
    found: list[int] = []
    for token in llama.generate(prompt, temp=0.0, repeat_penalty=1.0):
        found.append(token)
        if token == llama.token_eos() or len(found) == count:
            return found
    return found


@pytest.mark.parametrize(("kind", "rise", "agreeing"), [("bf16", 0.01, 0.98), ("f16", 0.01, 0.98)])
def test_whole_weights_give_the_same_perplexity_and_greedy_answers(
    source, llama, kind, rise, agreeing
):
    opened = llama(kind)
    found, wanted = seen(opened, source.windows), source.logits
    assert perplexity(found, source.windows) == pytest.approx(
        perplexity(wanted, source.windows), rel=rise
    )
    assert agreement(found, wanted) > agreeing
    # llama.cpp rounds what goes into a bfloat16 matrix to bfloat16 too: near ties may turn
    exact = zip(source.prompts, source.answers, strict=True) if kind == "f16" else ()
    for prompt, answer in exact:
        assert answered(opened, prompt, len(answer)) == answer
    opened.close()


@pytest.mark.parametrize(("kind", "rise"), [("q8_0", 0.03), ("q4_k_m", 0.15), ("q4_0", 0.4)])
def test_few_bits_raise_perplexity_within_bounds(source, llama, kind, rise):
    opened = llama(kind)
    whole = perplexity(source.logits, source.windows)
    assert perplexity(seen(opened, source.windows), source.windows) < whole * (1 + rise)
    opened.close()


def test_the_tokens_of_held_out_text_are_the_same(source, llama):
    from transformers import AutoTokenizer

    text = held_out()[:200_000]
    opened = llama("q8_0")
    found = opened.tokenize(text.encode(), add_bos=True, special=True)
    assert found == AutoTokenizer.from_pretrained(source.folder).encode(text)
    opened.close()
