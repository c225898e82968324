"""Preferences as tokens, and what a model is asked, for the quirks of real chat templates."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_data_mask import (
    FAMILIES,
    QUICK,
    SAFE,
    STOPS,
    TEMPLATES,
    TOOLS,
    conversations,
    encoder,
    family,
    said,
    shown,
    tokenizer,
)

from runner.data.masks.answers import Answered, encode_answers
from runner.data.masks.mask import Encoder, MaskError, TooLong
from runner.data.prompts import Prompts
from runner.errors import StepError
from runner.products import IGNORED

WITH_TOOLS = ("qwen25", "qwen3", "llama31", "gptoss", "mistral")
WITH_THOUGHTS = ("qwen3", "gptoss")
FEW = settings(QUICK, max_examples=8)


def decoded(name: str, ids: list[int]) -> str:
    return encoder(name).tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)


def one(made: Encoder, example: dict[str, Any], *length: Any) -> Answered:
    (found,) = encode_answers(made, [example], *length)
    if isinstance(found, MaskError):
        raise found
    return found


def pair(messages: list, rejected: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": [rejected]}


def other_answer(name: str, data: st.DataObject) -> dict[str, Any]:
    """An answer of the family's kind, from a conversation of its own."""
    return data.draw(conversations(name))[-1]


@pytest.mark.parametrize("name", FAMILIES)
@FEW
@given(data=st.data())
def test_answers_are_what_a_conversation_would_train_and_prompts_what_stands_before(name, data):
    messages, rejected = data.draw(conversations(name)), other_answer(name, data)
    worse = [*messages[:-1], rejected]
    texts = [said(name, each, len(each) - 1) for each in (messages, worse)]
    assume(shown(name, texts[0]) != shown(name, texts[1]))
    found = one(encoder(name), pair(messages, rejected))
    whole = [encoder(name, "last").encode({"messages": each}) for each in (messages, worse)]
    for text, ids, alone in zip(texts, found.answers, whole, strict=True):
        first = len(found.prompt_ids)
        assert alone.input_ids[:first] == found.prompt_ids
        assert [label for label in alone.labels if label != IGNORED] == ids
        assert set(alone.labels[:first]) <= {IGNORED}
        before = decoded(name, found.prompt_ids)
        assert decoded(name, found.prompt_ids + ids) == before + shown(name, text)
    assert found.stops
    assert not found.truncated
    assert len(found.roles) == len(found.prompt_ids) + found.trained


@pytest.mark.parametrize("name", FAMILIES)
@FEW
@given(data=st.data())
def test_the_longer_answer_decides_whether_a_pair_is_cut(name, data):
    messages, rejected = data.draw(conversations(name)), other_answer(name, data)
    example = pair(messages, rejected)
    try:
        whole = one(encoder(name), example)
    except MaskError:
        assume(False)
    size = data.draw(st.integers(1, whole.size))
    prompt = len(whole.prompt_ids)
    expected = [ids[: size - prompt] for ids in whole.answers]
    if size <= prompt or expected[0] == expected[1]:
        with pytest.raises(MaskError, match=r"behind its first|the same tokens"):
            one(encoder(name), example, size)
    else:
        found = one(encoder(name), example, size)
        assert (found.prompt_ids, found.answers) == (whole.prompt_ids, expected)
        assert len(found.roles) == len(found.prompt_ids) + found.trained
        assert found.truncated == (size < whole.size)
    with pytest.raises(TooLong, match=f"and {whole.size - 1} are allowed"):
        one(encoder(name), example, whole.size - 1, "error")


@pytest.mark.parametrize("name", FAMILIES)
@FEW
@given(data=st.data())
def test_an_answer_with_a_label_is_encoded_like_one_of_a_pair(name, data):
    messages, rejected = data.draw(conversations(name)), other_answer(name, data)
    try:
        found = one(encoder(name), pair(messages, rejected))
    except MaskError:
        assume(False)
    for message, ids in zip((messages[-1], rejected), found.answers, strict=True):
        example = {"prompt": messages[:-1], "completion": [message], "label": True}
        alone = one(encoder(name), example)
        assert (alone.prompt_ids, alone.answers) == (found.prompt_ids, [ids])


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_of_tools_can_be_preferred(name):
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "look", "arguments": {}}}
    asks = {"role": "assistant", "content": "", "tool_calls": [call]}
    says = {"role": "assistant", "content": "the answer"}
    asked = {"role": "user", "content": "the"}
    example = {"prompt": [asked], "chosen": [asks], "rejected": [says], "tools": TOOLS}
    found = one(encoder(name), example)
    texts = [decoded(name, ids) for ids in found.answers]
    assert texts[0].strip() == said(name, [asked, asks], 1).strip()
    assert texts[1].strip() == said(name, [asked, says], 1).strip()
    bare = one(encoder(name), {key: value for key, value in example.items() if key != "tools"})
    assert found.answers == bare.answers
    assert len(found.prompt_ids) > len(bare.prompt_ids) or name == "gptoss"


