"""Two runs side by side, and their removal."""

import json
import os
from pathlib import Path

import pytest
import yaml
from pages import make_run

from runner import cli
from runner.lease import lease
from runner.report import comparing, folder

LIGHT = "steps: [fetch]\nfetch:\n  data: {path: rows.jsonl}\n"
OPTIONS = {
    "fetch": {"stage": "fetch", "model": {"repo": "a/b", "revision": "main"}},
    "process": {"stage": "process", "held_out": 64, "workers": None},
    "adapt": {"stage": "adapt", "rank": 8, "learning_rate": 0.001},
    "evaluate": {"stage": "evaluate"},
}


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Two runs that are the same but for what `changes` does to the second's recipe and record."""
    monkeypatch.chdir(tmp_path)

    def call(changes=lambda recipe, record: None):
        for name in ("one", "two"):
            made = make_run(tmp_path / name)
            record, options = json.loads((made / "record.json").read_text()), dict(OPTIONS)
            options = json.loads(json.dumps(options))
            if name == "two":
                changes(options, record)
            (made / "record.json").write_text(json.dumps(record))
            (made / "recipe.yaml").write_text(yaml.safe_dump({"name": "pages", **options}))
            call.folders = [*getattr(call, "folders", []), made][-2:]
        return comparing.compare(*map(folder.read, call.folders))

    return call


def other_bytes(record, *names):
    for name in names:
        record["steps"][name]["digest"] = "ef" * 32


def test_runs_that_are_the_same_differ_in_nothing(pair):
    found = pair()
    assert [*comparing.lines(found)] == ["the results are the same, byte for byte"]


def test_the_option_of_the_first_step_that_differs_explains_the_rest(pair):
    def changes(recipe, record):
        recipe["adapt"]["rank"] = 16
        recipe["process"]["workers"] = 4
        record["libraries"]["torch"] = "2.14.0"
        other_bytes(record, "adapt", "after", "evaluate")
        record["steps"]["evaluate"]["facts"]["exact_match"] = {"after": 0.75}
        record["steps"]["adapt"]["made_in_seconds"] = 66.0

    lines = [*comparing.lines(pair(changes))]
    assert lines == [
        "adapt is the first step that differs: adapt.rank 8 -> 16",
        "\noptions",
        "  adapt.rank  8 -> 16",
        "\nversions",
        "  torch  2.13.0+cpu -> 2.14.0",
        "\nsettings that change no result",
        "  process.workers  null -> 4",
        "\nsteps with other results",
        "  adapt     cdcdcdcdcdcd -> efefefefefef",
        "  after     cdcdcdcdcdcd -> efefefefefef",
        "  evaluate  cdcdcdcdcdcd -> efefefefefef",
        "\nscores",
        "  evaluate.exact_match.after  0.5 -> 0.75 (+0.25)",
        "\nseconds",
        "  adapt  33.0 -> 66.0",
    ]


def test_another_commit_explains_what_was_made_of_it(pair):
    def changes(recipe, record):
        record["sources"]["fetch.model"]["commit"] = "decaf"
        other_bytes(record, "fetch.model", "adapt")

    found = pair(changes)
    assert found.explanation == (
        "fetch.model is the first step that differs: fetch.model.commit c0ffee -> decaf"
    )


def test_versions_and_hardware_explain_what_no_option_does(pair):
    def changes(recipe, record):
        recipe["evaluate"]["samples"] = 9  # of a later step: it cannot be why adapt differs
        record["libraries"]["torch"] = "2.14.0"
        record["gpus"] = []
        record["steps"]["adapt"]["versions"] = {"torch": "2.14.0", "peft": "1"}
        other_bytes(record, "adapt", "evaluate")

    found = pair(changes)
    assert found.explanation == (
        "adapt is the first step that differs: torch 2.13.0+cpu -> 2.14.0 (and 3 more)"
    )
    assert [comparing.said(each) for each in found.machine] == ["gpus GPU plain -> null"]


def test_a_difference_that_nothing_explains_is_said_to_be_one(pair):
    found = pair(lambda recipe, record: other_bytes(record, "adapt"))
    assert found.explanation.endswith("differs, for no reason that is recorded")


def test_a_step_of_one_run_alone_is_said_to_be_one(pair):
    found = pair(lambda recipe, record: record["steps"].pop("after"))
    assert found.explanation == "after was done in one of them only"
    assert "  after  cdcdcdcdcdcd -> not done" in [*comparing.lines(found)]


def test_sizes_are_told_in_words(pair):
    def changes(recipe, record):
        record["steps"]["adapt"]["facts"]["bytes"] = 5_000_000
        first = pair.folders[0] / "record.json"
        was = json.loads(first.read_text())
        was["steps"]["adapt"]["facts"]["bytes"] = 4_000_000
        first.write_text(json.dumps(was))

    assert "  adapt.bytes  4.0 MB -> 5.0 MB" in [*comparing.lines(pair(changes))]


def test_for_programs_a_comparison_is_json(pair, capsys):
    def changes(recipe, record):
        recipe["adapt"]["rank"] = True

    pair(changes)
    assert cli.main(["diff", *map(str, pair.folders), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["options"] == [{"step": "adapt", "name": "rank", "before": 8, "after": True}]
    assert {*found} == {"explanation", "first", *comparing.TITLES}


def test_changed_data_explain_two_real_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("light.yaml").write_text(LIGHT)
    for text in ("{}\n", "{}\n{}\n"):
        Path("rows.jsonl").write_text(text)
        assert cli.main(["run", "light"]) == 0
    runs = sorted(f"light/{path.name}" for path in (tmp_path / "runs/light").iterdir())
    capsys.readouterr()
    assert cli.main(["diff", *runs]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("fetch.data is the first step that differs: fetch.data.digest ")
    assert "  fetch.data.bytes  3 B -> 6 B" in shown


# rm


def test_removed_runs_are_gone_and_their_results_are_not(tmp_path, monkeypatch, capsys, own_store):
    monkeypatch.chdir(tmp_path)
    Path("light.yaml").write_text(LIGHT)
    Path("rows.jsonl").write_text("{}\n")
    cli.main(["run", "light"])
    cli.main(["run", "light"])
    first, second = sorted((tmp_path / "runs/light").iterdir())
    assert cli.main(["rm", f"light/{first.name}", str(second)]) == 0
    assert [*(tmp_path / "runs/light").iterdir()] == []
    assert len(os.listdir(own_store / "entries")) == 1
    capsys.readouterr()
    cli.main(["plan", "light"])
    assert "nothing to do" in capsys.readouterr().out


def test_what_is_no_run_is_not_removed_and_nothing_else_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path / "runs")
    for name in ("pages", "runs", ".", "runs/pages", "pages/2020-01-01T00-00-00"):
        assert cli.main(["rm", str(made), name]) == 1
        assert f"{name} is no run." in capsys.readouterr().err
    assert made.is_dir()


def test_a_run_that_is_going_on_is_not_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path / "runs", ending="unfinished")
    with lease(made / folder.ALIVE, print):
        assert cli.main(["rm", str(made)]) == 1
        assert "is going on; stop it first." in capsys.readouterr().err
        assert folder.read(made).ending == "running"
    assert folder.read(made).ending == "unfinished"
    assert cli.main(["rm", str(made)]) == 0
    assert not made.exists()
