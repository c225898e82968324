"""Shapes of rows: each is told from the others and becomes its one form; real data sets too."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from demos import UnreachableError, demo_sets
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.reading.folder import files_of
from runner.data.reading.lines import BadRow
from runner.data.reading.read import read
from runner.data.shapes.conversations import ROLES
from runner.data.shapes.table import SHAPES, convert, detect

Row = dict[str, Any]


def said(role: str, content: str, **more: Any) -> Row:
    return {"role": role, "content": content, **more}


def call(name: str, **arguments: Any) -> Row:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def bad(shape: str, row: Row, columns: Mapping[str, str] | None = None) -> str:
    with pytest.raises(BadRow) as error:
        convert(shape, row, columns or {})
    return str(error.value)


def chat(shape: str, row: Row, columns: Mapping[str, str] | None = None) -> Any:
    return convert(shape, row, columns or {})["messages"]


HI = [said("user", "Hi"), said("assistant", "Hello")]


# Messages


def test_messages_stay_what_they_are() -> None:
    messages = [
        said("system", "Be brief."),
        said("user", "Hi", name="Ann"),
        said("assistant", "", tool_calls=[{"id": "1", **call("now", zone="UTC")}], weight=0.0),
        said("tool", "12:00", tool_call_id="1", name="now"),
        said("assistant", "Noon.", reasoning_content="It says 12.", weight=0.5),
    ]
    tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    row = {"messages": messages, "tools": tools}
    assert convert("messages", row, {}) == row


def test_nulls_in_messages_are_what_columns_of_structs_put_there() -> None:
    padded = [{**m, "name": None, "tool_calls": None, "weight": None, "thinking": None} for m in HI]
    assert chat("messages", {"messages": padded, "tools": None}) == HI


@pytest.mark.parametrize(
    "content",
    [
        "Hello",
        [{"type": "text", "text": "Hello"}],
        [{"type": "text", "value": "Hel"}, {"type": "text", "text": "lo", "value": None}],
    ],
)
def test_a_content_may_be_a_text_or_parts(content: Any) -> None:
    assert chat("messages", {"messages": [HI[0], said("assistant", content)]}) == HI


def test_reasoning_and_calls_may_be_parts_or_keys() -> None:
    parts = [
        {"type": "reasoning", "value": "Let me look."},
        {"type": "tool_call", "value": '{"name": "now", "arguments": {"zone": "UTC"}}'},
    ]
    ends = [said("tool", "12"), said("assistant", "Noon")]
    expected = said(
        "assistant", "", reasoning_content="Let me look.", tool_calls=[call("now", zone="UTC")]
    )
    keys = {
        "role": "assistant",
        "content": None,
        "thinking": "Let me look.",
        "tool_calls": [{"function": {"name": "now", "arguments": '{"zone": "UTC"}'}}],
    }
    for message in (said("assistant", parts), keys):
        messages = [HI[0], message, *ends]  # type: ignore[list-item]
        assert chat("messages", {"messages": messages})[1] == expected


@pytest.mark.parametrize(
    ("key", "value", "weight"),
    [("weight", 0, 0.0), ("loss_weight", 0.5, 0.5), ("train", False, 0.0), ("train", True, 1.0)],
)
def test_a_message_may_have_a_weight(key: str, value: Any, weight: float) -> None:
    messages = [HI[0], {**HI[1], key: value}]
    assert chat("messages", {"messages": messages})[1] == {**HI[1], "weight": weight}


def test_a_conversation_may_be_a_json_text_as_in_csv() -> None:
    row = {"messages": json.dumps(HI), "tools": "[]"}
    assert detect(row, row) is SHAPES["messages"]
    assert convert("messages", row, {}) == {"messages": HI}


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "messages is an empty list."),
        ("Hi", "messages must be a list, not 'Hi'."),
        (["Hi"], "messages[0] must be a message with a role and a content, not 'Hi'."),
        (HI[:1], "has no message of the assistant: there is nothing to learn."),
        ([*HI, HI[0]], "ends with a message of the role user; the last must be the assistant's."),
        (
            [said("usr", "Hi"), HI[1]],
            'messages[0] has the role "usr", which is none. Did you mean "user"?',
        ),
        (
            [{"content": "Hi"}, HI[1]],
            'messages[0] has the role "None", which is none. '
            "The roles are system, developer, user, human, assistant, gpt, model, function_call, "
            "tool, observation, function, function_response.",
        ),
        ([HI[0], {"role": "assistant"}], "messages[1] has no content."),
        ([HI[0], said("assistant", None)], "messages[1] has no content."),
        ([HI[0], said("assistant", 7)], "messages[1].content must be a text, not 7."),
        (
            [said("user", [{"type": "image_url", "image_url": "x"}]), HI[1]],
            "messages[0].content has a part of the type image_url; only text is read.",
        ),
        (
            [HI[0], {**HI[1], "weight": -1}],
            "messages[1].weight must be a number from 0 on, not -1.",
        ),
        (
            [{**HI[0], "tool_calls": [call("now")]}, HI[1]],
            "messages[0] calls a tool, and is not the assistant's.",
        ),
        (
            [HI[0], {**HI[1], "tool_calls": [{"function": {"name": "f", "arguments": "[1"}}]}],
            "messages[1].content: the arguments of f must be a mapping.",
        ),
    ],
)
def test_what_is_wrong_with_a_conversation_is_said(messages: Any, says: str) -> None:
    assert bad("messages", {"messages": messages}) == says


def test_pictures_are_refused_and_not_dropped() -> None:
    row = {"messages": HI, "images": ["a.png"]}
    assert bad("messages", row) == "has images; only text is read."
    assert chat("messages", {"messages": HI, "images": []}) == HI


# ShareGPT


def test_sharegpt_becomes_a_chat() -> None:
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "What time is it?"},
        {"from": "function_call", "value": '{"name": "now", "arguments": {"zone": "UTC"}}'},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": "Noon.", "weight": 1},
    ]
    tools = '[{"name": "now", "parameters": {}}]'
    assert convert("sharegpt", {"conversations": turns, "tools": tools}, {}) == {
        "messages": [
            said("system", "Be brief."),
            said("user", "What time is it?"),
            said("assistant", "", tool_calls=[call("now", zone="UTC")]),
            said("tool", "12"),
            said("assistant", "Noon.", weight=1.0),
        ],
        "tools": [{"type": "function", "function": {"name": "now", "parameters": {}}}],
    }


def test_sharegpt_may_have_role_and_content_and_several_calls_at_once() -> None:
    assert chat("sharegpt", {"conversation": HI}) == HI
    calls = '[{"name": "a", "arguments": "{}"}, {"name": "b"}]'
    turns = [HI[0], {"from": "function_call", "value": calls}]
    messages = chat("sharegpt", {"conversations": turns})
    assert messages[1]["tool_calls"] == [call("a"), call("b")]
    turns[1]["value"] = "now()"
    assert "must call a tool by its name" in bad("sharegpt", {"conversations": turns})


def test_a_system_column_opens_the_conversation_once() -> None:
    system = said("system", "Be brief.")
    assert chat("sharegpt", {"conversations": HI, "system": "Be brief."}) == [system, *HI]
    assert chat("messages", {"messages": HI, "system": ""}) == HI
    assert chat("messages", {"messages": [system, *HI], "system": "Be brief."}) == [system, *HI]
    assert "another in the conversation" in bad(
        "messages", {"messages": [system, *HI], "system": "Be long."}
    )


# Columns of texts


def test_alpaca_becomes_a_chat() -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "system": "S", "history": None}
    assert chat("alpaca", row) == [
        said("system", "S"),
        said("user", "Add.\n1 2"),
        said("assistant", "3"),
    ]
    history = [["Hi", "Hello"]]
    row = {"instruction": "Add.", "input": None, "output": "3", "history": history}
    assert chat("alpaca", row) == [*HI, said("user", "Add."), said("assistant", "3")]
    assert "pairs" in bad("alpaca", {**row, "history": [["Hi"]]})


@pytest.mark.parametrize("question", ["question", "query", "prompt"])
@pytest.mark.parametrize("answer", ["answer", "response"])
def test_a_question_and_its_answer_become_a_chat(question: str, answer: str) -> None:
    row = {question: "Hi", answer: "Hello"}
    assert detect(row, row) is SHAPES["question_answer"]
    assert chat("question_answer", row) == HI
    assert chat("question_answer", {**row, "context": "C"})[0] == said("user", "C\n\nHi")


def test_placeholders_stay_as_they_are() -> None:
    row = {"instruction": "Who?", "input": "", "output": "I am {{name}} by {{author}}."}
    assert chat("alpaca", row)[1]["content"] == "I am {{name}} by {{author}}."


def test_prompt_and_completion_stay_two_texts_or_become_a_chat() -> None:
    assert convert("prompt_completion", {"prompt": "a", "completion": "b"}, {}) == {
        "prompt": "a",
        "completion": "b",
    }
    for text in ("[]", "{}", "[1, 2]", '{"a": [}'):
        row = {"prompt": text, "completion": text}
        assert convert("prompt_completion", row, {}) == row
    before = [*HI, said("user", "More")]
    for completion in ("Sure", [said("assistant", "Sure")]):
        assert chat("prompt_completion", {"prompt": before, "completion": completion}) == [
            HI[0],
            {**HI[1], "weight": 0.0},
            said("user", "More"),
            said("assistant", "Sure"),
        ]
    assert chat("prompt_completion", {"prompt": "Hi", "completion": HI[1:]}) == HI


def test_text_and_tokens_stay_what_they_are() -> None:
    assert convert("text", {"text": "a", "url": "b"}, {}) == {"text": "a"}
    assert bad("text", {"text": 3}) == "text must be a text, not 3."
    row = {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}
    assert convert("tokens", row, {}) == row
    assert convert("tokens", {**row, "attention_mask": [0, 1, 1]}, {}) == {
        "input_ids": [2, 3],
        "labels": [2, 3],
    }
    assert bad("tokens", {**row, "labels": [1]}) == "labels has 1 values, input_ids has 3."
    assert bad("tokens", {"input_ids": [1, "a"]}) == "input_ids must be a list of whole numbers."
    assert bad("tokens", {"input_ids": []}) == "input_ids is an empty list."


# Preferences

BETTER, WORSE = said("assistant", "Hello"), said("assistant", "Go")
PAIR = {"prompt": HI[:1], "chosen": [BETTER], "rejected": [WORSE]}


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"prompt": "Hi", "chosen": "Hello", "rejected": "Go"},
        {"question": "Hi", "chosen": "Hello", "rejected": "Go"},
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "Go"},
        {"prompt": "Hi", "chosen": [HI[0], BETTER], "rejected": [HI[0], WORSE]},
        {"chosen": [HI[0], BETTER], "rejected": [HI[0], WORSE]},
        {"chosen_messages": [HI[0], BETTER], "rejected_messages": [HI[0], WORSE]},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go"},
        },
        {
            "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi\n\nAssistant: Go",
        },
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": "Hello", "rejected": "Go"},
    ],
)
def test_every_form_of_a_preference_becomes_prompt_chosen_and_rejected(row: Row) -> None:
    assert detect(row, row) is SHAPES["preference"]
    assert convert("preference", row, {}) == PAIR


def test_answers_may_part_after_the_prompt_and_carry_tools() -> None:
    row = {**PAIR, "system": "S", "tools": [{"name": "now"}]}
    made = convert("preference", row, {})
    assert made["prompt"] == [said("system", "S"), HI[0]]
    assert made["tools"] == [{"type": "function", "function": {"name": "now"}}]
    longer = {"chosen": [*HI, HI[0], BETTER], "rejected": [*HI, HI[0], WORSE]}
    assert convert("preference", longer, {})["prompt"] == [*HI, HI[0]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rejected": [BETTER]}, "has the same answer as chosen and as rejected."),
        ({"prompt": None}, "has no prompt: chosen and rejected do not begin alike"),
        ({"prompt": HI}, "has a prompt that ends with a message of the assistant."),
        ({"chosen": [BETTER, HI[0]]}, "chosen must end with a message of the assistant."),
        ({"chosen": []}, "chosen is an empty list."),
        ({"chosen": None}, 'has null in the column "chosen".'),
    ],
)
def test_what_is_wrong_with_a_preference_is_said(change: Row, says: str) -> None:
    assert says in bad("preference", {**PAIR, **change})


JUDGED = {"prompt": [HI[0]], "completion": [BETTER], "label": True}


@pytest.mark.parametrize(
    "row",
    [
        JUDGED,
        {"prompt": "Hi", "completion": "Hello", "label": True},
        {"question": "Hi", "completion": BETTER, "label": True},
        {"completion": [HI[0], BETTER], "label": True},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "completion": "Hello", "label": True},
    ],
)
def test_every_form_of_an_answer_with_a_label_becomes_prompt_completion_and_label(row: Row) -> None:
    assert detect(row, row) is SHAPES["unpaired"]
    assert convert("unpaired", row, {}) == JUDGED


@pytest.mark.parametrize(
    ("label", "made"), [("True", True), ("false", False), (0, False), ("1", True), (True, True)]
)
def test_labels_may_be_words_and_numbers_where_the_shape_is_named(label: Any, made: bool) -> None:
    assert convert("unpaired", {**JUDGED, "label": label}, {})["label"] is made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "good"}, "label must be true or false, not 'good'."),
        ({"label": 0.5}, "label must be true or false, not 0.5."),
        ({"label": None}, 'has null in the column "label".'),
        ({"prompt": None}, "has no prompt."),
        ({"prompt": HI}, "has a prompt that ends with a message of the assistant."),
        ({"completion": [BETTER, HI[0]]}, "completion must end with a message of the assistant."),
    ],
)
def test_what_is_wrong_with_an_answer_and_its_label_is_said(change: Row, says: str) -> None:
    assert says in bad("unpaired", {**JUDGED, **change})


def test_a_label_that_is_no_truth_value_is_a_note() -> None:
    row = {"prompt": "Hi", "completion": "Hello", "label": 1}
    assert detect(row, row) is SHAPES["prompt_completion"]


# Columns


def test_columns_are_renamed() -> None:
    row = {"frage": "Hi", "antwort": "Hello", "question": "another"}
    assert chat("question_answer", row, {"question": "frage", "answer": "antwort"}) == HI


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        (
            {"question": "a", "anwser": "b"},
            {},
            'has no column "answer". Did you mean "anwser"?',
        ),
        ({"question": "a", "x": "b"}, {}, 'has no column "answer". It has: question, x.'),
        ({"frage": "a"}, {"question": "frgae"}, 'has no column "frgae". Did you mean "frage"?'),
        ({"question": None, "answer": "b"}, {}, 'has null in the column "question".'),
        (
            {"question": "a", "answer": "b"},
            {"system": "sys"},
            'has no column "sys". It has: question, answer.',
        ),
        (
            {"question": "a", "answer": "b"},
            {"qustion": "question"},
            'is read as question_answer, which has no column "qustion". Did you mean "question"?',
        ),
    ],
)
def test_a_missing_column_is_named_with_a_guess(row: Row, columns: Row, says: str) -> None:
    assert bad("question_answer", row, columns) == says


# Telling shapes apart

words = st.text(max_size=9)
spoken = st.sampled_from(sorted(ROLES))
openai = st.lists(st.fixed_dictionaries({"role": spoken, "content": words}), min_size=1)
human = st.lists(st.fixed_dictionaries({"from": spoken, "value": words}), min_size=1)
numbers = st.lists(st.integers(0, 9), min_size=1)
answers = words | openai | openai.map(lambda messages: messages[0])

ROWS = {
    "messages": st.fixed_dictionaries(
        {"messages": openai}, optional={"tools": words, "text": words, "prompt": words}
    ),
    "sharegpt": st.fixed_dictionaries(
        {"conversations": openai | human}, optional={"tools": words, "system": words}
    ),
    "alpaca": st.fixed_dictionaries(
        {"instruction": words, "output": words}, optional={"input": words, "text": words}
    ),
    "prompt_completion": st.fixed_dictionaries(
        {"prompt": words | openai, "completion": words | openai}
    ),
    "question_answer": st.fixed_dictionaries(
        {"question": words, "answer": words}, optional={"text": words}
    ),
    "text": st.fixed_dictionaries({"text": words}),
    "tokens": st.fixed_dictionaries(
        {"input_ids": numbers}, optional={"labels": numbers, "attention_mask": numbers}
    ),
    "unpaired": st.fixed_dictionaries(
        {"completion": answers, "label": st.booleans()}, optional={"prompt": words | openai}
    ),
    "preference": st.fixed_dictionaries(
        {"chosen": answers, "rejected": answers},
        optional={"prompt": words | openai, "conversations": human},
    ),
}
notes = st.dictionaries(
    st.sampled_from(["id", "source", "url", "score", "label"]), words | st.integers() | st.none()
)


def test_every_shape_is_tried() -> None:
    assert set(ROWS) == set(SHAPES)


@pytest.mark.parametrize("shape", ROWS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_shape_is_taken_for_another(shape: str, data: st.DataObject) -> None:
    row = {**data.draw(notes), **data.draw(ROWS[shape])}
    columns = data.draw(st.permutations(sorted(row)))
    assert detect(columns, row) is SHAPES[shape]


@pytest.mark.parametrize("shape", ROWS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_row_becomes_its_canonical_form_or_a_bad_row(shape: str, data: st.DataObject) -> None:
    keys = {
        "chat": {"messages", "tools"},
        "completion": {"messages", "tools", "prompt", "completion"},
        "text": {"text"},
        "tokens": {"input_ids", "labels"},
        "preference": {"prompt", "chosen", "rejected", "tools"},
        "unpaired": {"prompt", "completion", "label", "tools"},
    }
    try:
        made = convert(shape, data.draw(ROWS[shape]), {})
    except BadRow:
        return
    assert made.keys() <= keys[SHAPES[shape].gives]
    assert json.loads(json.dumps(made)) == made


@settings(max_examples=60, deadline=None)
@given(ends=st.lists(st.sampled_from(["user", "tool", "system", "assistant"]), max_size=6))
def test_a_chat_in_canonical_form_stays_as_it_is(ends: list[str]) -> None:
    messages = [said(role, "x") for role in [*ends, "assistant"]]
    row = {"messages": messages}
    assert convert("messages", row, {}) == row


def test_null_values_leave_the_columns_to_say_the_shape() -> None:
    assert detect(["text", "id"], {"text": None, "id": 1}) is SHAPES["text"]


@pytest.mark.parametrize(
    "row", [{}, {"a": 1}, {"messages": ["x"]}, {"text": ["x"]}, {"chosen": 3.5, "rejected": 1}]
)
def test_rows_of_no_shape_are_of_none(row: Row) -> None:
    assert detect(row, row) is None


# Real data


@pytest.fixture(scope="session")
def demos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration sets, downloaded once."""
    cache = getattr(request.config, "cache", None)
    try:
        return demo_sets(cache.mkdir("llamafactory") if cache else tmp_path_factory.mktemp("kept"))
    except UnreachableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("alpaca_en_demo.json", "alpaca", 999),
        ("alpaca_zh_demo.json", "alpaca", 1000),
        ("identity.json", "alpaca", 91),
        ("dpo_en_demo.json", "preference", 300),
        ("dpo_zh_demo.json", "preference", 300),
        ("v1_dpo_demo.jsonl", "preference", 10),
        ("glaive_toolcall_en_demo.json", "sharegpt", 300),
        ("glaive_toolcall_zh_demo.json", "sharegpt", 300),
        ("kto_en_demo.json", "messages", 300),
        ("v1_sft_demo.jsonl", "messages", 500),
        ("reason_tool_use_demo_50.jsonl", "messages", 50),
        ("c4_demo.jsonl", "text", 300),
        ("wiki_demo.txt", "text", 30),
    ],
)
def test_real_data_is_read_without_any_option(
    demos: Path, name: str, shape: str, count: int
) -> None:
    made = []
    for place, row in read(demos / name, demos):
        assert not isinstance(row, BadRow), place
        found = detect(row, row)
        assert found is SHAPES[shape]
        made.append(convert(found.name, row, {}))
    assert len(made) == count
    assert json.loads(json.dumps(made)) == made


