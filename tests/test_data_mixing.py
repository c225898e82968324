"""Several file sets as one stream of rows: in order, by weights, and gone on with."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import make_data

from runner import files, running
from runner.checkpoint import Checkpoints
from runner.data import rows
from runner.data.mixing import Mixture, Position, Source, draws
from runner.errors import RecipeError, StepError, Stopped
from runner.execute import Noted, execute
from runner.report import rows as report
from runner.stage import Context
from runner.stages import process

STRATEGIES = ("first_exhausted", "all_exhausted", "all_exhausted_without_replacement")
SOME = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def source(folder: Path, name: str, count: int, **more: Any) -> Path:
    """A folder with that many rows of text, each naming its source and number."""
    (folder / name).mkdir(parents=True)
    text = "".join(json.dumps({"text": f"{name} {n}", **more}) + "\n" for n in range(count))
    (folder / name / "rows.jsonl").write_text(text)
    return folder / name


def reading(roots: dict[str, Path], **given: Any) -> rows.Reading:
    settled: dict[str, Any] = {
        "weights": {},
        "strategy": "first_exhausted",
        "split": None,
        "shape": "auto",
        "columns": {},
        "first": None,
        "skips": False,
        "filters": (),
        "seed": 0,
    }
    return rows.Reading(roots=roots, **{**settled, **given})


def context(folder: Path, **settings: Any) -> Context:
    return Context(folder, Checkpoints(folder / "c", print), **settings)


def written(folder: Path, how: rows.Reading, **settings: Any) -> list[str]:
    """The texts that are read, in order."""
    folder.mkdir(exist_ok=True)
    rows.write(how, folder, context(folder, **settings))
    found = [row for path in rows.shards(folder) for row in rows.rows_of(path)]
    return [example["text"] for _, example in found]


def test_without_weights_one_source_follows_the_other(tmp_path):
    roots = {"fetch.b": source(tmp_path, "b", 3), "fetch.a": source(tmp_path, "a", 2)}
    assert written(tmp_path / "out", reading(roots)) == ["b 0", "b 1", "b 2", "a 0", "a 1"]
    about = files.read_json(tmp_path / "out" / rows.ABOUT)
    assert {name: one["read"] for name, one in about["sources"].items()} == {
        "fetch.b": 3,
        "fetch.a": 2,
    }
    first = reading(roots, first=4)
    assert written(tmp_path / "first", first) == ["b 0", "b 1", "b 2", "a 0"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@SOME
@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.05, 10), min_size=4, max_size=4),
    seed=st.integers(0, 2**40),
)
def test_rows_come_as_interleave_datasets_gives_them(
    strategy, sizes, weights, seed, tmp_path_factory
):
    import datasets

    folder = tmp_path_factory.mktemp("mix")
    names = [f"s{number}" for number in range(len(sizes))]
    chosen = weights[: len(sizes)]
    roots = {name: source(folder, name, size) for name, size in zip(names, sizes, strict=True)}
    how = reading(
        roots, weights=dict(zip(names, chosen, strict=True)), strategy=strategy, seed=seed
    )
    tables = [
        datasets.Dataset.from_dict({"text": [f"{name} {n}" for n in range(size)]})
        for name, size in zip(names, sizes, strict=True)
    ]
    shares = [weight / sum(chosen) for weight in chosen]
    theirs = datasets.interleave_datasets(
        tables, probabilities=shares, seed=seed, stopping_strategy=strategy
    )
    assert written(folder / "out", how) == theirs["text"][:]


@SOME
@given(
    weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_every_source_is_drawn_as_often_as_it_weighs(weights, seed):
    chances = draws(weights, seed)
    count = 20_000
    drawn = Counter(next(chances) for _ in range(count))
    for number, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(drawn[number] / count - share) < 5 * (share * (1 - share) / count) ** 0.5 + 1e-9


@SOME
@given(begin=st.integers(0, 5000), seed=st.integers(0, 2**32))
def test_draws_go_on_where_they_were_left(begin, seed):
    whole, later = draws([2, 1, 0.5], seed), draws([2, 1, 0.5], seed, begin)
    for _ in range(begin):
        next(whole)
    assert [next(whole) for _ in range(20)] == [next(later) for _ in range(20)]


@pytest.mark.parametrize("strategy", ["in order", *STRATEGIES])
@pytest.mark.parametrize("shard", [1, 7])
def test_a_kill_loses_a_shard_and_changes_no_byte(strategy, shard, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "SHARD", shard)
    roots = {name: source(tmp_path, name, size) for name, size in (("a", 23), ("b", 9), ("c", 14))}
    with open(roots["b"] / "rows.jsonl", "a") as file:
        file.write("{broken\n")
    with open(roots["c"] / "more.jsonl", "w") as file:
        file.write('{"text": "c more"}\n')
    weights = {} if strategy == "in order" else {"a": 2, "b": 1, "c": 0.7}
    how = reading(
        roots,
        weights=weights,
        strategy=STRATEGIES[0] if strategy == "in order" else strategy,
        skips=True,
        first=60,
    )
    written(tmp_path / "whole", how)
    stops = 0
    while True:
        try:
            written(tmp_path / "again", how, stop_signal=lambda: "SIGTERM")
            break
        except Stopped:
            stops += 1
            assert len(rows.shards(tmp_path / "again")) == stops
    assert stops > 2
    assert files.manifest(tmp_path / "again") == files.manifest(tmp_path / "whole")


def test_shapes_are_told_for_each_source_and_columns_apply_where_they_are(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "rows.jsonl").write_text('{"frage": "q", "antwort": "a"}\n')
    (tmp_path / "two" / "rows.jsonl").write_text('{"instruction": "say", "output": "b"}\n')
    notes: list[str] = []
    roots = {"fetch.one": tmp_path / "one", "fetch.two": tmp_path / "two"}
    how = reading(roots, columns={"question": "frage", "answer": "antwort"})
    (tmp_path / "out").mkdir()
    rows.write(how, tmp_path / "out", context(tmp_path / "out", note=notes.append))
    assert notes == [
        "fetch.one/rows.jsonl: read as question_answer",
        "fetch.two/rows.jsonl: read as alpaca",
    ]
    found = [row for path in rows.shards(tmp_path / "out") for row in rows.rows_of(path)]
    assert [place for place, _ in found] == ["fetch.one/rows.jsonl:1", "fetch.two/rows.jsonl:1"]


def test_what_is_wrong_names_the_source(tmp_path):
    roots = {"fetch.a": source(tmp_path, "a", 3), "fetch.b": source(tmp_path, "b", 3)}
    with open(roots["fetch.b"] / "rows.jsonl", "a") as file:
        file.write("{broken\n")
    with pytest.raises(StepError, match=r"^fetch\.b/rows\.jsonl:4: is not valid JSON"):
        written(tmp_path / "broken", reading(roots))
    (roots["fetch.b"] / "rows.jsonl").unlink()
    with pytest.raises(StepError, match=r"^fetch\.b: there is no data file"):
        written(tmp_path / "none", reading(roots))
    (roots["fetch.b"] / "rows.jsonl").write_text("\n")
    how = reading(roots, weights={"fetch.a": 1, "fetch.b": 1})
    with pytest.raises(StepError, match=r"^fetch\.b: has no rows to mix in"):
        written(tmp_path / "empty", how)


def test_rows_of_two_kinds_are_no_dataset(tmp_path):
    roots = {"fetch.a": source(tmp_path, "a", 2), "fetch.b": tmp_path / "b"}
    roots["fetch.b"].mkdir()
    pair = {"prompt": "say", "chosen": "yes", "rejected": "no"}
    (roots["fetch.b"] / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    fact = (
        r"^fetch\.b/pairs\.jsonl:1: is a preference pair, and fetch\.a/rows\.jsonl:1 is an example"
    )
    with pytest.raises(StepError, match=fact):
        written(tmp_path / "out", reading(roots))


def test_a_mixture_draws_no_row_of_a_source_that_has_none_left(tmp_path):
    one = Source(source(tmp_path, "a", 2), None, Position(), "a")
    two = Source(source(tmp_path, "b", 5), None, Position(), "b")
    strategy = "all_exhausted_without_replacement"
    taken = [s.take()[1]["text"] for s in Mixture({"a": 9, "b": 1}, strategy, 0).order([one, two])]
    assert sorted(taken) == ["a 0", "a 1", "b 0", "b 1", "b 2", "b 3", "b 4"]


# In recipes


@pytest.fixture
def recipe(tiny_model, tmp_path, monkeypatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "store"))
    make_data(Path("rows.jsonl"), rows=40)
    turns = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "good day"}]
    lines = [json.dumps({"conversations": [*turns[:1], {**turns[1], "value": f"good day {n}"}]})
             for n in range(30)]  # fmt: skip
    Path("chats.jsonl").write_text("\n".join(lines))
    return {
        "steps": ["fetch", "process"],
        "fetch": {
            "model": {"path": str(tiny_model)},
            "data": {"path": "rows.jsonl"},
            "chats": {"path": "chats.jsonl"},
        },
        "process": {
            "data": ["fetch.data", "fetch.chats"],
            "weights": {"fetch.data": 2, "fetch.chats": 1},
            "held_out": 4,
            "audit": "warn",
        },
    }


def carried_out(recipe: dict[str, Any], *overrides: str) -> tuple[list[str], Any]:
    """The notes of a run and the record of its process step."""
    Path("mine.yaml").write_text(json.dumps(recipe))
    planned, store = running.prepare("mine.yaml", overrides)
    heard: list[Any] = []
    outcomes = execute(planned, store, heard.append, lambda: None)
    notes = [event.text for event in heard if isinstance(event, Noted)]
    return [note for note in notes if "read as" in note], outcomes[-1].entry.record["facts"]


def test_a_recipe_mixes_parts_of_any_name_and_its_rows_follow_every_source(recipe):
    notes, facts = carried_out(recipe)
    assert sorted(notes) == [
        "fetch.chats/chats.jsonl: read as sharegpt",
        "fetch.data/rows.jsonl: read as messages",
    ]
    read = {name: one["read"] for name, one in facts["reading"]["sources"].items()}
    assert read["fetch.data"] == 40 or read["fetch.chats"] == 30
    assert 1.2 < read["fetch.data"] / read["fetch.chats"] < 3.3
    assert f"source     fetch.data: {read['fetch.data']} read" in [*report.figures(facts)]
    assert carried_out(recipe)[0] == []
    assert carried_out(recipe, "process.max_length=999")[0] == []
    assert len(carried_out(recipe, "process.weights={fetch.data: 1, fetch.chats: 1}")[0]) == 2
    with open("chats.jsonl", "a") as file:
        file.write('\n{"conversations": [{"from": "human", "value": "a"}, '
                   '{"from": "gpt", "value": "b"}]}\n')  # fmt: skip
    assert len(carried_out(recipe)[0]) == 2


def test_by_default_the_part_named_data_is_read_alone(recipe):
    del recipe["process"]["data"], recipe["process"]["weights"]
    notes, facts = carried_out(recipe)
    assert notes == ["rows.jsonl: read as messages"]
    assert [*facts["reading"]["sources"]] == ["fetch.data"]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"weights": {"fetch.data": 1, "fetch.chat": 1}},
         'weights: "fetch.chat" is no source here. Did you mean "fetch.chats"?'),
        ({"weights": {"fetch.data": 1}}, "weights says nothing of fetch.chats."),
        ({"weights": {"fetch.data": 0, "fetch.chats": 1}},
         "weights.fetch.data must be more than 0."),
        ({"data": ["fetch.data", "fetch.chat"]},
         'data: "fetch.chat" is no earlier step. Did you mean "fetch.chats"?'),
        ({"data": ["fetch.data", "fetch.chats", "fetch.data"]}, 'data names "fetch.data" twice.'),
        ({"data": []}, "data names no step, and needs one."),
        ({"weights": {}, "stopping_strategy": "all_exhausted"},
         "stopping_strategy has no effect without weights."),
        ({"stopping_strategy": "all_exhausted"}, "all_exhausted repeats rows"),
    ],
)  # fmt: skip
def test_wrong_sources_and_weights_are_found_before_any_work(recipe, change, fact):
    recipe["process"] |= change
    Path("mine.yaml").write_text(json.dumps(recipe))
    with pytest.raises(RecipeError) as caught:
        running.prepare("mine.yaml", [])
    assert fact in str(caught.value)
    assert str(caught.value).startswith("mine.yaml:1: ")


def test_the_strategies_are_those_of_the_mixture():
    import typing

    from runner.data import mixing

    assert typing.get_args(process.Strategy) == typing.get_args(mixing.Strategy) == STRATEGIES
