"""Declared filters: what each drops, that repeats are found, and that a crash changes nothing."""

import json
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.data.cleaning.clean import Filters, Leaks, build_filters, keyed_filters, source_digest
from runner.data.cleaning.near import Near, band_size
from runner.data.cleaning.text import cleaned, texts, words
from runner.errors import StepError

VOCABULARY = [f"word{number}" for number in range(3000)]
SENTENCE = (
    "the quick brown fox jumps over the lazy dog while seven wizards brew a dark potion at dusk"
)


def chat(user, assistant, system=None):
    first = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [
            *first,
            {"role": "user", "content": user},
            {"role": "assistant", "content": assistant},
        ]
    }


def said(text):
    return {"text": text}


def placed(examples):
    return [(f"rows.jsonl:{number}", example) for number, example in enumerate(examples, start=1)]


def made(tmp_path, *declared):
    filters, faults = build_filters(declared, tmp_path)
    assert faults == []
    return filters


def kept(tmp_path, declared, examples, **more):
    filters = Filters(made(tmp_path, *declared), seed=0, **more)
    return [example for _, example in filters.apply(placed(examples))], filters


def faults_of(tmp_path, *declared):
    filters, faults = build_filters(declared, tmp_path)
    assert len(filters) + len({fault.where[1] for fault in faults}) == len(declared)
    return [(".".join(fault.where), fault.fact, fault.guess) for fault in faults]


# Which text a filter looks at


@pytest.mark.parametrize(
    ("example", "everything", "user", "assistant"),
    [
        (chat("ask", "tell", system="be"), ["be", "ask", "tell"], ["ask"], ["tell"]),
        ({"prompt": "ask", "completion": "tell"}, ["ask", "tell"], ["ask"], ["tell"]),
        ({"text": "prose"}, ["prose"], [], []),
        ({"input_ids": [1, 2]}, [], [], []),
        (
            {
                "prompt": [{"role": "user", "content": "ask"}],
                "chosen": [{"role": "assistant", "content": "good"}],
                "rejected": [{"role": "assistant", "content": "bad"}],
            },
            ["ask", "good", "bad"],
            ["ask"],
            ["good", "bad"],
        ),
    ],
)
def test_the_text_of_every_shape_is_found(example, everything, user, assistant):
    assert texts(example) == everything
    assert texts(example, "user") == user
    assert texts(example, "assistant") == assistant


def test_calls_of_tools_reasoning_and_parts_of_content_are_text():
    call = {"function": {"name": "add", "arguments": {"b": 2, "a": 1}}}
    example = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "image"}]},
            {"role": "assistant", "content": None, "thinking": "hm", "tool_calls": [call]},
        ]
    }
    assert texts(example, "user") == ["one"]
    assert texts(example, "assistant") == ["hm", json.dumps([call], sort_keys=True)]


def test_words_have_no_case_and_no_punctuation_and_scripts_without_spaces_have_them_too():
    assert words(["Don't  PANIC,", "ﬁne"]) == ["don", "t", "panic", "fine"]
    assert words(["日本語 text"]) == ["日", "本", "語", "text"]


# Each filter


def test_unicode_puts_text_in_one_form_and_counts_what_it_changed(tmp_path):
    rows = [chat("cafe\u0301\r\n\x00now\ufeff", "fine\u2028print"), chat("plain", "text")]
    result, filters = kept(tmp_path, [{"kind": "unicode"}], rows)
    assert result == [chat("caf\u00e9\nnow", "fine\nprint"), chat("plain", "text")]
    assert filters.counts == [{"kind": "unicode", "rows": 2, "dropped": 0, "changed": 1}]
    assert kept(tmp_path, [{"kind": "unicode", "form": "NFKC"}], [said("x\u00b2")])[0] == [
        said("x2")
    ]


@given(st.text(st.characters()))
def test_what_is_clean_stays_as_it_is(text):
    once = cleaned(text, "NFC")
    assert cleaned(once, "NFC") == once
    once.encode("utf-8")


def test_length_counts_characters_or_words_of_a_side(tmp_path):
    rows = [chat("a b c", "12345"), chat("a", "1234567 8")]
    bounds = {"kind": "length", "at_least": 2, "at_most": 5}
    assert kept(tmp_path, [{**bounds, "of": "assistant"}], rows)[0] == rows[:1]
    assert kept(tmp_path, [{**bounds, "unit": "words"}], rows)[0] == rows[:1] + rows[1:]
    assert kept(tmp_path, [{**bounds, "unit": "words", "of": "user"}], rows)[0] == rows[:1]