def converted(demos: Path, name: str, shape: str) -> list[Any]:
    return [convert(shape, row, {}) for _, row in read(demos / name, demos)]  # type: ignore[arg-type]


def test_real_tool_calls_reasoning_and_weights_are_kept(demos: Path) -> None:
    glaive = converted(demos, "glaive_toolcall_en_demo.json", "sharegpt")
    calls = [c for row in glaive for m in row["messages"] for c in m.get("tool_calls", [])]
    assert len(calls) == 211
    assert all(isinstance(each["function"]["arguments"], dict) for each in calls)
    roles = Counter(m["role"] for row in glaive for m in row["messages"])
    assert roles == {"user": 746, "assistant": 746 + 211, "tool": 211}
    assert sum("tools" in row for row in glaive) == 300 - 109
    reasoned = converted(demos, "reason_tool_use_demo_50.jsonl", "messages")
    answers = [m for row in reasoned for m in row["messages"] if m["role"] == "assistant"]
    assert len(answers) == 112
    assert all(m["reasoning_content"] for m in answers)
    assert sum(len(m.get("tool_calls", [])) for m in answers) == 41 + 2 * 9 + 3 * 3
    weighed = converted(demos, "v1_sft_demo.jsonl", "messages")
    assert {(m["role"], m["weight"]) for row in weighed for m in row["messages"]} == {
        ("user", 0.0),
        ("assistant", 1.0),
    }


def test_placeholders_of_real_data_stay_as_they_are(demos: Path) -> None:
    first = converted(demos, "identity.json", "alpaca")[0]
    assert "I am {{name}}, an AI assistant developed by {{author}}" in json.dumps(first)


def test_a_folder_of_many_sets_gives_all_its_tables(demos: Path) -> None:
    found = [path.name for path in files_of(demos, None)]
    assert len(found) == 16
    assert {"alpaca_en_demo.json", "v1_sft_demo.jsonl", "c4_demo.jsonl"} < set(found)
    assert not {"dataset_info.json", "wiki_demo.txt", "README.md"} & set(found)
    picture = next(row for _, row in read(demos / "mllm_demo.json", demos))
    assert not isinstance(picture, BadRow)
    assert bad("messages", picture) == "has images; only text is read."
