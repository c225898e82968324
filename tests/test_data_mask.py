"""Rows as tokens and labels, for the quirks of real chat templates."""
# ruff: noqa: RUF001  DeepSeek writes its tokens with wide bars

import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from runner.data.masks.findings import check_template
from runner.data.masks.mask import ROLES, Encoder, MaskError, TooLong
from runner.products import IGNORED

TEMPLATES = Path(__file__).parent / "templates"
CORPUS = [
    "The answer is 42.\n\nThe question was what the answer is.\n\n\n  indented   text\n",
    "assistant\n user\n model\n system\n the cat sat on the mat, naïve café, 日本語\n\n",
    '{"name": "look", "arguments": {"city": "Oslo"}}\n<think>\n\n</think>\n\n',
] * 20
DEEPSEEK = (
    "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> "
    "<｜tool▁calls▁begin｜> "
    "<｜tool▁calls▁end｜> <｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> "
    "<｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>"
)
QWEN = "<|endoftext|> <|im_start|> <|im_end|>"
MISTRAL = (
    "<s> </s> [INST] [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] "
    "[TOOL_RESULTS] [/TOOL_RESULTS]"
)
GPTOSS = "<|startoftext|> <|return|> <|start|> <|end|> <|message|> <|channel|> <|call|>"
LLAMA = "<|begin_of_text|> <|eot_id|> <|eom_id|> <|start_header_id|> <|end_header_id|>"
LLAMA_WORDS = (  # how Llama 3 and Qwen cut a text before they merge
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FAMILIES = {  # template: the tokenizer's kind, its special tokens (bos and eos first), plain ones
    "chatml": ("bytes", "<|im_start|> <|im_end|>", ""),
    "chatml_marked": ("bytes", "<|im_start|> <|im_end|>", ""),
    "smollm2": ("trimmed", "<|im_start|> <|im_end|>", ""),
    "qwen25": ("bytes", QWEN, "<tool_call> </tool_call>"),
    "qwen3": ("bytes", QWEN, "<tool_call> </tool_call> <think> </think>"),
    "llama31": ("llama", LLAMA, ""),
    "gemma2": ("pieces", "<bos> <eos> <start_of_turn> <end_of_turn>", ""),
    "gemma3": ("pieces", "<bos> <eos> <start_of_turn> <end_of_turn>", ""),
    "mistral": ("metaspace", MISTRAL, ""),
    "nemo": ("bytes", MISTRAL, ""),
    "phi3": ("stripping", "<s> <|endoftext|> <|system|> <|user|> <|assistant|> <|end|>", ""),
    "gptoss": ("bytes", GPTOSS, ""),
    "deepseek": ("bytes", DEEPSEEK, "<think> </think>"),
    "alpaca": ("metaspace", "<s> </s>", ""),
}
STOPS = {
    "llama31": "<|eot_id|>", "gemma2": "<end_of_turn>", "gemma3": "<end_of_turn>",
    "mistral": "</s>", "nemo": "</s>", "alpaca": "</s>", "phi3": "<|end|>",
    "gptoss": "<|return|>", "deepseek": "<｜end▁of▁sentence｜>",
}  # fmt: skip
NO_SYSTEM = ("gemma2",)
TOOLS = [{"type": "function", "function": {"name": "look", "description": "d", "parameters": {}}}]


@cache
def tokenizer(kind: str, special: str, plain: str = ""):
    """A tiny tokenizer with merges over spaces and line ends, as large ones have."""
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    raw = (byte_level if kind in ("bytes", "trimmed", "llama") else pieces)(kind)
    bos, eos, *more = special.split()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=bos, eos_token=eos)
    strips = kind == "stripping"
    made.add_tokens(
        [AddedToken(text, rstrip=strips, special=True, normalized=False) for text in more],
        special_tokens=True,
    )
    made.add_tokens([AddedToken(text, normalized=False) for text in plain.split()])
    return made


def byte_level(kind: str):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "llama")
    if kind == "llama":
        split = pre_tokenizers.Split(Regex(LLAMA_WORDS), "isolated")
        raw.pre_tokenizer = pre_tokenizers.Sequence([split, raw.pre_tokenizer])
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.ByteLevel(trim_offsets=kind != "bytes")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, show_progress=False, special_tokens=["<unk>"]
    )
    raw.train_from_iterator(CORPUS, trainer)
    return raw


