"""Tokens and passwords: found, hidden, and refused in a recipe."""

import json
import os

import pytest

from runner import secrets
from runner.cli import main
from runner.secrets import HIDDEN, mask, masked

TOKEN = "hf_" + "Abcdefghij" * 3


@pytest.fixture(autouse=True)
def anew(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    secrets.known.cache_clear()
    yield
    secrets.known.cache_clear()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"token={TOKEN}.", f"token={HIDDEN}."),
        ("https://me:pass-word@host/simple", f"https://{HIDDEN}@host/simple"),
        ("Authorization: Bearer abcdefghijklmnop", f"Authorization: Bearer {HIDDEN}"),
        ("ghp_" + "a1" * 18, HIDDEN),
        ("sk-" + "a1" * 18, HIDDEN),
        (
            "https://cdn/x?X-Amz-Signature=0123abcd&a=1",
            f"https://cdn/x?X-Amz-Signature={HIDDEN}&a=1",
        ),
    ],
)
def test_what_has_the_shape_of_a_secret_is_hidden(text, shown):
    assert mask(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "https://host:8080/simple",
        "hf_hub_download",
        "user@host:~/models",
        "sk-learn",
        "16:20:31 evaluate: done",
    ],
)
def test_what_only_looks_a_little_like_one_is_not(text):
    assert mask(text) == text


def test_the_values_of_variables_that_are_named_so_are_hidden(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    monkeypatch.setenv("SHORT_TOKEN", "messages")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "a long word of no import")
    assert mask("a correct horse battery") == f"a {HIDDEN}"
    assert mask("messages, a long word of no import") == "messages, a long word of no import"


def test_tokens_of_hf_auth_login_are_hidden(tmp_path):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("an-unusual-token\n")
    (tmp_path / "hf" / "stored_tokens").write_text("[work]\nhf_token = another-unusual-one\n")
    assert mask("an-unusual-token another-unusual-one") == f"{HIDDEN} {HIDDEN}"


def test_values_within_values_are_hidden():
    assert masked({"a": [TOKEN, 1], "b": {"c": None}}) == {"a": [HIDDEN, 1], "b": {"c": None}}


def test_a_recipe_with_a_token_is_refused_and_the_token_not_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        f"steps: [fetch]\nfetch:\n  data: {{repo: a/b, revision: {TOKEN}}}\n"
    )
    assert main(["plan", "mine.yaml"]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[0].startswith("mine.yaml:3: fetch.data.revision holds a token")
    assert TOKEN not in said


def test_an_override_with_a_token_is_refused_and_nothing_is_left_behind(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "store"))
    assert main(["run", "quickstart", f"process.messages={TOKEN}"]) == 1
    assert TOKEN not in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.name != "hf"] == []


def test_a_token_in_a_wrong_override_is_not_shown(capsys):
    assert main(["plan", "quickstart", f"process.massages={TOKEN}"]) == 1
    said = capsys.readouterr().err
    assert "process.massages" in said
    assert TOKEN not in said


def test_a_failure_report_hides_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(*_, **__):
        raise ValueError(f"bad answer for {TOKEN}")

    monkeypatch.setattr("runner.running.prepare", fail)
    assert main(["plan", "quickstart"]) == 3
    assert TOKEN not in capsys.readouterr().err
    (report,) = (tmp_path / "runs").glob("failure-*.txt")
    assert TOKEN not in report.read_text()
    assert HIDDEN in report.read_text()


def test_what_a_step_prints_notes_and_records_is_hidden(tmp_path, monkeypatch, store):
    from fakes import recipe, source, step

    from runner import hardware, running
    from runner.plan import plan

    def leak(context):
        os.write(1, f"a library prints {TOKEN}\n".encode())
        context.note(f"a note with {TOKEN}")
        context.facts["url"] = f"https://me:{TOKEN}@host"
        context.metrics({"loss": 1.0})

    monkeypatch.setattr(hardware, "prepare", lambda: "")
    what = recipe(step("only", source("only", fault=leak)))
    running.carry_out(plan(what, store), store, lambda event: None, tmp_path / "runs")
    texts = {
        path.name: path.read_text()
        for path in [*tmp_path.rglob("*.txt"), *tmp_path.rglob("*.json*")]
        if not path.is_symlink()
    }
    assert TOKEN not in json.dumps(texts)
    assert texts["log.txt"].count(HIDDEN) == 2
    assert HIDDEN in texts["record.json"]