def test_thoughts_are_part_of_an_answer():
    thinks = {"role": "assistant", "content": "42", "reasoning_content": "the question"}
    asked = {"role": "user", "content": "the"}
    for name in WITH_THOUGHTS:
        found = one(encoder(name), pair([asked, thinks], {"role": "assistant", "content": "41"}))
        assert "the question" in decoded(name, found.answers[0])


@pytest.mark.parametrize(
    ("chosen", "rejected", "fact"),
    [
        ([("assistant", "a"), ("user", "q"), ("assistant", "b")], [("assistant", "c")],
         "not in one piece"),
        ([("assistant", "a")], [("assistant", "a")], "become the same tokens"),
    ],
)  # fmt: skip
def test_pairs_that_would_teach_something_else_are_refused(chosen, rejected, fact):
    example: dict[str, Any] = {"prompt": [{"role": "user", "content": "q"}]}
    for side, spoken in (("chosen", chosen), ("rejected", rejected)):
        example[side] = [{"role": role, "content": text} for role, text in spoken]
    good = pair(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        {"role": "assistant", "content": "b"},
    )
    first, second, third = encode_answers(encoder("chatml"), [good, example, good])
    assert first == third
    assert isinstance(second, MaskError)
    assert fact in str(second)
    example = {**good, "chosen": [{**good["chosen"][0], "weight": 0.5}]}
    with pytest.raises(MaskError, match="has a weight"):
        one(encoder("chatml"), example)


def test_a_prompt_that_the_template_writes_by_the_answer_is_refused():
    nods = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'user' and "
        "messages[-1].content == 'yes' %}!{% endif %}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made = Encoder(family("chatml")[0], nods)
    asked = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]
    with pytest.raises(MaskError, match=r"another prompt|cannot be told"):
        one(made, pair(asked, {"role": "assistant", "content": "no"}))


# Beside TRL


def of_trl(raw: Any, template: str, example: dict[str, Any]) -> dict[str, list[int]]:
    """What DPOTrainer of trl makes of a row."""
    import datasets
    from transformers import AutoConfig  # noqa: F401  trl asks for it first
    from trl import DPOConfig, DPOTrainer

    raw.chat_template = template
    trainer = object.__new__(DPOTrainer)
    trainer._tokenizer = raw
    settings = DPOConfig(output_dir="nowhere", report_to=[], use_cpu=True, bf16=False)
    rows = datasets.Dataset.from_list([example])
    return dict(trainer._prepare_dataset(rows, raw, settings, "train")[0])


@pytest.mark.parametrize("name", ["chatml", "llama31", "gemma3", "phi3"])
@settings(QUICK, max_examples=8)
@given(data=st.data())
def test_trl_makes_the_same_of_a_pair_but_for_what_is_never_generated(name, data, tmp_path_factory):
    """It also trains the line end behind a stop token, and what the template puts at the end."""
    pytest.importorskip("trl")
    words = st.lists(st.sampled_from(SAFE), min_size=1, max_size=4).map(" ".join)
    asked, good, bad = data.draw(words), data.draw(words), data.draw(words)
    assume(good != bad)
    example = pair(
        [{"role": "user", "content": asked}, {"role": "assistant", "content": good}],
        {"role": "assistant", "content": bad},
    )
    raw, template = family(name)
    theirs, ours = of_trl(raw, template, example), one(Encoder(raw, template), example)
    assert ours.prompt_ids == theirs["prompt_ids"]
    for side, ids in zip(("chosen", "rejected"), ours.answers, strict=True):
        their_ids = theirs[f"{side}_ids"]
        assert their_ids[: len(ids)] == ids
        assert raw.decode(their_ids[len(ids) :]).strip() in ("", "<|endoftext|>")
        assert ids[-1] == raw.convert_tokens_to_ids(STOPS.get(name, "<|im_end|>"))