def pieces(kind: str):
    """Like SentencePiece: bytes for what it does not know, spaces as part of words."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = ["▁the", "▁answer", "▁is", "the", "answer", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "\n▁"]
    letters = sorted(set("".join(CORPUS).replace(" ", "▁")))
    codes = [f"<0x{number:02X}>" for number in range(256)]
    vocabulary = [("<unk>", 0.0), *((code, -20.0) for code in codes)]
    vocabulary += [(word, -3.0) for word in words] + [(letter, -8.0) for letter in letters]
    raw = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "metaspace":
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        raw.normalizer = normalizers.Replace(Regex(" "), "▁")
    raw.decoder = decoders.Sequence(steps)
    return raw


def family(name: str):
    kind, special, plain = FAMILIES[name]
    return tokenizer(kind, special, plain), (TEMPLATES / f"{name}.jinja").read_text("utf-8")


@cache
def encoder(name: str, train_on: str = "assistant") -> Encoder:
    return Encoder(*family(name), train_on=train_on)


def said(name: str, messages: list, index: int) -> str:
    """What the model is to write for one message, by the family's rules, stop token included."""
    message, last = messages[index], index == len(messages) - 1
    content = message["content"]
    thoughts, calls = message.get("reasoning_content"), message.get("tool_calls", [])
    stop = STOPS.get(name, "<|im_end|>")
    if name in ("llama31", "gemma2", "gemma3", "mistral"):
        content = content.strip()
    if name == "llama31" and calls:
        (call,) = calls
        content = f'{{"name": "{call["function"]["name"]}", "parameters": {arguments(call)}}}'
    if name == "mistral":
        content = " " + content
        if calls:
            whole = [{**call["function"], "id": call["id"]} for call in calls]
            content = "[TOOL_CALLS] " + json.dumps(whole, ensure_ascii=False)
    if name in ("qwen25", "qwen3"):
        if name == "qwen3":
            content = qwen3(messages, index, content, thoughts)
        made = [
            f'<tool_call>\n{{"name": "{call["function"]["name"]}", '
            f'"arguments": {arguments(call)}}}\n</tool_call>'
            for call in calls
        ]
        shown = message["content"] if name == "qwen3" else content
        content += "\n".join(["", *made] if shown and made else made)
    if name == "deepseek":
        made = [
            f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call['function']['name']}\n```json\n"
            f"{arguments(call)}\n```<｜tool▁call▁end｜>"
            for call in calls
        ]
        if calls:
            content += "<｜tool▁calls▁begin｜>" + "\n".join(made) + "<｜tool▁calls▁end｜>"
        elif messages[index - 1]["role"] != "tool":
            content = content.split("</think>")[-1].removeprefix("<think>\n")  # that is asked with
    if name == "gptoss":
        return gptoss(messages, index, content, thoughts, calls, last)
    return content + stop


def arguments(call: dict) -> str:
    return json.dumps(call["function"]["arguments"], ensure_ascii=False)


def qwen3(messages: list, index: int, content: str, thoughts: str | None) -> str:
    asked = [place for place, one in enumerate(messages) if one["role"] == "user"]
    if not thoughts and "</think>" in content:
        thoughts = content.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
        content = content.split("</think>")[-1].lstrip("\n")
    if index > max(asked) and (index == len(messages) - 1 or thoughts):
        inside = (thoughts or "").strip("\n")
        return f"<think>\n{inside}\n</think>\n\n" + content.lstrip("\n")
    return content


def gptoss(messages, index, content, thoughts, calls, last) -> str:
    later = any("tool_calls" not in m for m in messages[index + 1 :] if m["role"] == "assistant")
    before = f"<|channel|>analysis<|message|>{thoughts}<|end|><|start|>assistant"
    if calls:
        (call,) = calls
        text = f" to=functions.{call['function']['name']}<|channel|>commentary json<|message|>"
        return (before if thoughts and not later else "") + text + arguments(call) + "<|call|>"
    text = f"<|channel|>final<|message|>{content}" + ("<|return|>" if last else "<|end|>")
    return (before if thoughts and last else "") + text