def test_regex_drops_what_matches_or_keeps_only_that(tmp_path):
    rows = [chat("hi", "As an AI language model, no"), chat("as an AI language model?", "yes")]
    pattern = "(?i)as an ai language model"
    one = {"kind": "regex", "of": "assistant"}
    result, filters = kept(tmp_path, [{**one, "drop": pattern}], rows)
    assert result == rows[1:]
    assert filters.dropped_examples == [["rows.jsonl:1"]]
    assert kept(tmp_path, [{**one, "keep": pattern}], rows)[0] == rows[:1]


def test_filters_apply_in_the_order_declared_and_each_counts_its_own(tmp_path):
    rows = [said("x" * n) for n in range(6)]
    declared = [{"kind": "length", "at_least": 2}, {"kind": "length", "at_most": 4}]
    result, filters = kept(tmp_path, declared, rows)
    assert result == rows[2:5]
    assert filters.counts == [
        {"kind": "length", "rows": 6, "dropped": 2, "changed": 0},
        {"kind": "length", "rows": 4, "dropped": 1, "changed": 0},
    ]


def test_only_the_first_places_are_kept(tmp_path):
    _, filters = kept(tmp_path, [{"kind": "length", "at_least": 9}], [said("x")] * 9)
    assert filters.dropped_examples == [["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3"]]


@pytest.mark.parametrize("example", [{"input_ids": [1, 2]}, {"text": "prose"}])
def test_a_filter_of_text_that_a_shape_does_not_have_says_so(tmp_path, example):
    declared = [{"kind": "length", "at_least": 1, "of": "user"}]
    with pytest.raises(StepError, match=r"rows.jsonl:1: the filter \"length\" of user finds no"):
        kept(tmp_path, declared, [example])


# Repeats


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def shuffled(value, draw):
    if isinstance(value, dict):
        items = [(key, shuffled(inner, draw)) for key, inner in value.items()]
        draw.shuffle(items)
        return dict(items)
    return [shuffled(inner, draw) for inner in value] if isinstance(value, list) else value


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6), st.randoms())
def test_exact_duplicates_are_found_whatever_the_order_of_keys(tmp_path_factory, examples, draw):
    folder = tmp_path_factory.getbasetemp()
    declared = [{"kind": "duplicates"}]
    once, _ = kept(folder, declared, examples)
    twice, filters = kept(folder, declared, examples + [shuffled(one, draw) for one in examples])
    assert twice == once
    assert filters.counts[0]["dropped"] == 2 * len(examples) - len(once)


def test_exact_duplicates_may_differ_in_spaces_and_unicode_form_but_not_in_words(tmp_path):
    rows = [
        chat("caf\u00e9  now", "ok"),
        chat("cafe\u0301 now\r\n", "ok"),
        chat("Caf\u00e9 now", "ok"),
        chat("caf\u00e9 now", "no"),
    ]
    assert kept(tmp_path, [{"kind": "duplicates"}], rows)[0] == [rows[0], rows[2], rows[3]]
    by_question = [{"kind": "duplicates", "of": "user"}]
    assert kept(tmp_path, by_question, rows)[0] == [rows[0], rows[2]]


def test_tokens_are_compared_as_they_are(tmp_path):
    rows = [{"input_ids": [1, 2]}, {"input_ids": [1, 2]}, {"input_ids": [2, 1]}]
    assert kept(tmp_path, [{"kind": "duplicates"}], rows)[0] == [rows[0], rows[2]]


def prose(draw, count=200):
    return draw.choices(VOCABULARY, k=count)


def edited(draw, of, edits):
    changed = list(of)
    for place in draw.sample(range(len(of)), edits):
        changed[place] = "edited"
    return changed


NEAR = {"kind": "duplicates", "near": True, "threshold": 0.8, "shingle": 5}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_near_duplicates_are_found_and_other_texts_stay(tmp_path, seed):
    draw = random.Random(seed)
    originals = [prose(draw) for _ in range(200)]
    copies = [edited(draw, one, edits=2) for one in originals]  # similarity about 0.9
    others = [edited(draw, one, edits=25) for one in originals]  # about 0.3
    rows = [said(" ".join(one)) for one in originals + others + copies]
    filters = Filters(made(tmp_path, NEAR), seed=seed)
    result = [example for _, example in filters.apply(placed(rows))]
    assert result[:400] == rows[:400]
    assert len(result) <= 402  # of 200 copies, the estimate may miss one or two
    assert kept(tmp_path, [NEAR], [said("A b, c!"), said("a B c"), said("!!!"), said("???")])[
        0
    ] == [said("A b, c!"), said("!!!"), said("???")]


