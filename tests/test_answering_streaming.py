"""An answer that is told while it is made: in pieces that are never taken back."""

import pytest

from runner import products
from runner.answering import loop, talking
from runner.answering.asking import Prompt, Tokens
from runner.answering.settings import Options
from runner.answering.streaming import TORN, Stream
from runner.checkpoint import Checkpoints
from runner.stage import Context

QUESTION = [{"role": "user", "content": "say many 3"}]


@pytest.fixture(scope="module")
def model(tiny_model):
    return products.open_model(tiny_model, dtype="float32")


@pytest.fixture
def told(model, tmp_path):
    """The pieces, and the answer of the row that a step would have."""

    def ask(**given):
        pieces: list[str] = []
        options = talking.options_of({"max_new_tokens": 20, **given})
        row = talking.reply({"model": model}, options, QUESTION, pieces.append)
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        context = Context(place, Checkpoints(place / "c", print))
        asked = [Prompt(QUESTION[0]["content"], QUESTION)]
        assert loop.answers(options, {"model": model}, context, asked) == [row]
        return pieces, row["answer"]

    return ask


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prefix": "Well, "},
        {"temperature": 1.0, "seed": 3},
        {"repetition_penalty": 1.5},
        {"logprobs": True, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_the_pieces_are_the_answer(given, told):
    pieces, answer = told(**given)
    assert "".join(pieces) == answer
    assert len(pieces) > 2
    assert all(pieces)


def test_a_stop_text_is_never_told(told):
    _, free = told()
    stop = free[len(free) // 2 :][:2]
    pieces, answer = told(stop=[stop])
    assert "".join(pieces) == answer
    assert stop not in answer
    assert len(answer) < len(free)


@pytest.mark.parametrize("given", [{"beams": 2}, {"prompt_lookup": 2}], ids=str)
def test_what_may_be_taken_back_is_told_at_its_end(given, told):
    pieces, answer = told(**given)
    assert pieces == [answer]


def heard(model, text, **options):
    """What is told of a text after each of its tokens, which are bytes here."""
    pieces: list[str] = []
    tokens = Tokens(model.tokenizer)
    hear = Stream(Options(prompts=("x",), **options), pieces.append).heard(tokens)
    ids, so_far = tokens.plain(text), []
    for count in range(1, len(ids) + 1):
        hear(ids[:count])
        so_far.append("".join(pieces))
    return so_far


def test_half_a_character_waits_for_its_other_half(model):
    so_far = heard(model, "né→x")
    assert so_far == ["n", "n", "né", "né", "né", "né→", "né→x"]
    assert not any(TORN in each for each in so_far)


def test_what_may_begin_a_stop_text_waits_until_it_is_known(model):
    assert heard(model, "an EN. END x", stop=("END", "N.!"))[-1] == "an EN."
    so_far = heard(model, "a ENx", stop=("END",))
    assert so_far == ["a", "a", "a", "a", "a ENx"]


def test_an_answer_that_was_told_otherwise_is_told_again_whole():
    pieces: list[str] = []
    stream = Stream(Options(prompts=("x",)), pieces.append)
    stream.end("one")
    stream.end("other")
    assert pieces == ["one", "\n", "other"]