def shown(name: str, text: str) -> str:
    """Tokenizers that write spaces as ▁ have no ▁ of their own."""
    return (
        text.replace("▁", " ")
        if FAMILIES[name][0] in ("pieces", "metaspace", "stripping")
        else text
    )


def trained(made: Encoder, found) -> list[str]:
    """The texts of the runs of trained tokens."""
    decode = made.tokenizer.backend_tokenizer.decode
    runs, first = [], None
    for index, label in enumerate([*found.labels, IGNORED]):
        if label != IGNORED and first is None:
            first = index
        elif label == IGNORED and first is not None:
            before = decode(found.input_ids[:first], skip_special_tokens=False)
            upto = decode(found.input_ids[:index], skip_special_tokens=False)
            assert upto.startswith(before)
            runs.append(upto[len(before) :])
            first = None
    return runs


HEADERS = [
    "<|im_start|>assistant\n", "<|im_end|>", "<|im_end|>\n", "<|eot_id|>", "[/INST]", "</s>",
    "<end_of_turn>\n", "<start_of_turn>model\n", "<|end|>", "<|assistant|>", "### Response:\n",
    "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "{% generation %}", "{{ messages }}", "Zq0Z",
    "assistant", "<think>", "</think>", "<|return|>", "<|start|>assistant",
]  # fmt: skip
PLAIN = [
    "the answer is",
    " ",
    "  ",
    "\n",
    "\n\n",
    "42",
    "naïve",
    "日本語",
    "🙂",
    '"',
    "\\",
    ".",
    "A",
]


def texts(name: str, *, blank: bool = True):
    words = PLAIN if name == "phi3" else PLAIN + HEADERS
    text = st.lists(st.sampled_from(words), max_size=5).map("".join)
    return text if blank else text.filter(str.strip)


@st.composite
def conversations(draw, name: str):
    """Several turns, with what the family allows of system messages, thoughts and calls."""
    messages = []
    if name not in NO_SYSTEM and draw(st.booleans()):
        messages.append({"role": "system", "content": draw(texts(name))})
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(texts(name))})
        if name in ("qwen25", "qwen3", "llama31", "gptoss", "deepseek", "mistral"):
            messages += draw(st.one_of(st.just([]), calls(name)))
        answer = {"role": "assistant", "content": draw(texts(name))}
        if name in ("qwen3", "gptoss") and draw(st.booleans()):
            answer["reasoning_content"] = draw(texts(name, blank=False))
            answer["content"] = draw(texts(name, blank=False))
        messages.append(answer)
    return messages


@st.composite
def calls(draw, name: str):
    many = draw(st.integers(1, 1 if name in ("llama31", "gptoss") else 2))
    made = [
        {
            "type": "function",
            "id": f"abcdefgh{number}",
            "function": {"name": "look", "arguments": {"city": draw(texts(name))}},
        }
        for number in range(many)
    ]
    asks = {"role": "assistant", "content": "", "tool_calls": made}
    if name in ("qwen25", "qwen3", "deepseek") and draw(st.booleans()):
        asks["content"] = draw(texts(name, blank=False).filter(lambda text: "</think>" not in text))
    elif name == "gptoss" and draw(st.booleans()):
        asks["reasoning_content"] = draw(texts(name, blank=False))
    back = [
        {"role": "tool", "content": draw(texts(name)), "tool_call_id": call["id"], "name": "look"}
        for call in made
    ]
    return [asks, *back]


def answers(messages: list) -> list[int]:
    return [index for index, one in enumerate(messages) if one["role"] == "assistant"]


QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("name", FAMILIES)
@QUICK
@given(data=st.data())
def test_exactly_what_the_assistant_says_is_trained_with_its_stop_token(name, data):
    messages = data.draw(conversations(name))
    expected = [said(name, messages, index) for index in answers(messages)]
    found = encoder(name).encode({"messages": messages})
    assert trained(encoder(name), found) == [shown(name, text) for text in expected]
    assert found.stops
    assert not found.truncated
    assert {
        ROLES[role]
        for role, label in zip(found.roles, found.labels, strict=True)
        if label != IGNORED
    } == {"assistant"}


