"""Process: from rows of any shape to tokens, through the whole stage."""

import gc
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_data

from runner import cli, files, products, running
from runner.checkpoint import Checkpoints
from runner.data import encode, leaking, rows, tables
from runner.errors import StepError, Stopped
from runner.events import Noted
from runner.execute import execute
from runner.products import IGNORED, Files
from runner.report import rows as report
from runner.stage import Context
from runner.stages import adapt, generate, load, process


@pytest.fixture
def here(tiny_model: Path, tmp_path: Path) -> "Here":
    return Here(tmp_path, tiny_model)


class Here:
    """A folder with data, and what the stage makes of it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model, self.notes = folder, model, []
        self.data = folder / "data"
        self.data.mkdir()
        self.runs = 0

    def context(self, **settings: Any) -> Context:
        (self.folder / "work").mkdir(exist_ok=True)
        checkpoint = Checkpoints(self.folder / "c", print)
        return Context(self.folder / "work", checkpoint, note=self.notes.append, **settings)

    def anew(self) -> None:
        files.remove(self.folder / "work")

    def run(self, context: Context | None = None, **given: Any) -> products.Dataset:
        given = {"held_out": 2} | given
        assert process.check(process.Options(**given), {}) == []
        options = process.resolve(process.Options(**given), {})
        inputs = {"data": {"fetch.data": Files(self.data)}, "tokenizer": Files(self.model)}
        self.last = context or self.context()
        return process.run(options, inputs, self.last)

    def texts(self, dataset: products.Dataset) -> list[str]:
        """What is trained of each row."""
        tokenizer = products.open_tokenizer(self.model)
        return [
            tokenizer.decode([label for label in row["labels"] if label != IGNORED])
            for row in dataset.train
        ]

    def write(self, *written: Any, name: str = "rows.jsonl") -> None:
        text = "".join(json.dumps(row) + "\n" for row in written)
        (self.data / name).write_text(text)


def chat(number: int, **more: Any) -> dict[str, Any]:
    said = [("user", f"say {number}"), ("assistant", str(number * 7))]
    return {"messages": [{"role": role, "content": text} for role, text in said], **more}


def test_a_shape_is_told_by_its_columns_and_said(here):
    here.write(*({"instruction": f"say {n}", "output": str(n)} for n in range(6)))
    made = here.run(held_out=0)
    assert here.notes == ["rows.jsonl: read as alpaca"]
    assert here.texts(made) == [f"{n}<|im_end|>" for n in range(6)]


def test_columns_of_other_names_are_mapped(here):
    here.write(*({"frage": f"say {n}", "antwort": str(n)} for n in range(4)))
    named = {"question": "frage", "answer": "antwort"}
    made = here.run(held_out=0, shape="question_answer", columns=named)
    assert here.texts(made)[3] == "3<|im_end|>"


def test_plain_text_is_trained_whole_and_ended(here):
    here.write(*({"text": f"say {n}"} for n in range(4)))
    made = here.run(held_out=0)
    assert here.texts(made)[0].startswith("say 0")
    assert [row["labels"] == row["input_ids"] for row in made.train] == [True] * 4


def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(here):
    here.write(chat(1), {"messages": []}, chat(2), chat(3))
    with open(here.data / "rows.jsonl", "a") as file:
        file.write("{broken\n")
    with pytest.raises(StepError, match=r"^rows.jsonl:2: .*\n  Leave such rows out"):
        here.run()
    here.anew()
    made = here.run(on_bad_row="skip", held_out=1)
    assert len(made.train) == 2
    reading = here.last.facts["reading"]
    assert (reading["read"], reading["kept"]) == (5, 3)
    assert [place.split(": ")[0] for place in reading["bad_places"]] == [
        "rows.jsonl:2",
        "rows.jsonl:5",
    ]


def test_filters_apply_in_order_and_are_counted(here):
    (here.folder / "mine.py").write_text(
        "def even(example):\n    return int(example['messages'][-1]['content']) % 2 == 0\n"
    )
    here.write(*(chat(n) for n in range(8)), chat(3))
    declared = (
        {"kind": "duplicates"},
        {"kind": "regex", "drop": "^49$", "of": "assistant"},
        {"kind": "function", "path": str(here.folder / "mine.py") + ":even"},
    )
    made = here.run(held_out=0, filters=declared)
    assert here.texts(made) == [f"{n * 7}<|im_end|>" for n in (0, 2, 4, 6)]
    counts = [(f["kind"], f["dropped"]) for f in here.last.facts["reading"]["filters"]]
    assert counts == [("duplicates", 1), ("regex", 1), ("function", 3)]


def test_the_source_of_a_function_is_in_the_key_and_its_folder_is_not(tmp_path):
    found = []
    for name, body in (("a", "True"), ("b", "True"), ("c", "False")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"def keep(example):\n    return {body}\n")
        path = str(tmp_path / name / "mine.py") + ":keep"
        options = process.Options(filters=({"kind": "function", "path": path},))
        found.append(process.resolve(options, {}).rules)
    assert found[0] == found[1] != found[2]


def test_every_fault_of_the_filters_is_found_before_any_work():
    declared = ({"kind": "lenght"}, {"kind": "regex", "drop": "("})
    faults = process.check(process.Options(filters=declared), {})
    assert [fault.where[:2] for fault in faults] == [("filters", "0"), ("filters", "1")]


def split(count: int, seed: int) -> list[int]:
    return process._held_out(count, process.Options(held_out=count // 2, seed=seed))


def test_rows_that_say_what_rows_held_out_say_can_be_left_out(here):
    said = "one two three four five six seven eight nine ten"
    row = chat(1)
    row["messages"][1]["content"] = said
    here.write(*(chat(n) for n in range(2, 8)), row, row)
    seed = next(seed for seed in range(20) if (6 in split(8, seed)) != (7 in split(8, seed)))
    with pytest.raises(StepError, match=r"^1 rows stand both"):
        here.run(held_out=4, seed=seed)
    here.anew()
    made = here.run(held_out=4, seed=seed, filters=({"kind": "leak", "ngram": 5, "share": 0.5},))
    assert len(made.train) == 3
    assert here.last.facts["leaks"][0]["dropped"] == 1


def test_long_rows_are_cut_or_dropped_and_too_many_are_refused(here):
    make_data(here.data / "rows.jsonl", rows=20)
    with pytest.raises(StepError, match=r"20 of 20 rows .* are truncated, more than 20%"):
        here.run(max_length=26, on_long="truncate")
    here.anew()
    made = here.run(max_length=26, on_long="truncate", audit="warn")
    assert {len(row["input_ids"]) for row in made.train} == {26}
    assert any("are truncated" in note for note in here.notes)
    here.anew()
    with pytest.raises(StepError, match="no row is left"):
        here.run(max_length=10, on_long="drop")


def test_a_kill_loses_at_most_a_shard_and_changes_nothing(here, monkeypatch):
    monkeypatch.setattr(rows, "SHARD", 10)
    make_data(here.data / "rows.jsonl", rows=45)
    right = [row["input_ids"] for row in here.run().train]
    here.anew()
    for _ in range(20):
        try:
            made = here.run(here.context(stop_signal=lambda: "SIGTERM"))
            break
        except Stopped:
            continue
    assert [row["input_ids"] for row in made.train] == right
    assert len(list((here.folder / "work" / "tokens").glob("*.arrow"))) == 5


def test_the_number_of_workers_changes_no_byte(here, monkeypatch, tmp_path):
    monkeypatch.setattr(rows, "SHARD", 10)
    make_data(here.data / "rows.jsonl", rows=45)
    digests = []
    for workers, worth in ((1, 10**9), (2, 0)):
        monkeypatch.setattr(encode, "WORTH_IT", worth)
        here.anew()
        made = here.run(workers=workers)
        folder = tmp_path / str(workers)
        folder.mkdir()
        process.save(made, folder)
        digests.append(files.manifest(folder))
    assert digests[0] == digests[1]


def test_packed_rows_train_and_are_the_same_from_the_store(here, tmp_path):
    make_data(here.data / "rows.jsonl", rows=40)
    made = here.run(pack=True, max_length=128)
    assert len(made.train) < 20
    assert here.last.facts["pack_efficiency"] > 0.7
    assert set(made.train.column_names) == {"input_ids", "labels", "position_ids", "lengths"}
    (tmp_path / "kept").mkdir()
    process.save(made, tmp_path / "kept")
    again = process.restore(tmp_path / "kept", {})
    assert again.train.to_list() == made.train.to_list()
    loaded = load.run(load.Options(dtype="float32"), {"files": Files(here.model)}, here.context())
    options = adapt.Options(max_steps=2, effective_batch_size=2)
    taught = adapt.run(options, {"model": loaded, "dataset": again}, here.context())
    assert here.last.facts["counts"]["rows"] == 40
    assert taught.model.training is False


def test_a_template_of_ones_own_is_used_and_goes_with_the_model(here, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text(
        "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    make_data(here.data / "rows.jsonl", rows=8)
    made = here.run(template=own)
    tokenizer = products.open_tokenizer(here.model)
    assert tokenizer.decode(made.train[0]["input_ids"]).startswith("<user>say ")
    loaded = load.run(load.Options(dtype="float32"), {"files": Files(here.model)}, here.context())
    options = adapt.Options(max_steps=1, effective_batch_size=2)
    taught = adapt.run(options, {"model": loaded, "dataset": made}, here.context())
    assert taught.tokenizer.chat_template == own.read_text()
    (tmp_path / "adapter").mkdir()
    adapt.save(taught, tmp_path / "adapter")
    base = load.run(load.Options(dtype="float32"), {"files": Files(here.model)}, here.context())
    again = adapt.restore(tmp_path / "adapter", {"model": base})
    assert again.tokenizer.chat_template == own.read_text()
    assert products.untouched(again.tokenizer).chat_template == own.read_text()
    plain = load.run(load.Options(dtype="float32"), {"files": Files(here.model)}, here.context())
    generate.run(
        generate.Options(max_new_tokens=2), {"model": plain, "dataset": made}, here.context()
    )
    assert plain.tokenizer.chat_template == own.read_text()


def test_rows_that_are_no_conversations_cannot_be_asked(here):
    here.write(*({"text": f"say {n}"} for n in range(4)))
    made = here.run()
    with pytest.raises(StepError, match="are no conversations"):
        made.conversations()


@pytest.fixture
def recipe(tiny_model, tmp_path, monkeypatch) -> Path:
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "place" / "store"))
    make_data(Path("rows.jsonl"), rows=20)
    text = {
        "steps": ["fetch", "process"],
        "fetch": {"model": {"path": str(tiny_model)}, "data": {"path": "rows.jsonl"}},
        "process": {"held_out": 4},
    }
    Path("mine.yaml").write_text(json.dumps(text))
    return Path("mine.yaml")


def carried_out(*overrides: str) -> list[str]:
    """The notes of a run."""
    planned, store = running.prepare("mine.yaml", overrides)
    heard: list[Any] = []
    execute(planned, store, heard.append, lambda: None)
    return [event.text for event in heard if isinstance(event, Noted)]


def test_another_length_does_not_read_the_files_again(recipe):
    read = "rows.jsonl: read as messages"
    assert read in carried_out()
    assert read not in carried_out("process.max_length=99")
    assert read not in carried_out("process.train_on=last", "process.pack=true")
    assert read in carried_out("process.first=10")
    assert carried_out() == []


def test_show_tells_what_became_of_the_data(recipe, capsys):
    assert cli.main(["show", "mine.yaml", "process", "--rows", "2"]) == 1
    assert "process has not been done yet.\n  runner run mine.yaml" in capsys.readouterr().err
    carried_out()
    assert cli.main(["show", "mine.yaml", "process", "--rows", "2"]) == 0
    said = capsys.readouterr().out
    assert "rows       20 read, 20 kept, 20 tokenized" in said
    assert said.count("--- row ") == 2
    assert "[[" in said
    assert "<|im_end|>]]" in said
    assert cli.main(["show", "mine.yaml", "fetch", "--rows", "2"]) == 1
    assert 'has no step "fetch" that gives a dataset. These do: process.' in capsys.readouterr().err


def test_a_compressed_file_beside_a_recipe_is_read(recipe):
    text = Path("rows.jsonl").read_bytes()
    Path("rows.jsonl.gz").write_bytes(gzip.compress(text))
    Path("mine.yaml").write_text(
        Path("mine.yaml").read_text().replace('"rows.jsonl"', '"rows.jsonl.gz"')
    )
    assert "rows.jsonl.gz: read as messages" in carried_out()


def test_a_function_is_found_beside_the_recipe(recipe):
    Path("clean.py").write_text("def keep(example):\n    return True\n")
    values = json.loads(recipe.read_text())
    values["process"]["filters"] = [{"kind": "function", "path": "clean.py:keep"}]
    recipe.write_text(json.dumps(values))
    carried_out()
    assert carried_out() == []
    Path("clean.py").write_text("def keep(example):\n    return len(example) > 0\n")
    assert "rows.jsonl: read as messages" in carried_out()


def test_a_template_whose_answers_never_end_is_refused(here, tmp_path):
    endless = tmp_path / "endless.jinja"
    endless.write_text(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}"
    )
    make_data(here.data / "rows.jsonl", rows=8)
    with pytest.raises(StepError, match="No token ends an answer"):
        here.run(template=endless)


def test_the_example_of_the_docs_is_a_right_one(tmp_path):
    import yaml

    text = (Path(__file__).parent.parent / "docs/how-to/own-data.md").read_text()
    blocks = (each.split("```")[0] for each in text.split("```yaml\nprocess:\n")[1:])
    given = next(yaml.safe_load(each) for each in blocks if "filters:" in each)
    (tmp_path / "clean.py").write_text("def keep(example):\n    return True\n")
    given["filters"][-1]["path"] = str(tmp_path / "clean.py") + ":keep"
    options = process.Options(**{**given, "filters": tuple(given["filters"])})
    assert process.check(options, {}) == []


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"say {n}", "chosen": f"yes {n}", "rejected": f"no, never {n}"}
        for n in range(count)
    ]


def judged(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"say {n}", "completion": f"yes {n}", "label": n % 2 == 0}
            for n in range(count)]  # fmt: skip


def test_preference_pairs_become_prompts_and_two_answers(here, tmp_path):
    here.write(*pairs(8))
    made = here.run(held_out=2)
    assert made.kind == "preference"
    assert made.train.column_names == ["prompt_ids", "chosen_ids", "rejected_ids"]
    decode = products.open_tokenizer(here.model).decode
    said = {
        (decode(row["prompt_ids"]), decode(row["chosen_ids"]), decode(row["rejected_ids"]))
        for row in [*made.train, *made.held_out]
    }
    assert said == {
        (
            f"<|im_start|>user\nsay {n}<|im_end|>\n<|im_start|>assistant\n",
            f"yes {n}<|im_end|>",
            f"no, never {n}<|im_end|>",
        )
        for n in range(8)
    }
    (tmp_path / "kept").mkdir()
    process.save(made, tmp_path / "kept")
    again = process.restore(tmp_path / "kept", {})
    assert again.kind == "preference"
    assert again.train.to_list() == made.train.to_list()
    assert again.train.features["chosen_ids"].feature.dtype == "int32"


def test_answers_with_labels_become_prompts_completions_and_labels(here):
    here.write(*judged(8))
    made = here.run(held_out=0)
    assert made.kind == "unpaired"
    assert made.train.column_names == ["prompt_ids", "completion_ids", "label"]
    assert made.train["label"][:] == [True, False] * 4


def test_preferences_held_out_are_asked_and_scored_by_the_wanted_answer(here):
    here.write(*pairs(8))
    made = here.run(held_out=6)
    wanted = [json.loads(text)["chosen"][0]["content"] for text in made.held_out["example"]]
    assert [chat["messages"][-1]["content"] for chat in made.conversations()] == wanted
    for row, pair in zip(made.scored(4), made.held_out, strict=False):
        assert row["input_ids"] == pair["prompt_ids"] + pair["chosen_ids"]
        assert [label for label in row["labels"] if label != IGNORED] == pair["chosen_ids"]
    assert len(made.scored(4)) == 4
    loaded = load.run(load.Options(dtype="float32"), {"files": Files(here.model)}, here.context())
    options = generate.Options(max_new_tokens=2)
    answers = generate.run(options, {"model": loaded, "dataset": made}, here.context())
    assert [row["expected"] for row in answers] == wanted


def test_of_answers_with_labels_held_out_the_good_ones_are_asked_and_scored(here):
    here.write(*judged(8))
    made = here.run(held_out=7)
    good = [json.loads(text) for text in made.held_out["example"]]
    good = [example for example in good if example["label"]]
    assert len(good) in (3, 4)
    assert [chat["messages"] for chat in made.conversations()] == [
        example["prompt"] + example["completion"] for example in good
    ]
    assert [len(made.scored(count)) for count in (2, 9)] == [2, len(good)]


def test_max_length_is_that_of_the_prompt_with_the_longer_answer(here):
    here.write(*pairs(8))
    with pytest.raises(StepError, match=r"^rows\.jsonl:1: it has .* tokens, and 32 are allowed"):
        here.run(held_out=0, max_length=32)
    here.anew()
    made = here.run(held_out=0, max_length=32, on_long="truncate", audit="warn")
    longest = {len(row["prompt_ids"]) + len(row["rejected_ids"]) for row in made.train}
    assert longest == {32}
    assert here.last.facts["counts"]["truncated"] == 8
    assert here.last.facts["tokens_by_role"]["assistant"] == here.last.facts["counts"]["trained"]


def test_the_audit_finds_a_prompt_that_is_also_held_out(here):
    other = {"prompt": "say 0", "chosen": "surely", "rejected": "hardly"}
    here.write(*pairs(1), other)
    with pytest.raises(StepError, match=r"^1 rows stand both among those held out"):
        here.run(held_out=1)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ({"pack": True}, "preferences cannot be packed"),
        ({"train_on": "all"}, "of preferences only the answers are learnt"),
    ],
)
def test_what_preferences_cannot_have_is_refused_in_one_line(here, given, fact):
    here.write(*pairs(4))
    with pytest.raises(StepError, match=fact):
        here.run(held_out=0, **given)


def test_that_preferences_cannot_be_packed_is_found_before_any_work_where_it_can_be():
    (fault,) = process.check(process.Options(shape="preference", pack=True), {})
    assert (fault.where, fault.fact) == (
        ("pack",),
        "rows of the shape preference cannot be packed.",
    )


def test_chats_and_pairs_are_no_dataset_together(here):
    here.write(chat(1), chat(2), name="a.jsonl")
    here.write(*pairs(2), name="b.jsonl")
    with pytest.raises(StepError, match=r"^b\.jsonl:1: is a preference pair, and a\.jsonl:1 is an"):
        here.run(held_out=0)


def test_pairs_are_shown_with_what_is_chosen_and_what_is_rejected(here):
    here.write(*pairs(2))
    tokenizer = products.open_tokenizer(here.model)
    shown = "\n".join(report.rows(here.run(held_out=0), tokenizer.decode, 1, color=False))
    assert shown.splitlines() == [
        "--- row 1: 24 tokens of prompt, chosen 6, rejected 12",
        "<|im_start|>user",
        "say 0<|im_end|>",
        "<|im_start|>assistant",
        "[[yes 0<|im_end|>]]",
        "{{no, never 0<|im_end|>}}",
    ]
    colored = "\n".join(report.rows(here.run(held_out=0), tokenizer.decode, 1, color=True))
    assert "\x1b[32myes 0<|im_end|>\x1b[0m" in colored
    assert "\x1b[9;31mno, never 0<|im_end|>\x1b[0m" in colored
    here.anew()
    here.write(*judged(2))
    shown = "\n".join(report.rows(here.run(held_out=0), tokenizer.decode, 2, color=False))
    assert "[[yes 0<|im_end|>]]" in shown
    assert "{{yes 1<|im_end|>}}" in shown


def leaked_plainly(train: Any, held_out: Any) -> int:
    """Row by row: what stands before the first token that is trained, or all of it."""

    def question(row: Any) -> tuple[int, ...]:
        if "prompt_ids" in row:
            return tuple(row["prompt_ids"])
        trained = [at for at, label in enumerate(row["labels"]) if label != IGNORED]
        return tuple(row["input_ids"][: (trained or [0])[0] or None])

    asked = {question(row) for row in held_out}
    return sum(question(row) in asked for row in train)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), kind=st.sampled_from(["sft", "preference"]))
def test_rows_that_ask_what_is_held_out_are_counted_as_row_by_row(data, kind):
    few = st.lists(st.integers(0, 2), max_size=4)
    tables = []
    for _ in range(2):
        asked = data.draw(st.lists(st.tuples(few, few, few), min_size=1, max_size=9))
        rows = [
            {"prompt_ids": a, "chosen_ids": b, "rejected_ids": c}
            if kind == "preference"
            else {"input_ids": [*a, *b, *c], "labels": [IGNORED] * len(a) + b + [IGNORED] * len(c)}
            for a, b, c in asked
        ]
        features = dict.fromkeys(rows[0], datasets.List(datasets.Value("int32")))
        made = datasets.Dataset.from_list(rows, features=datasets.Features(features))
        order = data.draw(st.permutations(range(len(rows))))
        tables.append(made.select(order) if data.draw(st.booleans()) else made)
    train, held_out = tables
    assert leaking.leaked(train, held_out) == leaked_plainly(train, held_out)


def test_many_rows_are_looked_at_in_batches(monkeypatch):
    monkeypatch.setattr(leaking, "BATCH", 3)
    rows = [{"input_ids": [n % 5, 7, n], "labels": [IGNORED, IGNORED, n]} for n in range(40)]
    train = datasets.Dataset.from_list(rows)
    held_out = datasets.Dataset.from_list(rows[:2])
    assert leaking.leaked(train, held_out) == leaked_plainly(train, held_out) == 16
    assert leaking.leaked(train, held_out.select([])) == 0


def most_memory(work: Callable[[], object]) -> int:
    """The peak of what Python and numpy hold while something is done, in bytes."""
    gc.collect()
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def grows_by(work: Callable[[int], object]) -> float:
    """Bytes of memory more for each row more."""
    few, many = 1000, 7000
    work(few)  # whatever is loaded once
    return (most_memory(lambda: work(many)) - most_memory(lambda: work(few))) / (many - few)


def test_memory_hardly_grows_with_the_rows_that_are_read(here):
    said = "said " * 80

    def read(count: int) -> None:
        here.anew()
        with open(here.data / "rows.jsonl", "w") as file:
            file.writelines(f'{{"text": "{n} {said}"}}\n' for n in range(count))
        options = process.Options(filters=({"kind": "duplicates"},))
        filters = process._filters(options)[0]
        process._rows(options, filters, {"fetch.data": here.data}, here.context())

    assert grows_by(read) < 300  # of 420 characters a row; what was seen is remembered


def test_memory_hardly_grows_with_the_rows_that_are_split(tmp_path):
    columns = {"index": pa.array(range(1000), pa.int64())}
    columns["example"] = pa.array(["x" * 400] * 1000)
    for name in ("input_ids", "labels"):
        columns[name] = pa.array([[n] * 100 for n in range(1000)], pa.list_(pa.int32()))
    columns["weights"] = pa.nulls(1000, pa.list_(pa.float32()))
    shard = pa.table(columns)
    for number in range(7):
        with pa.ipc.new_stream(str(tmp_path / f"{number:02}.arrow"), shard.schema) as writer:
            writer.write_table(shard)
    shards = sorted(tmp_path.glob("*.arrow"))

    def split(count: int) -> None:
        held_out = process._held_out(count, process.Options(held_out=9))
        train, kept = tables.split(shards[: count // 1000], 1000, held_out, "sft")
        assert leaking.leaked(train, kept) >= 0
        assert (len(train), len(kept)) == (count - 9, 9)

    assert grows_by(split) < 100  # of 1200 bytes a row


@pytest.mark.parametrize("given", [{"rules": ({},)}, {"template_digest": "0"}])
def test_what_is_found_cannot_be_given(given):
    faults = process.check(process.Options(**given), {})
    assert [fault.fact for fault in faults] == [f"{next(iter(given))} is found, and not given."]
