"""A run seen from another terminal, and the forms in which a run shows itself."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import borrower, recipe, source, step
from pages import make_run

from runner import cli, hardware, running
from runner.errors import StepError
from runner.lease import lease
from runner.plan import plan
from runner.report import folder, watching

TOKEN = "hf_" + "abcdefghij" * 3
COMMAND = [sys.executable, "-m", "runner", "watch"]


@pytest.fixture
def carried_out(monkeypatch, store, tmp_path):
    """Carry two steps out; `meanwhile` is called while the second runs."""
    monkeypatch.setattr(hardware, "prepare", lambda: "")
    monkeypatch.chdir(tmp_path)

    def call(meanwhile):
        stage = borrower("b", fault=lambda context: meanwhile())
        steps = step("s0", source("a")), step("s1", stage, {"text": "s0"}), step("s2", source("c"))
        planned = plan(recipe(*steps), store)
        with suppress(StepError):
            running.carry_out(
                planned, store, lambda event: None, tmp_path / "runs", ["run", "trial"]
            )

    return call


def the_rest(process):
    """What a process says after what was read of it, until it ends."""
    with process.stdout:
        out = process.stdout.read()
    process.wait(timeout=30)
    return out


def watched(tmp_path, *words):
    return subprocess.Popen([*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)


def test_a_run_is_followed_to_its_end(carried_out, tmp_path):
    said = []

    def meanwhile():
        said.append(watched(tmp_path))
        said.append(said[0].stdout.readline())  # it is there before the step ends

    carried_out(meanwhile)
    out = the_rest(said[0])
    lines = (said[1] + out).splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d s0: run: not done before", lines[1])
    log = next((tmp_path / "runs/trial").iterdir()) / "log.txt"
    assert lines[:-4] == log.read_text().splitlines()
    name = f"trial/{log.parent.name}"
    assert re.fullmatch(rf"{name}: finished, 3 of 3 steps, \d+ s", lines[-4])
    assert re.fullmatch(r"  s1  run          \d\.\d s", lines[-2])
    assert said[0].returncode == 0


def test_how_far_a_run_is_can_be_asked_once(carried_out, tmp_path):
    said = []
    carried_out(
        lambda: said.append(
            subprocess.run(
                [*COMMAND, "trial", "--once"], cwd=tmp_path, capture_output=True, text=True
            )
        )
    )
    first, *steps = said[0].stdout.splitlines()
    assert re.fullmatch(r"trial/[\dT-]+: running, 1 of 3 steps, \d s", first)
    assert [line.split()[:2] for line in steps] == [
        ["s0", "run"],
        ["s1", "running"],
        ["s2", "waiting"],
    ]
    assert said[0].returncode == 0


def test_a_run_that_fails_is_followed_to_its_page(carried_out, tmp_path):
    said = []

    def meanwhile():
        said.append(watched(tmp_path))
        said[0].stdout.readline()
        raise StepError("no bread today.")

    carried_out(meanwhile)
    out = the_rest(said[0])
    assert ": failed, 1 of 3 steps, " in out
    assert "  s1  failed" in out
    assert "# trial: s1 failed\n\ns1: no bread today.\n" in out
    assert "\n    runner run trial\n" in out
    assert said[0].returncode == 1


def test_in_a_terminal_a_run_is_drawn_until_it_ends(carried_out, tmp_path):
    said = []

    def meanwhile():
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(COLUMNS="100", TERM="xterm")
            os.execv(sys.executable, COMMAND)
        said.extend([pid, terminal, os.read(terminal, 4096)])
        while b"s1  running" not in said[2]:
            said[2] += os.read(terminal, 4096)

    carried_out(meanwhile)
    pid, terminal, shown = said
    with suppress(OSError):
        while chunk := os.read(terminal, 4096):
            shown += chunk
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"s2  waiting" in shown
    assert b"finished, 3 of 3 steps" in shown


def test_a_run_that_was_killed_is_no_longer_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs", ending="unfinished")
    assert cli.main(["watch"]) == 1
    assert "pages/2026-01-02T03-04-05: unfinished, 2 of 5 steps, 321 s\n" in capsys.readouterr().out


def test_a_running_training_shows_its_last_whole_figures(tmp_path):
    made = make_run(tmp_path, TOKEN, ending="unfinished")
    with open(made / "metrics.jsonl", "a") as rows:
        rows.write(json.dumps({"of": "adapt", "step": 61, "loss": 0.123456789}) + "\n")
        rows.write('{"of": "adapt", "step": 62, "lo')
    with lease(made / folder.ALIVE, print):
        lines = [*watching.table(folder.read(made))]
    assert lines[3].startswith("  adapt        running      step 61  loss 0.12346")
    assert "waiting" in lines[4]
    assert TOKEN not in "\n".join(lines)


def test_where_there_is_no_run_there_is_nothing_to_watch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["watch"]) == 1
    assert cli.main(["watch", "quickstart"]) == 1
    assert "runs has no runs" in capsys.readouterr().err


# The forms of a run


@pytest.fixture
def light(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("light.yaml").write_text("steps: [fetch]\nfetch:\n  data: {path: rows.jsonl}\n")
    Path("rows.jsonl").write_text("{}\n")


def test_a_quiet_run_says_nothing_but_what_went_wrong(light, capfd):
    assert cli.main(["run", "light", "--quiet"]) == 0
    assert capfd.readouterr().out == ""
    assert len([*Path("runs/light").iterdir()]) == 1
    assert cli.main(["run", "light", "--quiet", "seed=x"]) == 1
    assert "seed must be a whole number" in capfd.readouterr().err


def test_a_run_for_programs_is_a_line_of_json_for_each_event(light, capfd):
    assert cli.main(["run", "--json", "light"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    steps = {(row["event"], row.get("step")): row for row in rows}
    started, finished = steps["started", "fetch.data"], steps["finished", "fetch.data"]
    assert (started["verdict"], started["reason"]) == ("run", "not done before")
    assert finished["key"] == started["key"]
    assert finished["facts"]["bytes"] == 3
    assert finished["time"] >= started["time"] > time.time() - 600
    assert "with report.html" in rows[-1]["text"]
    assert cli.main(["run", "--json", "light"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [row["verdict"] for row in rows if row["event"] == "finished"] == ["reuse"]