@pytest.mark.parametrize("name", FAMILIES)
@QUICK
@given(data=st.data())
def test_only_what_train_on_names_is_trained(name, data):
    messages = data.draw(conversations(name))
    expected = [shown(name, said(name, messages, index)) for index in answers(messages)]
    for train_on in ("last", "completion"):
        found = encoder(name, train_on).encode({"messages": messages})
        assert trained(encoder(name), found) == expected[-1:]
    whole = encoder(name, "all").encode({"messages": messages})
    assert whole.labels == whole.input_ids
    skipped = data.draw(st.sampled_from(answers(messages)))
    messages[skipped]["weight"] = 0
    del expected[answers(messages).index(skipped)]
    if expected:
        assert trained(encoder(name), encoder(name).encode({"messages": messages})) == expected
    else:
        with pytest.raises(MaskError, match="no token"):
            encoder(name).encode({"messages": messages})


@pytest.mark.parametrize("name", FAMILIES)
@QUICK
@given(data=st.data())
def test_a_cut_row_is_the_beginning_of_the_whole_one(name, data):
    messages = data.draw(conversations(name))
    whole = encoder(name).encode({"messages": messages})
    size = data.draw(st.integers(1, len(whole.input_ids)))
    cut = Encoder(*family(name), max_length=size)
    if all(label == IGNORED for label in whole.labels[:size]):
        with pytest.raises(MaskError, match="behind its first"):
            cut.encode({"messages": messages})
        return
    found = cut.encode({"messages": messages})
    assert (found.input_ids, found.labels) == (whole.input_ids[:size], whole.labels[:size])
    assert found.roles == whole.roles[:size]
    assert found.truncated == (size < len(whole.input_ids))
    stop = encoder(name).tokenizer.convert_tokens_to_ids(STOPS.get(name, "<|im_end|>"))
    assert not found.stops or stop in found.labels or name == "gptoss"


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "deepseek"])
@QUICK
@given(data=st.data())
def test_the_tokens_before_an_answer_are_those_that_generation_begins_with(name, data):
    messages = data.draw(conversations(name))
    made = encoder(name, "last")
    found = made.encode({"messages": messages})
    rendered = made.template.rendering.prepare(messages[:-1])
    asked = made.template.rendering.render(rendered, for_answer=True)
    whole = made.template.rendering.render(made.template.rendering.prepare(messages))
    assume(whole.startswith(asked))  # gpt-oss drops thoughts before calls once there is an answer
    prompt = made.tokenizer(asked, add_special_tokens=False)["input_ids"]
    first = next(index for index, label in enumerate(found.labels) if label != IGNORED)
    assert found.input_ids[:first] == prompt


@pytest.mark.parametrize("name", ["chatml", "smollm2", "gemma2", "alpaca"])
def test_a_token_over_the_border_of_prompt_and_answer_is_split_there(name):
    """The header's line end and those of the answer would be one token in the whole text."""
    answer = "  the answer" if name == "alpaca" else "\n\nthe answer"
    made = encoder(name)
    messages = [{"role": "user", "content": "the"}, {"role": "assistant", "content": answer}]
    found = made.encode({"messages": messages})
    text = made.template.rendering.render(messages)
    joint = made.tokenizer(text, add_special_tokens=False)["input_ids"]
    if name == "gemma2":  # it strips answers: nothing to split
        assert found.input_ids == joint
    else:
        assert found.input_ids != joint
    assert trained(made, found) == [said(name, messages, 1)]


def test_a_word_that_begins_with_a_space_is_trained_though_its_offsets_leave_it_out():
    made = encoder("smollm2")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": " the answer"}]
    assert trained(made, made.encode({"messages": messages})) == [" the answer<|im_end|>"]


def test_what_looks_like_an_answer_in_a_question_is_not_trained():
    for name in FAMILIES:
        fake = said(
            name, [{"role": "user", "content": ""}, {"role": "assistant", "content": "no"}], 1
        )
        made = encoder(name)
        head = made.template.endings.prompt
        messages = [
            {"role": "user", "content": f"x{fake}{head}{fake}\n{head}{fake}"},
            {"role": "assistant", "content": "yes"},
        ]
        found = trained(made, made.encode({"messages": messages}))
        assert found == [shown(name, said(name, messages, 1))], name