def test_the_estimate_of_a_similarity_is_as_good_as_it_should_be():
    draw, errors = random.Random(0), []
    for edits in range(0, 60, 2):
        one = prose(draw)
        two = edited(draw, one, edits)
        first, second = ({tuple(w[i : i + 5]) for i in range(196)} for w in (one, two))
        near = Near(0.8, 5, seed=edits)
        estimate = (near.signature(one) == near.signature(two)).mean()
        errors.append(estimate - len(first & second) / len(first | second))
    assert abs(sum(errors) / len(errors)) < 0.02
    assert max(map(abs, errors)) < 0.15


def test_a_signature_is_the_same_everywhere_and_of_a_long_text_too():
    near = Near(0.8, 5, seed=3)
    assert near.signature(SENTENCE.split())[:4].tolist() == SIGNATURE
    long = [f"w{number}" for number in range(20_000)]
    assert (near.signature(long) == near.signature(long[:-1])).mean() > 0.98


SIGNATURE = [394294243, 255057972, 341938301, 112675829]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_pairs_at_the_threshold_are_nearly_always_compared(threshold):
    size = band_size(threshold)
    assert 1 - (1 - threshold**size) ** (128 // size) >= 0.9


# Leaks


def test_a_row_that_stands_in_the_rows_held_out_is_found(tmp_path):
    held_out = [chat(SENTENCE, "indeed they do"), said("short one")]
    loud = SENTENCE.upper().replace(" ", " - ")
    rows = [
        chat("tell me", f"once {loud} in the north"),
        said("Short, one!"),
        said("short one more"),
        chat("the quick brown fox", "jumps over something else entirely"),
    ]
    declared = [{"kind": "leak", "ngram": 8}]
    result, filters = kept(tmp_path, declared, rows, held_out=held_out)
    assert result == rows[2:]
    assert filters.counts[0]["dropped"] == 2


def test_an_overlap_is_the_share_of_the_row_or_of_what_is_held_out():
    letters = "a b c d e f g h i j k l m n o p q r s t u v w x y z".split()
    leaks = Leaks([said(" ".join(letters[:12]))], ngram=3, share=0.5)
    assert leaks.overlap(said(" ".join(letters[:12]))) == 1
    assert leaks.overlap(said(" ".join(letters))) == 1  # all that is held out stands in it
    assert leaks.overlap(said(" ".join(letters[:7]))) == 1  # all of it is held out
    assert leaks.overlap(said(" ".join(letters[7:17]))) == pytest.approx(3 / 8)
    assert leaks.overlap(said("nothing of it at all")) == 0
    assert leaks.overlap({"input_ids": [1]}) == 0


def test_system_prompts_and_set_phrases_are_no_leak():
    system = "you are a helpful assistant who answers in one short and friendly sentence each time"
    held_out = [chat(f"{SENTENCE} {n}", f"answer {n}", system=system) for n in range(30)]
    leaks = Leaks(held_out, ngram=8, share=0.5)
    assert leaks.overlap(chat("something new", "and its answer", system=system)) == 0
    assert leaks.overlap(chat(f"{SENTENCE} x", "something else")) < 0.5
    assert leaks.overlap(chat(f"{SENTENCE} 7", "answer 7")) == 1


@given(st.lists(st.sampled_from("abcde"), max_size=12), st.lists(st.sampled_from("abcde")))
def test_an_overlap_is_a_share_and_whole_for_the_row_itself(held_out, row):
    leaks = Leaks([said(" ".join(held_out))], ngram=3, share=0.5)
    assert 0 <= leaks.overlap(said(" ".join(row))) <= 1
    assert leaks.overlap(said(" ".join(held_out))) == (1 if held_out else 0)


# The user's function


def function(tmp_path, body, name="keep"):
    (tmp_path / "mine.py").write_text(f"def {name}(example):\n{body}\n", encoding="utf-8")
    return {"kind": "function", "path": f"mine.py:{name}"}


def test_a_function_keeps_drops_or_changes_a_row(tmp_path):
    body = (
        "    if example['text'] == 'drop':\n        return False\n"
        "    example['text'] = example['text'] + '!'\n"
        "    return True if example['text'] == 'same!' else example"
    )
    rows = [said("drop"), said("same"), said("new")]
    result, filters = kept(tmp_path, [function(tmp_path, body)], rows)
    assert result == [said("same"), said("new!")]
    assert filters.counts == [{"kind": "function", "rows": 3, "dropped": 1, "changed": 1}]
    assert not (tmp_path / "__pycache__").exists()


def test_an_error_in_a_function_names_the_row_and_the_line(tmp_path):
    declared = [function(tmp_path, "    x = 1\n    return example['txt'] is None")]
    with pytest.raises(StepError, match=r"^rows.jsonl:2: mine.py:3: KeyError: 'txt'$"):
        kept(tmp_path, [{"kind": "length", "at_least": 2}, *declared], [said("a"), said("bc")])


def test_an_error_in_the_file_of_a_function_names_the_line(tmp_path):
    declared = function(tmp_path, "    return True\n\nimport sys\nsys.exit(3)")
    with pytest.raises(StepError, match=r"^mine.py:5: SystemExit: 3$"):
        kept(tmp_path, [declared], [])


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        ("    return None", "gave NoneType; it must give true or false, or the example"),
        ("    return 1", "gave int"),
        ("    return {'txt': 'x'}", "gave an example with txt; it must have text"),
        ("    return {'text': 3}", 'gave another kind of "text": 3'),
        ("    return {'text': {1, 2}}", "gave what JSON cannot hold"),
        ("    return {'text': float('nan')}", "gave what JSON cannot hold"),
    ],
)
def test_a_function_can_give_nothing_else(tmp_path, body, fact):
    with pytest.raises(StepError) as caught:
        kept(tmp_path, [function(tmp_path, body)], [said("x")])
    assert f"rows.jsonl:1: mine.py:keep: {fact}" in str(caught.value)


