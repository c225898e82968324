"""Options: plain YAML values become typed options strictly, and all faults are found at once."""

import dataclasses
import math
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.options import Fault, build, convert, describe, documented, keyed, option, plain


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Options within options."""

    depth: int = option(1, "How deep", at_least=0)
    note: str | None = option(None, "A remark")


@dataclass(frozen=True, kw_only=True)
class Options:
    """One field of every type that a stage may declare."""

    rank: int = option(8, "A whole number", at_least=1, at_most=64)
    rate: float = option(0.5, "A number", at_least=0, at_most=1)
    flag: bool = option(False, "True or false")
    word: str = option("a", "A text")
    method: Literal["nf4", "fp4"] = option("nf4", "One of two")
    names: tuple[str, ...] = option((), "Texts")
    rows: int | None = option(None, "A whole number or none", at_least=1)
    either: int | str = option(0, "A whole number or a text")
    where: Path | None = option(None, "A file")
    inner: Inner = option(Inner(), "Options within options")
    extra: dict[str, float] = option({}, "Numbers by name")
    workers: int = option(1, "Changes nothing", keyed=False)


@dataclass(frozen=True, kw_only=True)
class Needy:
    """Options that cannot all be left out."""

    to: Path = option(help="The folder to write")
    name: str = option(help="The name")


def facts(kind: type, mapping: dict[str, Any], *where: str) -> list[str]:
    made, faults = build(kind, mapping, where)
    assert (made is None) == bool(faults)
    return [f"{fault.fact} {fault.guess}".strip() for fault in faults]


def test_nothing_given_is_every_default():
    assert build(Options, {}) == (Options(), [])


@pytest.mark.parametrize(
    ("name", "value", "made"),
    [
        ("rank", 4, 4),
        ("rate", 0.25, 0.25),
        ("flag", True, True),
        ("word", "yes", "yes"),
        ("method", "fp4", "fp4"),
        ("names", ["a", "b"], ("a", "b")),
        ("names", [], ()),
        ("rows", None, None),
        ("rows", 3, 3),
        ("either", "x", "x"),
        ("either", 3, 3),
        ("where", "a/b", Path("a/b")),
        ("where", None, None),
        ("inner", {"depth": 2}, Inner(depth=2)),
        ("inner", {}, Inner()),
        ("extra", {"a": 1}, {"a": 1.0}),
    ],
)
def test_a_value_of_the_declared_type_is_taken(name, value, made):
    options, faults = build(Options, {name: value})
    assert faults == []
    assert getattr(options, name) == made


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("rank", True, "s.rank must be a whole number, got true."),
        ("rank", 1.0, "s.rank must be a whole number, got 1.0."),
        ("rank", "8", 's.rank must be a whole number, got "8".'),
        ("rank", None, "s.rank must be a whole number, got null."),
        ("rate", True, "s.rate must be a number, got true."),
        ("rate", "1e-3", 's.rate must be a number, got "1e-3".'),
        ("flag", 1, "s.flag must be true or false, got 1."),
        ("flag", "true", 's.flag must be true or false, got "true".'),
        ("word", 3, "s.word must be a text, got 3."),
        ("method", "nf8", 's.method takes "nf4" or "fp4", got "nf8". Did you mean "nf4"?'),
        ("method", 4, 's.method takes "nf4" or "fp4", got 4.'),
        ("names", "q_proj", 's.names must be a list, each a text, got "q_proj".'),
        ("names", ["a", 1], "s.names.1 must be a text, got 1."),
        ("rows", "all", 's.rows must be a whole number, got "all".'),
        ("rows", True, "s.rows must be a whole number, got true."),
        ("either", 1.5, "s.either must be a whole number or a text, got 1.5."),
        ("where", 3, "s.where must be a path, got 3."),
        ("inner", 3, "s.inner must be a mapping, got 3."),
        ("inner", {"depth": "x"}, 's.inner.depth must be a whole number, got "x".'),
        ("inner", {"dept": 1}, 's.inner has no option "dept". Did you mean "depth"?'),
        ("inner", {"depth": -1}, "s.inner.depth must be at least 0, got -1."),
        ("extra", {"a": "x"}, 's.extra.a must be a number, got "x".'),
        ("extra", [1], "s.extra must be a mapping, got [1]."),
    ],
)
def test_a_value_of_another_type_is_a_fault_in_words(name, value, fact):
    assert facts(Options, {name: value}, "s") == [fact]


def test_a_whole_number_becomes_a_float_where_a_number_is_declared():
    options, _ = build(Options, {"rate": 1})
    assert type(options.rate) is float


def test_a_home_folder_is_spelled_out(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert build(Options, {"where": "~/x"})[0].where == Path("/somewhere/x")


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("rank", 0, "rank must be at least 1, got 0."),
        ("rank", 65, "rank must be at most 64, got 65."),
        ("rate", -0.1, "rate must be at least 0, got -0.1."),
        ("rate", 1.5, "rate must be at most 1, got 1.5."),
        ("rows", 0, "rows must be at least 1, got 0."),
    ],
)
def test_a_value_out_of_range_is_a_fault(name, value, fact):
    assert facts(Options, {name: value}) == [fact]


@pytest.mark.parametrize(("name", "value"), [("rank", 1), ("rank", 64), ("rate", 0), ("rate", 1)])
def test_the_ends_of_a_range_are_in_it(name, value):
    assert facts(Options, {name: value}) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_in_no_range(value):
    assert facts(Options, {"rate": value}) != []


def test_an_unknown_name_brings_the_near_one():
    [fault] = build(Options, {"rnk": 4}, ("adapt",))[1]
    guess = 'Did you mean "rank"?'
    assert fault == Fault(("adapt", "rnk"), 'adapt has no option "rnk".', guess, is_key=True)


def test_an_unknown_name_with_no_near_one_brings_them_all():
    assert facts(Inner, {"zzz": 4}, "s") == ['s has no option "zzz". It takes: depth, note.']


def test_what_is_required_is_named_with_its_description():
    assert facts(Needy, {}, "save") == [
        'save needs "to": The folder to write',
        'save needs "name": The name',
    ]


def test_all_faults_are_found_at_once():
    given_ = {"rnk": 1, "rate": 2, "flag": "no", "inner": {"depth": -1, "nte": "x"}, "names": [1]}
    assert facts(Options, given_, "s") == [
        's has no option "rnk". Did you mean "rank"?',
        "s.rate must be at most 1, got 2.0.",
        's.flag must be true or false, got "no".',
        "s.names.0 must be a text, got 1.",
        's.inner has no option "nte". Did you mean "note"?',
        "s.inner.depth must be at least 0, got -1.",
    ]


def test_a_long_value_is_cut_short_in_a_message():
    [fault] = build(Options, {"rank": "x" * 500})[1]
    assert len(fault.fact) < 120


def test_unkeyed_fields_stay_out_of_the_key():
    assert "workers" not in keyed(Options(workers=7))
    assert keyed(Options(workers=7)) == keyed(Options(workers=1))
    assert {*keyed(Options())} == {f.name for f in dataclasses.fields(Options)} - {"workers"}


def test_an_unkeyed_field_within_options_stays_out_too():
    @dataclass(frozen=True, kw_only=True)
    class Deep:
        rank: int = option(1, "Matters")
        workers: int = option(1, "Changes nothing", keyed=False)

    @dataclass(frozen=True, kw_only=True)
    class Outer:
        deep: Deep = option(Deep(), "Options within options")

    assert keyed(Outer(deep=Deep(workers=2))) == keyed(Outer(deep=Deep(workers=1)))


def test_every_option_is_documented_with_type_and_default():
    rows = {name: (kind, default, text) for name, kind, default, text in documented(Options)}
    assert rows["rank"] == ("a whole number", "8", "A whole number")
    assert rows["method"] == ('"nf4" or "fp4"', '"nf4"', "One of two")
    assert rows["rows"] == ("a whole number or null", "null", "A whole number or none")
    assert rows["names"] == ("a list, each a text", "[]", "Texts")
    assert rows["inner"][:2] == ("a mapping", '{"depth": 1, "note": null}')
    assert rows["extra"][:2] == ("a mapping", "{}")
    assert {name: row[1] for name, *row in documented(Needy)} == {
        "to": "required",
        "name": "required",
    }


def test_a_default_that_is_a_mapping_is_nobody_elses():
    one, other = Options(), Options()
    one.extra["a"] = 1.0
    assert other.extra == {}


def test_options_within_an_optional_field_report_their_own_faults():
    made, faults = convert(Inner | None, {"dept": 1}, ("s", "inner"))
    assert made is None
    assert [fault.where for fault in faults] == [("s", "inner", "dept")]


def test_a_type_is_described_in_the_words_of_a_recipe():
    assert describe(Literal["a", 3]) == '"a" or 3'
    assert describe(tuple[int, ...]) == "a list, each a whole number"
    assert describe(Path | None) == "a path or null"


texts = st.text(string.printable, max_size=8)
options_of_every_kind = st.builds(
    Options,
    rank=st.integers(1, 64),
    rate=st.floats(0, 1),
    flag=st.booleans(),
    word=texts,
    method=st.sampled_from(["nf4", "fp4"]),
    names=st.lists(texts, max_size=3).map(tuple),
    rows=st.none() | st.integers(1, 9),
    either=st.integers() | texts,
    where=st.none() | st.text(string.ascii_letters + "/. ", min_size=1, max_size=8).map(Path),
    inner=st.builds(Inner, depth=st.integers(0, 9), note=st.none() | texts),
    extra=st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    workers=st.integers(),
)


@given(options_of_every_kind)
def test_options_written_out_and_built_again_are_the_same(options):
    assert build(Options, plain(options)) == (options, [])
