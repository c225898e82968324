"""Process: from rows of any shape to tokens, through the whole stage."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import make_data

from runner import cli, files, products, run
from runner.chat import IGNORED
from runner.checkpoint import Checkpoints
from runner.data import encode, rows
from runner.errors import StepError, Stopped
from runner.execute import Noted, execute
from runner.products import Files
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
        inputs = {"data": Files(self.data), "tokenizer": Files(self.model)}
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
    planned, store = run.prepare("mine.yaml", overrides)
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


def test_the_example_of_the_readme_is_a_right_one(tmp_path):
    import yaml

    text = (Path(__file__).parent.parent / "README.md").read_text()
    given = yaml.safe_load(text.split("```yaml\nprocess:\n")[1].split("```")[0])
    (tmp_path / "clean.py").write_text("def keep(example):\n    return True\n")
    given["filters"][-1]["path"] = str(tmp_path / "clean.py") + ":keep"
    options = process.Options(**{**given, "filters": tuple(given["filters"])})
    assert process.check(options, {}) == []


def test_preference_pairs_are_refused_in_one_line(here):
    here.write(*({"prompt": f"say {n}", "chosen": "yes", "rejected": "no"} for n in range(4)))
    with pytest.raises(StepError, match=r"^rows\.jsonl:1: is a preference pair"):
        here.run(held_out=0)


@pytest.mark.parametrize("given", [{"rules": ({},)}, {"template_digest": "0"}])
def test_what_is_found_cannot_be_given(given):
    faults = process.check(process.Options(**given), {})
    assert [fault.fact for fault in faults] == [f"{next(iter(given))} is found, and not given."]