@pytest.mark.parametrize(
    "messages",
    [
        "[]",
        "['x']",
        "[{'content': 'x'}]",
        "[{'role': 'bot', 'content': 'x'}]",
        "[{'role': 'user'}]",
    ],
)
def test_a_function_cannot_make_messages_that_are_none(tmp_path, messages):
    declared = function(tmp_path, f"    return {{'messages': {messages}}}")
    with pytest.raises(StepError, match='another kind of "messages"'):
        kept(tmp_path, [declared], [chat("a", "b")])


def test_the_source_of_a_function_is_in_the_key_and_its_folder_is_not(tmp_path):
    keys = []
    for folder, body in (
        ("a", "    return True"),
        ("b", "    return True"),
        ("b", "    return 1>2"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        declared = function(tmp_path / folder, body)
        keys.append(keyed_filters(made(tmp_path / folder, declared)))
    assert keys[0] == keys[1] != keys[2]
    assert str(tmp_path) not in json.dumps(keys)
    assert keys[2][0]["source"] == source_digest(f"{tmp_path}/b/mine.py:keep")


def test_an_edit_within_the_same_second_counts(tmp_path):
    for body, count in (("    return True ", 1), ("    return False", 0)):
        assert len(kept(tmp_path, [function(tmp_path, body)], [said("x")])[0]) == count


# What a recipe may say


def test_all_faults_are_found_at_once_with_their_places(tmp_path):
    function(tmp_path, "    return True")
    (tmp_path / "bad.py").write_text("def keep(:\n", encoding="utf-8")
    assert faults_of(
        tmp_path,
        {"kind": "lenght"},
        {"kind": "length"},
        {"kind": "length", "at_lest": 3},
        {"kind": "length", "at_least": 9, "at_most": 3},
        {"kind": "regex", "drop": "(", "of": "assistant"},
        {"kind": "regex"},
        {"kind": "duplicates", "threshold": 0.5},
        {"kind": "duplicates", "near": True, "threshold": 1.5},
        {"kind": "function", "path": "mine.py:kep"},
        {"kind": "function", "path": "gone.py:keep"},
        {"kind": "function", "path": "mine.py"},
        {"kind": "unicode"},
        "unicode",
    ) == [
        ("filters.0.kind", 'There is no filter "lenght".', 'Did you mean "length"?'),
        ("filters.1", "filters.1 needs at_least, at_most or both.", ""),
        (
            "filters.2.at_lest",
            'filters.2 has no option "at_lest".',
            'Did you mean "at_least"?',
        ),
        ("filters.3", "filters.3: at_least is more than at_most, so no row would stay.", ""),
        (
            "filters.4.drop",
            "'(' is not a regular expression: missing ), unterminated subpattern at position 0.",
            "",
        ),
        ("filters.5", "filters.5 needs either drop or keep, a pattern.", ""),
        (
            "filters.6.threshold",
            "filters.6: threshold counts only with near: true.",
            "",
        ),
        (
            "filters.7.threshold",
            "filters.7.threshold must be at most 1, got 1.5.",
            "",
        ),
        (
            "filters.8.path",
            f'{tmp_path}/mine.py has no function "kep".',
            'Did you mean "keep"?',
        ),
        (
            "filters.9.path",
            f"{tmp_path}/gone.py cannot be read: No such file or directory.",
            "",
        ),
        (
            "filters.10.path",
            f'"{tmp_path}/mine.py" names no function.',
            "Write file and function: clean.py:keep",
        ),
        (
            "filters.12",
            "filters.12 must be a mapping with a kind.",
            "The kinds are: unicode, length, regex, duplicates, leak, function.",
        ),
    ]


def test_a_file_of_a_function_is_not_run_before_the_work(tmp_path):
    function(tmp_path, "    return True\n\nraise SystemExit")
    assert len(made(tmp_path, {"kind": "function", "path": "mine.py:keep"})) == 1


# Crashes, order and memory


ALL = [
    {"kind": "unicode"},
    {"kind": "length", "at_least": 2},
    {"kind": "duplicates"},
    {"kind": "duplicates", "near": True, "threshold": 0.6, "shingle": 2},
    {"kind": "duplicates", "of": "assistant"},
    {"kind": "leak", "ngram": 3},
]
ROWS = st.lists(
    st.builds(
        chat,
        st.lists(st.sampled_from("abcdef"), max_size=8).map(" ".join),
        st.lists(st.sampled_from("uvwxyz\r"), max_size=8).map(" ".join),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(0, 25), max_size=3), st.booleans(), st.integers(0, 2**32))
def test_a_crash_between_shards_changes_nothing(tmp_path_factory, rows, cuts, new, seed):
    folder = tmp_path_factory.getbasetemp()
    declared, held_out = made(folder, *ALL), rows[:2]
    whole = Filters(declared, seed, held_out)
    expected = list(whole.apply(placed(rows)))
    states, got, begin = [], [], 0
    for cut in [*sorted(cuts), len(rows)]:
        part = Filters(declared, seed, held_out)
        part.restore(*(states if new else states[-1:]))
        got += part.apply(placed(rows)[begin:cut])
        states.append(json.loads(json.dumps(part.state(new=new))))
        begin = max(begin, cut)
    assert got == expected
    assert part.state() == whole.state()
    assert part.counts == whole.counts
    assert part.dropped_examples == whole.dropped_examples


def test_a_state_of_other_filters_is_refused(tmp_path):
    state = Filters(made(tmp_path, {"kind": "duplicates"}), seed=0).state()
    other = Filters(made(tmp_path, {"kind": "duplicates", "of": "user"}), seed=0)
    with pytest.raises(ValueError, match="of other filters"):
        other.restore(state)


@settings(deadline=None)
@given(ROWS)
def test_the_first_of_duplicates_stays_in_its_place(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp()
    filters = Filters(made(folder, {"kind": "duplicates"}), seed=0)
    places = [place for place, _ in filters.apply(placed(rows))]
    assert places == sorted(places, key=lambda place: int(place.split(":")[1]))
    first = {}
    for place, row in placed(rows):
        plain = json.dumps(row).replace("\\r", " ")
        first.setdefault(" ".join(plain.split()).replace('" ', '"').replace(' "', '"'), place)
    assert set(places) == set(first.values())


def test_rows_stream_and_are_not_held(tmp_path):
    filters = Filters(made(tmp_path, {"kind": "unicode"}, {"kind": "duplicates"}), seed=0)
    rows = ((number, said(f"{number} " + "x" * 20_000)) for number in range(3000))  # 60 MB
    tracemalloc.start()
    assert sum(1 for _ in filters.apply(rows)) == 3000
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
