"""Many recipes composed together are what each composed alone is, and every grammar of values."""

import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runner.compose import Composer, compose
from runner.errors import RecipeError
from runner.overriding import as_word, axes
from runner.stages import known

RECIPE = """\
defaults:
  - /quantize: nf4
  - /generate@before: greedy
  - _self_
steps: [fetch, process, load, before, adapt, quantize, generate, save]
fetch:
  model: {path: weights}
  data: {path: rows.jsonl}
before: {stage: generate}
adapt: {rank: 4, alpha: REFERS}
save: {to: out}
"""
WORDS = [
    "adapt.rank={}",
    "adapt.learning_rate=0.{}",
    "adapt.rnk={}",
    "adapt.method=lora",
    "adapt.target_modules=[q_proj,m{}]",
    "adapt.alpha=${{adapt.rank}}",
    "adapt={{rank: {}}}",
    "adapt=qlora",
    "+adapt.dropout=0.{}",
    "~adapt.rank",
    "before.temperature=0.{}",
    "before=sampled",
    "generate=sampled",
    "generate.seed={}",
    "generate.temperature=null",
    "quantize=int8",
    "quantize=nf4",
    "quantize=none",
    "quantize.double_quantization=true",
    "process.held_out={}",
    "process.split.shuffle={}",
    "save.to=out{}",
    "save.to=out-${{adapt.rank}}",
    "save.to='???'",
    "seed={}",
    "name=n{}",
    "fetch.data.path=rows{}.jsonl",
    "~before",
]
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)
values = st.lists(st.integers(-1, 3), min_size=2, max_size=3)


@pytest.fixture(autouse=True)
def here(tmp_path_factory, monkeypatch):
    """A working directory with the files that the recipes here name."""
    folder = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(folder)
    Path("weights").mkdir()
    for name in ("rows.jsonl", "rows0.jsonl", "rows1.jsonl"):
        Path(name).write_text("{}\n")


def write(text, name="r"):
    Path(f"{name}.yaml").write_text(textwrap.dedent(text), encoding="utf-8")


def alone(overrides):
    try:
        return compose("r", overrides, known())
    except RecipeError as error:
        return str(error)


def together(composer, overrides):
    try:
        return composer.recipe([axis.changes[0] for axis in axes("r", overrides)])
    except RecipeError as error:
        return str(error)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.generate],  # an example takes a second, so that making it smaller takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(words=words, values=values, refers=st.booleans())
def test_recipes_composed_together_are_as_each_composed_alone(words, values, refers):
    write(RECIPE.replace("REFERS", "'${adapt.rank}'" if refers else "16"))
    composer = Composer("r", known())
    for value in [*values, values[0]]:
        overrides = [word.format(value) for word in words]
        assert together(composer, overrides) == alone(overrides)


def test_only_scalars_are_exchanged_without_composing_again():
    write(RECIPE.replace("REFERS", "16"))
    composer = Composer("r", known())
    for rank in range(1, 5):
        together(composer, [f"adapt.rank={rank}", "quantize=int8"])
    together(composer, ["adapt.rank=1", "quantize=nf4"])
    assert len(composer.forms) == 2


def test_a_fault_of_one_recipe_is_not_said_of_the_next():
    write(RECIPE.replace("REFERS", "16"))
    composer = Composer("r", known())
    right = together(composer, ["adapt.rank=2"])
    wrong = together(composer, ["adapt.rank=0"])
    assert wrong == 'override "adapt.rank=0": adapt.rank must be at least 1, got 0.'
    assert together(composer, ["adapt.rank=2"]) == right


def texts(word):
    [axis] = axes("r", [word])
    return [change.text for change in axis.changes]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("adapt.rank=4", ["adapt.rank=4"]),
        ("adapt.rank=4,8", ["adapt.rank=4", "adapt.rank=8"]),
        ("adapt.rank=choice(4,8)", ["adapt.rank=4", "adapt.rank=8"]),
        ("adapt.rank=range(1,4)", ["adapt.rank=1", "adapt.rank=2", "adapt.rank=3"]),
        ("adapt.rank=range(start=4,stop=0,step=-2)", ["adapt.rank=4", "adapt.rank=2"]),
        ("adapt.rank=sort(8,4)", ["adapt.rank=4", "adapt.rank=8"]),
        ("adapt.dropout=range(0,0.3,0.1)", [f"adapt.dropout={x}" for x in ("0.0", "0.1", "0.2")]),
        ("adapt.target_modules=[a,b],[c]", [f"adapt.target_modules={x}" for x in ("[a,b]", "[c]")]),
        ("adapt.alpha=null,1", ["adapt.alpha=null", "adapt.alpha=1"]),
        ("name='a,b','c d'", ["name='a,b'", "name='c d'"]),
        ("quantize=glob([i*,nf*])", ["quantize=int8", "quantize=nf4"]),
        ("before=glob(*,exclude=gr*)", ["before=sampled"]),
        ("adapt.rank=tag(t,choice(4,8))", ["adapt.rank=4", "adapt.rank=8"]),
        ("+adapt.rank=4,8", ["+adapt.rank=4", "+adapt.rank=8"]),
    ],
)
def test_values_are_given_in_hydras_whole_grammar(word, expected):
    write(RECIPE)
    assert texts(word) == expected
    for text, change in zip(expected, axes("r", [word])[0].changes, strict=True):
        assert change == axes("r", [text])[0].changes[0]


def test_shuffled_values_are_the_same_values():
    write(RECIPE)
    assert sorted(texts("adapt.rank=shuffle(1,2,3)")) == [f"adapt.rank={n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("adapt.rank=interval(4,4)", "ends where it begins"),
        ("quantize=glob(zzz*)", "gives no value at all"),
        ("adapt.rank=range(4,4)", "gives no value at all"),
        ("adapt.rank", "cannot be read"),
        ("hydra.x=1,2", "hydra's own settings mean nothing here"),
    ],
)
def test_words_without_values_are_refused(word, said):
    write(RECIPE)
    with pytest.raises(RecipeError, match="override") as caught:
        axes("r", [word])
    assert said in str(caught.value)


@pytest.mark.parametrize("value", [4, 0.5, True, None, "a,b", "a b", "it's", "${x}", ["q", 1], ""])
def test_a_list_in_a_recipe_gives_each_of_its_values(value):
    write(RECIPE)
    [axis] = axes("r", [as_word("adapt.rank", [value, 7])])
    assert [change.value for change in axis.changes] == [value, 7]