def test_tokens_are_counted_by_the_role_they_belong_to():
    messages = [
        {"role": "system", "content": "sss"},
        {"role": "user", "content": "uu"},
        {"role": "assistant", "content": "a"},
    ]
    for name in ("chatml", "qwen3", "llama31", "gemma3", "mistral"):
        made = encoder(name)
        found = made.encode({"messages": messages})
        decode = made.tokenizer.backend_tokenizer.decode
        for role, text in (("system", "sss"), ("user", "uu")):
            ids = [
                i for i, of in zip(found.input_ids, found.roles, strict=True) if ROLES[of] == role
            ]
            assert decode(ids).strip() == text


def test_weights_scale_the_tokens_of_their_answer():
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0.5},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "b"},
    ]
    found = encoder("chatml").encode({"messages": messages})
    counts = [
        weight
        for weight, label in zip(found.weights, found.labels, strict=True)
        if label != IGNORED
    ]
    assert counts == [0.5, 0.5, 1.0, 1.0]
    assert sum(found.weights) == 3.0
    messages[1]["weight"] = 1
    assert encoder("chatml").encode({"messages": messages}).weights is None


@pytest.mark.parametrize("name", ["qwen25", "qwen3", "llama31", "gptoss", "mistral"])
def test_tools_are_part_of_the_prompt(name):
    messages = [
        {"role": "user", "content": "the"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "abcdefghi",
                    "type": "function",
                    "function": {"name": "look", "arguments": {"a": "<|im_end|>"}},
                }
            ],
        },
    ]
    found = encoder(name).encode({"messages": messages, "tools": TOOLS})
    messages[1]["content"] = ""
    text = said(name, messages, 1)
    assert trained(encoder(name), found) == [text]
    assert found.stops


def test_a_call_that_the_template_leaves_out_is_refused():
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "tool_calls": [call]},
    ]
    with pytest.raises(MaskError, match="leaves out the tool call in message 2"):
        encoder("chatml").encode({"messages": messages})


@pytest.mark.parametrize(
    ("name", "roles", "fact"),
    [
        ("gemma2", "system user assistant", "System role not supported"),
        ("mistral", "user user assistant", "must alternate"),
        ("phi3", "user tool assistant", None),
        ("chatml", "assistant", None),
        ("chatml", "user", "no token of it is to be trained"),
        ("gptoss", "user tool assistant", "not called"),
    ],
)
def test_rows_that_a_template_refuses_say_why_and_the_others_go_on(name, roles, fact):
    row = {"messages": [{"role": role, "content": "a"} for role in roles.split()]}
    good = {"messages": [{"role": role, "content": "a"} for role in ("user", "assistant")]}
    first, second, third = encoder(name).encode_many([good, row, good])
    assert first == third
    assert first.stops
    if fact is None:
        assert second.stops
    else:
        assert isinstance(second, MaskError)
        assert fact in str(second)


def test_all_tokens_that_end_an_answer_are_trained():
    """As in Command R: one token ends the answer, another one the turn."""
    raw = tokenizer("bytes", "<s> <eot> <user> <bot> <eor>")
    two = (
        "{% for m in messages %}{{ '<user>' + m.content + '<eot>' if m.role == 'user' else "
        "'<bot>' + m.content + '<eor><eot>' }}{% endfor %}"
        "{% if add_generation_prompt %}<bot>{% endif %}"
    )
    made = Encoder(raw, two)
    messages = [{"role": role, "content": "a"} for role in ("user", "assistant") * 2]
    found = made.encode({"messages": messages})
    assert trained(made, found) == ["a<eor><eot>"] * 2
    assert found.stops
    raw.chat_template = two
    assert not any(one.wrong for one in check_template(raw))


def test_the_header_of_the_next_message_is_no_stop_token():
    """As in GLM: nothing ends an answer, and the next message begins with a token."""
    raw = tokenizer("bytes", "<s> </s> <user> <bot>")
    none = (
        "{% for m in messages %}{{ ('<user>' if m.role == 'user' else '<bot>') + m.content }}"
        "{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
    )
    made = Encoder(raw, none)
    messages = [{"role": role, "content": "a"} for role in ("user", "assistant") * 2]
    found = made.encode({"messages": messages})
    assert trained(made, found) == ["a", "a"]
    assert not found.stops