def test_trl_collates_the_columns_as_they_are():
    dpo = pytest.importorskip("trl.trainer.dpo_trainer")
    kto = pytest.importorskip("trl.trainer.kto_trainer")
    example = pair(
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        {"role": "assistant", "content": "bb"},
    )
    found = one(encoder("chatml"), example)
    chosen, rejected = found.answers
    row = {"prompt_ids": found.prompt_ids, "chosen_ids": chosen, "rejected_ids": rejected}
    batch = dpo.DataCollatorForPreference(pad_token_id=0)([row])
    sides = zip(batch["input_ids"].tolist(), batch["completion_mask"].tolist(), strict=True)
    for ids, (whole, mask) in zip(found.answers, sides, strict=True):
        assert [token for token, on in zip(whole, mask, strict=True) if on] == ids
        assert whole[: len(found.prompt_ids)] == found.prompt_ids
    row = {"prompt_ids": found.prompt_ids, "completion_ids": chosen, "label": True}
    batch = kto.DataCollatorForUnpairedPreference(pad_token_id=0)([row])
    assert batch["input_ids"].tolist() == [found.prompt_ids + chosen]
    assert batch["label"].tolist() == [True]


# What a model is asked


@pytest.mark.parametrize("name", FAMILIES)
@FEW
@given(data=st.data())
def test_a_model_is_asked_with_the_tokens_that_training_showed_it(name, data):
    chat = {"messages": data.draw(conversations(name))}
    if name in WITH_TOOLS and data.draw(st.booleans()):
        chat["tools"] = TOOLS
    raw, template = family(name)
    raw.chat_template = template
    trained = Encoder(raw, template, train_on="last").encode(chat)
    size = trained.labels.count(IGNORED)
    first = next(at for at, label in enumerate(trained.labels) if label != IGNORED)
    (asked,) = Prompts(raw).asked([chat])
    assert asked.prompt_ids == trained.input_ids[:first]
    answer = [label for label in trained.labels if label != IGNORED]
    assert asked.expected == raw.decode(answer, skip_special_tokens=True).strip()
    assert size >= first


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "deepseek"])
def test_that_is_the_generation_prompt_of_the_template(name):
    """Of DeepSeek's template it has no opened thoughts: no answer that was trained begins so."""
    raw, template = family(name)
    raw.chat_template = template
    messages = [{"role": "user", "content": "the"}, {"role": "assistant", "content": "answer"}]
    tools = TOOLS if name in WITH_TOOLS else None
    text = raw.apply_chat_template(
        messages[:1], tools=tools, tokenize=False, add_generation_prompt=True
    )
    (asked,) = Prompts(raw).asked([{"messages": messages, "tools": tools}])
    assert asked.prompt_ids == raw(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_ends_with_the_stop_token_of_the_template(name):
    raw, template = family(name)
    raw.chat_template = template
    stop = raw.convert_tokens_to_ids(STOPS.get(name, "<|im_end|>"))
    assert {stop, raw.eos_token_id} <= {*Prompts(raw).stops}


def test_what_is_not_trained_or_only_marked_in_part_is_asked_all_the_same():
    raw, _ = family("chatml")
    marked = (TEMPLATES / "chatml_marked.jinja").read_text("utf-8")
    raw.chat_template = marked.replace("{%- generation %}", "{{ 'Hm. ' }}{%- generation %}")
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0},
    ]
    (asked,) = Prompts(raw).asked([{"messages": messages}])
    plain = raw.apply_chat_template(messages[:1], add_generation_prompt=True, return_dict=False)
    assert asked.prompt_ids == plain


def test_a_conversation_that_the_template_refuses_cannot_be_asked():
    raw = tokenizer("bytes", "<s> </s>")
    with pytest.raises(StepError, match="cannot be asked: the tokenizer has no chat template"):
        Prompts(raw).asked([{"messages": [{"role": "user", "content": "a"}]}])


def test_every_template_is_tried():
    assert {path.stem for path in Path(TEMPLATES).glob("*.jinja")} == {*FAMILIES}
