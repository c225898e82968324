"""`runner check`: everything at once, with nothing brought, and what is done is not asked again."""

import io
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import hub as double
import huggingface_hub
import pytest
from hub import Repo, Token
from huggingface_hub import constants
from mistakes import Mistake, row

from runner import cli, network
from runner.data import trial
from runner.quantizing import calibration
from runner.quantizing.settings import Calibration
from runner.saving import targets
from runner.sources import url
from runner.sources.hub import errors as hub_errors

READER = "hf_" + "r" * 30
TEMPLATE = "/{repo_id}/resolve/{revision}/{filename}"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def laid(tmp_path, monkeypatch, tiny_model):
    """Lay a recipe with these changes out; gives the words of a check."""
    monkeypatch.chdir(tmp_path)

    def lay(change=("", ""), words=(), files=None):
        return Mistake("", "", "", change, words, files or {}).lay(tmp_path, tiny_model)

    return lay


def found(capsys, *words):
    """What a check says, as a program reads it, and its exit code."""
    code = cli.main(["check", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def facts(rows, severity, where=None):
    """The facts of that weight."""
    right = [each for each in rows if each["severity"] == severity]
    return [each["fact"] for each in right if where in (None, each["where"])]


def test_a_fault_in_one_step_hides_none_in_another(laid, capsys):
    words = laid(
        ("rank: 4", "rank: four"),
        ("fetch.data.path=null", "fetch.data.url='https://127.0.0.1:9/a'", "save.to=taken"),
        {"taken/it.txt": "mine"},
    )
    code, rows = found(capsys, *words)
    assert code == 1
    errors = facts(rows, "error")
    assert len(errors) == 2
    assert 'adapt.rank must be a whole number, got "four".' in errors
    assert any("what is behind a URL may change" in each for each in errors)


def test_a_faulty_step_is_left_aside_with_what_builds_on_it_and_the_rest_is_looked_at(laid, capsys):
    bad = row(0) + '{"messages": 4}\n'
    words = laid(("dtype: float32", "dtyp: float32"), files={"rows.jsonl": bad})
    _, rows = found(capsys, *words)
    assert any('load has no option "dtyp"' in each for each in facts(rows, "error"))
    [said] = [each for each in rows if each["where"] == "process" and each["severity"] == "error"]
    assert said["fact"].startswith("rows.jsonl:2: ")
    assert said["command"] == "Leave such rows out: process.on_bad_row=skip"


def test_findings_are_lines_with_their_weight_and_a_count(laid, capsys):
    assert cli.main(["check", *laid(("rank: 4", "rnk: 4"))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == 'error    right.yaml:10: adapt has no option "rnk". Did you mean "rank"?'
    assert lines[1] == "           See: runner show adapt"
    assert lines[-1] == "1 error"
    path = Path("right.yaml")
    path.write_text(path.read_text().replace("rnk: 4", "rank: 4"))
    assert cli.main(["check", "right.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing is wrong"


def test_a_check_writes_nothing_beside_the_recipe(laid, capsys, tmp_path):
    words = laid()
    before = sorted(tmp_path.rglob("*"))
    assert found(capsys, *words)[0] == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_of_a_step_that_is_done_nothing_is_asked(laid, capsys):
    laid()
    text = Path("right.yaml").read_text()
    fetch, process = text[text.index("fetch:\n") :].split("load:")[0].split("process:")
    Path("right.yaml").write_text(f"steps: [fetch, process]\n{fetch}process:{process}")
    words = ["right.yaml"]
    assert facts(found(capsys, *words)[1], "note", "process")
    assert cli.main(["run", *words, "--quiet"]) == 0
    capsys.readouterr()
    assert found(capsys, *words) == (0, [])


def test_what_the_disk_cannot_hold_is_an_error_with_the_figures(laid, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 100))
    code, rows = found(capsys, *laid())
    assert code == 1
    [data] = facts(rows, "error", "fetch.data")
    assert "and " in data
    assert data.endswith("has 100 B free.")


def test_what_the_memory_cannot_hold_is_an_error_with_what_to_try(laid, capsys, monkeypatch):
    from runner import hardware

    words = laid()
    assert "takes about" in facts(found(capsys, *words)[1], "note", "adapt")[0]
    monkeypatch.setattr(hardware, "free_memory", lambda device: 1000)
    code, rows = found(capsys, *words)
    assert code == 1
    [fact] = facts(rows, "error", "adapt")
    assert "and cpu has 1.0 kB free" in fact


def test_rows_longer_than_the_model_was_made_for_are_a_warning(laid, capsys):
    code, rows = found(capsys, *laid(("max_length: 128", "max_length: 512")))
    assert code == 0
    assert facts(rows, "warning") == ["rows may have 512 tokens, and the model was made for 256."]


def test_more_truncated_rows_than_may_be_are_a_warning(laid, capsys):
    long = {"rows.jsonl": "".join(row(number, "word " * 40) for number in range(24))}
    change = ("max_length: 128", "max_length: 128, on_long: truncate")
    warned = facts(found(capsys, *laid(change, files=long))[1], "warning", "process")
    assert warned == ["24 of the first 24 rows are truncated."]
    text = Path("right.yaml").read_text().replace("truncate", "truncate, max_truncated: 1")
    Path("right.yaml").write_text(text)
    assert not facts(found(capsys, "right.yaml")[1], "warning", "process")


def test_rows_that_are_not_here_are_not_looked_at_and_the_check_says_so(laid, capsys, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    words = laid(("{path: model}", '{wheel: "some==1.0", members: ["*"]}'))
    code, rows = found(capsys, *words)
    assert code == 1
    notes = facts(rows, "note", "process")
    assert notes[0] == "the first 24 rows can be read."
    assert notes[1].startswith("template and masks are not looked at: the tokenizer")


def test_a_locked_check_insists_on_the_lock_file(laid, capsys):
    code, rows = found(capsys, *laid(), "--locked")
    assert code == 1
    assert facts(rows, "error") == ["there is no lock file."]


def test_offline_nobody_is_asked(laid, capsys, monkeypatch):
    for name in ("RUNNER_OFFLINE", *network.LIBRARIES):
        monkeypatch.setenv(name, "")
    words = laid(("{path: model}", '{wheel: "some==1.0", members: ["*"]}'))
    code, rows = found(capsys, *words, "--offline")
    assert code == 1
    assert facts(rows, "error") == ["some==1.0 is not here, and the network may not be used."]


def test_few_rows_to_calibrate_with_are_a_warning():
    usual = Calibration(rows=128, max_length=512)
    assert [*calibration.hints(usual, {})] == []
    [few] = calibration.hints(Calibration(rows=16, max_length=256), {})
    assert few.problem.fact.startswith("calibrates with at most 16 rows of 4,096 tokens in all")
    [lacking] = calibration.hints(usual, {"counts": {"rows": 40}, "max_length": 1024})
    assert lacking.problem.fact.startswith("calibrates with at most 40 rows of 20,480 tokens")


def test_a_folder_of_an_earlier_run_is_a_warning_until_it_may_be_replaced(tmp_path):
    (tmp_path / "runner.json").write_text("{}")
    targets.insist(tmp_path, overwrite=False)
    assert len([*targets.hints(tmp_path, overwrite=False)]) == 1
    assert [*targets.hints(tmp_path, overwrite=True)] == []
    assert [*targets.hints(tmp_path / "new", overwrite=False)] == []


def test_a_folder_below_a_file_can_never_be(tmp_path):
    from runner.errors import StepError

    (tmp_path / "file").write_text("")
    with pytest.raises(StepError, match=r"file is a file, so that there can be no folder"):
        targets.insist(tmp_path / "file" / "out", overwrite=True)


def test_a_look_takes_the_first_rows_alone():
    from runner.stages.process import Options

    assert trial.few(Options()).first == trial.ROWS == 64
    assert trial.few(Options(first=3, held_out=9)).first == 3
    assert trial.few(Options(held_out=9)).held_out == 0


# What the Hub is asked


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub with a model that all may have, and somebody logged in who may read."""
    content = {"config.json": b"{}", "model.safetensors": bytes(5000)}
    repos = Repo("acme/tiny", files=content), Repo("acme/data", "dataset", {"rows.jsonl": b"{}"})
    with double.serve(*repos, tokens={READER: Token("read")}) as served:
        for name, value in {
            "ENDPOINT": served.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.endpoint + TEMPLATE,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", READER)
        yield served
        huggingface_hub.close_session()


def test_the_hub_is_asked_for_names_and_a_head_and_never_for_a_file(laid, server, capsys):
    words = laid(("{path: model}", "{repo: acme/tiny}"), ("steps=[fetch]",))
    Path("right.yaml").write_text("steps: [fetch]\nfetch: {model: {repo: acme/tiny}}\n")
    assert found(capsys, words[0])[0] == 0
    assert server.asked("HEAD .*/resolve/.*model.safetensors|HEAD .*/resolve/.*config.json")
    assert not server.asked("GET .*/resolve/")
    listed = len(server.asked("/tree/"))
    assert found(capsys, words[0])[0] == 0
    assert len(server.asked("/tree/")) == listed == 1, "a commit's listing never changes"


def test_what_is_in_the_hub_cache_already_is_not_asked_for(laid, server, capsys):
    laid()
    Path("right.yaml").write_text("steps: [fetch]\nfetch: {model: {repo: acme/tiny}}\n")
    assert cli.main(["run", "right.yaml", "--quiet"]) == 0
    shutil.rmtree(Path(os.environ["RUNNER_STORE"]) / "entries")
    server.requests.clear()
    capsys.readouterr()
    assert found(capsys, "right.yaml")[0] == 0
    assert not server.asked("/resolve/|/tree/")


def test_a_hub_cache_without_room_is_told_with_the_way_out(laid, server, capsys, monkeypatch):
    laid()
    Path("right.yaml").write_text("steps: [fetch]\nfetch: {model: {repo: acme/tiny}}\n")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 0, 100))
    code, rows = found(capsys, "right.yaml")
    assert code == 1
    assert "needs 5.0 kB on disk" in facts(rows, "error", "fetch.model")[0]
    assert rows[0]["command"].startswith("HF_HOME=FOLDER ")


def test_a_push_that_would_be_refused_is_told(laid, server, capsys):
    code, rows = found(capsys, *laid(("verify: false", "verify: false, push: acme/theirs")))
    assert code == 1
    [fact] = facts(rows, "error", "save")
    assert "would refuse a push to acme/theirs: your token may only read" in fact


def test_a_url_is_asked_for_again_as_long_as_a_download_would(monkeypatch):
    answers = iter([TimeoutError("slow"), ConnectionError("gone"), (io.BytesIO(), 0, 7)])

    def opened(url, begin):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(url, "PAUSE", 0.001)
    monkeypatch.setattr(url, "_opened", opened)
    assert url.reach("https://example.org/rows.jsonl") == 7


def test_trouble_of_the_hubs_own_is_left_to_the_fetch(laid, server, capsys, monkeypatch):
    monkeypatch.setattr(hub_errors, "PAUSE", 0.001)
    laid()
    Path("right.yaml").write_text("steps: [fetch]\nfetch: {model: {repo: acme/tiny}}\n")
    for _ in range(2):
        server.fault("^HEAD .*/resolve/", status=503)
    assert found(capsys, "right.yaml")[0] == 0
    assert len(server.asked("^HEAD .*/resolve/")) == 2