def test_content_may_be_a_list_of_texts_but_nothing_else():
    made = encoder("chatml")
    parts = [{"type": "text", "text": "the "}, {"type": "text", "text": "answer"}]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": parts}]
    assert trained(made, made.encode({"messages": messages})) == ["the answer<|im_end|>"]
    messages[0]["content"] = [{"type": "image", "url": "x"}]
    with pytest.raises(MaskError, match="not text"):
        made.encode({"messages": messages})


def test_a_template_that_hides_the_answer_is_refused():
    shown = "{% if m.role == 'user' %}{{ m.content }}{% endif %}"
    hides = "{% for m in messages %}{{ m.role }}" + shown + "{% endfor %}"
    made = Encoder(family("chatml")[0], hides)
    row = {"messages": [{"role": role, "content": "zz"} for role in ("user", "assistant")]}
    with pytest.raises(MaskError, match="leaves out messages"):
        made.encode(row)


def test_a_template_that_turns_answers_around_is_refused():
    turns = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | reverse if m.content"
        " | length > 10 and m.role == 'assistant' else m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    made = Encoder(family("chatml")[0], turns)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "0123456789abc"}]
    assert trained(made, made.encode({"messages": messages})) == ["cba9876543210<|im_end|>"]


def test_no_chat_template_is_said_for_each_conversation_and_texts_still_work():
    raw = tokenizer("bytes", "<s> </s>")
    found = Encoder(raw).encode_many(
        [{"messages": [{"role": "user", "content": "a"}]}, {"text": "a"}]
    )
    assert "no chat template" in str(found[0])
    assert found[1].labels[-1] == raw.eos_token_id


def test_texts_are_trained_whole_and_end_with_eos():
    for name in ("chatml", "mistral"):
        made = encoder(name)
        for text in ("the answer", f"the answer{made.tokenizer.eos_token}"):
            found = made.encode({"text": text})
            assert found.labels == found.input_ids
            assert found.input_ids.count(made.tokenizer.eos_token_id) == 1
            assert found.input_ids[-1] == made.tokenizer.eos_token_id
            assert found.stops
        short = Encoder(made.tokenizer, max_length=2).encode({"text": "the answer is 42"})
        assert short.truncated
        assert not short.stops


@pytest.mark.parametrize("name", ["chatml", "mistral", "gemma2"])
@QUICK
@given(prompt=texts("chatml"), completion=texts("chatml"))
def test_of_a_prompt_with_a_completion_the_completion_and_eos_are_trained(name, prompt, completion):
    made = encoder(name)
    found = made.encode({"prompt": prompt, "completion": completion})
    raw, stop = made.tokenizer.backend_tokenizer, made.tokenizer.eos_token
    size = found.labels.count(IGNORED)
    assert found.input_ids[:size] == raw.encode(prompt).ids
    text = shown(name, completion if completion.endswith(stop) else completion + stop)
    if prompt:  # without, a tokenizer that puts a space before texts takes one away
        assert trained(made, found) == [text]


def test_tokens_are_taken_as_they_are():
    made = encoder("chatml")
    stop = made.tokenizer.eos_token_id
    found = made.encode({"input_ids": [1, 2, stop], "labels": [IGNORED, 2, stop]})
    assert (found.input_ids, found.labels, found.stops) == ([1, 2, stop], [IGNORED, 2, stop], True)
    assert made.encode({"input_ids": [1, 2]}).labels == [1, 2]
    with pytest.raises(MaskError, match="3 input_ids and 1 labels"):
        made.encode({"input_ids": [1, 2, 3], "labels": [1]})


@pytest.mark.parametrize("on_long", ["drop", "error"])
def test_rows_that_are_too_long_are_told_apart(on_long):
    made = Encoder(*family("chatml"), max_length=4, on_long=on_long)
    with pytest.raises(TooLong, match="and 4 are allowed"):
        made.encode({"text": "0123456789"})


def test_marks_of_the_template_decide_but_the_line_end_is_never_trained():
    marked = (TEMPLATES / "chatml_marked.jinja").read_text("utf-8")
    without_stop = marked.replace(
        " + '<|im_end|>\\n' }}\n{%- endgeneration %}",
        " }}\n{%- endgeneration %}\n{{- '<|im_end|>\\n' }}",
    )
    assert without_stop != marked
    made = Encoder(family("chatml")[0], without_stop)
    messages = [{"role": role, "content": "zz"} for role in ("user", "assistant")]
    found = made.encode({"messages": messages})
    assert trained(made, found) == ["zz"]
    assert not found.stops


@pytest.mark.parametrize("name", FAMILIES)
def test_the_audit_finds_the_token_that_ends_an_answer(name):
    raw, template = family(name)
    stop = STOPS.get(name, "<|im_end|>")
    raw.chat_template = template
    found = {one.name: one for one in check_template(raw, raw.convert_tokens_to_ids(stop))}
    assert stop in found["stop"].fact
    assert not any(one.wrong for one in found.values())
    wrong = [one.name for one in check_template(raw, 0) if one.wrong]
    assert wrong == ["generation"]
    assert ("prompt" in found) == (name == "deepseek")
    assert ("marks" in found) == (name == "chatml_marked")


def test_the_audit_says_what_is_missing():
    raw = tokenizer("bytes", "<s> </s>", "<x>")
    assert [(one.name, one.wrong) for one in check_template(raw)] == [("template", True)]
    raw.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert [(one.name, one.wrong) for one in check_template(raw)] == [("stop", True)]


# Beside TRL


def masks(name: str, raw, messages: list) -> tuple[list, list]:
    found = raw.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    ids = found["input_ids"]
    return ids, [i if on else IGNORED for i, on in zip(ids, found["assistant_masks"], strict=True)]


SAFE = [word for word in PLAIN if word.strip()]


TRL_TRAINS_TOO = {  # what it trains beside the answers and their stop tokens
    "llama3": set(),
    "gemma": {"<end_of_turn>\n"},
    "gemma3": {"<end_of_turn>\n"},
    "phi3": {"<|end|><|endoftext|>"},
    "qwen2_5": {"assistant\n", "<|im_end|>\n"},
    "qwen3": {"<|im_end|>\n"},
}


@pytest.mark.parametrize("theirs", TRL_TRAINS_TOO)
@settings(QUICK, max_examples=20)
@given(data=st.data())
def test_the_mask_of_trl_is_the_same_but_for_what_is_never_generated(theirs, data):
    """With its training templates: a line end behind the stop token, or one of the header."""
    trl = pytest.importorskip("trl.chat_template_utils")
    name = {"llama3": "llama31", "gemma": "gemma2", "qwen2_5": "qwen25"}.get(theirs, theirs)
    raw, _ = family(name)
    words = st.lists(st.sampled_from(SAFE), min_size=1, max_size=4).map(" ".join)
    messages = []
    for _ in range(data.draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": data.draw(words)})
        messages.append({"role": "assistant", "content": data.draw(words)})
    raw.chat_template = getattr(trl, f"{theirs}_training_chat_template")
    ids, labels = masks(name, raw, messages)
    found = Encoder(raw, raw.chat_template).encode({"messages": messages})
    assert found.input_ids == ids
    more = [index for index in range(len(ids)) if labels[index] != found.labels[index]]
    assert {raw.decode(ids[index - 1 : index + 1]) for index in more} == TRL_TRAINS_TOO[theirs]


def test_where_masks_by_offsets_are_wrong():
    """The first token of the span is looked up by its first character, which none may have."""
    raw, _ = family("smollm2")
    marked = (TEMPLATES / "chatml_marked.jinja").read_text("utf-8")
    raw.chat_template = marked
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": " the answer"}]
    _, labels = masks("smollm2", raw, messages)
    assert set(labels) == {IGNORED}
    made = Encoder(raw, marked)
    assert trained(made, made.encode({"messages": messages})) == [" the answer<|im_end|>"]
    raw, _ = family("chatml")
    raw.chat_template = marked
    messages[1]["content"] = "\n\nthe answer"
    _, labels = masks("chatml", raw, messages)
    theirs = [label for label in labels if label != IGNORED]
    assert raw.decode(theirs).startswith("\n\n\nthe answer")  # the first is the header's
    made = Encoder(raw, marked)
    assert trained(made, made.encode({"messages": messages})) == ["\n\nthe answer<|im_end|>"]
