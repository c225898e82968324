"""The command line: what it prints, its exit codes, and what it leaves unloaded."""

import errno
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from runner import __version__, cli, places, running
from runner.errors import StepError
from runner.events import Finished, Measured, Noted, Outcome, Progressed, Started
from runner.plan import Verdict
from runner.report.live import live
from runner.report.terminal import Lines, screen
from runner.stages import known

ESCAPE = "\x1b"
LIGHT = """\
# Only a file, so that a run loads nothing heavy.
steps: [fetch]
fetch:
  data: {path: rows.jsonl}
"""
HEAVY = ["torch", "transformers", "datasets", "peft"]
DRIVER = """\
import sys
from runner.cli import main
code = main(sys.argv[2:])
loaded = sorted({*sys.argv[1].split(",")} & {*sys.modules})
print("loaded", *loaded)
sys.exit(code)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with a recipe that is cheap to run."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("{}\n")
    Path("light.yaml").write_text(LIGHT)
    return tmp_path


def runner(*words, command=("-m", "runner")):
    return subprocess.run(
        [sys.executable, *command, *words], capture_output=True, text=True, timeout=60
    )


def loaded(modules, *words):
    """Which of these modules a command has loaded at its end, and its exit code."""
    done = runner(",".join(modules), *words, command=("-c", DRIVER))
    return done.stdout.splitlines()[-1].split()[1:], done.returncode


def keys(recipe, *overrides):
    return {each.step.name: each.key for each in running.prepare(recipe, overrides)[0].steps}


def test_the_version_is_one_line(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"runner {__version__}\n"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(words, capsys):
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith("usage: runner COMMAND ...\n")
    for command in cli.COMMANDS:
        assert f"\n  {command} " in shown.out


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help_of_its_own(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: runner {command} ")


def test_an_unknown_command_exits_2_with_a_guess():
    done = runner("rnu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        'runner has no command "rnu". Did you mean "run"?\n  See: runner --help\n'
    )


def test_an_unknown_command_that_is_like_none_leaves_no_space_at_the_lines_end(capsys):
    assert cli.main(["zzz"]) == 2
    assert capsys.readouterr().err == 'runner has no command "zzz".\n  See: runner --help\n'


@pytest.mark.parametrize("words", [["plan"], ["plan", "light", "--fesh", "all"], ["list", "x"]])
def test_a_command_given_wrongly_exits_2_and_shows_its_usage(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"usage: runner {words[0]} ")


@pytest.mark.parametrize("name", sorted(known()))
def test_show_of_a_stage_describes_every_option(name, capsys):
    assert cli.main(["show", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    stage = known()[name]
    assert lines[0] == f"{name}: {stage.__doc__.strip()}"
    for field in fields(stage.Options):
        [index] = [i for i, line in enumerate(lines) if line.startswith(f"  {field.name}: ")]
        assert field.metadata["help"]
        assert lines[index + 1] == f"      {field.metadata['help']}"


def test_show_of_a_misspelt_stage_guesses_the_stage(capsys):
    assert cli.main(["show", "adpt"]) == 1
    assert 'Did you mean "adapt"?' in capsys.readouterr().err


def test_show_of_a_stage_refuses_overrides_instead_of_ignoring_them(capsys):
    assert cli.main(["show", "adapt", "adapt.rank=4"]) != 0
    assert "adapt.rank=4" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["light", "quickstart"])
def test_what_show_prints_is_a_recipe_with_the_same_keys(recipe, capsys):
    assert cli.main(["show", recipe]) == 0
    text = capsys.readouterr().out
    Path("shown.yaml").write_text(text)
    assert keys("shown") == keys(recipe)
    cli.main(["show", "shown"])
    assert capsys.readouterr().out == text


def test_show_has_the_overrides_in_it(capsys):
    assert cli.main(["show", "quickstart", "adapt.rank=3", "~before", "seed=4"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["adapt"]["rank"] == 3
    assert "before" not in shown
    assert "before" not in shown["steps"]
    assert shown["adapt"]["seed"] == 4


def test_list_names_every_recipe_stage_and_preset(here, capsys):
    (here / "recipes").mkdir()
    (here / "recipes/own.yaml").write_text(LIGHT)
    assert cli.main(["list"]) == 0
    shown = capsys.readouterr().out
    named = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    presets = [f"{stage}={name}" for stage, name, _ in places.presets()]
    assert named == [*(path.stem for path in places.recipes()), *known(), *presets]
    assert {"light", "own", "quickstart"} < {*named}
    assert "  own                    Only a file, so that a run loads nothing heavy.\n" in shown


def test_list_names_the_recipes_of_the_working_directory(capsys):
    cli.main(["list"])
    assert "\n  light " in capsys.readouterr().out


def test_plan_prints_a_line_for_every_step(capsys):
    assert cli.main(["plan", "quickstart"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [step.step.name for step in running.prepare("quickstart", [])[0].steps]
    assert [line.split()[0] for line in lines[:-1]] == names
    assert lines[0] == "fetch.model  run     not done before"
    total = f"{len(names)} of {len(names)} steps to run"
    assert re.fullmatch(rf"{total}, with at least \d+\.\d kB of disk", lines[-1])


def test_plan_for_programs_parses(capsys):
    assert cli.main(["plan", "quickstart", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    planned, _ = running.prepare("quickstart", [])
    assert [(row["step"], row["key"]) for row in rows] == [
        (p.step.name, p.key) for p in planned.steps
    ]
    names = ["step", "key", "verdict", "reason", "disk", "seconds", "memory", "like"]
    assert all(list(row) == names for row in rows)
    assert {row["reason"] for row in rows} == {"not done before"}
    assert {row["seconds"] for row in rows} == {row["like"] for row in rows} == {None}
    disk = {row["step"]: row["disk"] for row in rows}
    assert (
        disk["fetch.data"] == places.shipped("recipes").joinpath("data/dates.jsonl").stat().st_size
    )
    assert disk["fetch.model"] is None


@pytest.mark.parametrize(
    "words",
    [
        ["quickstart", "~before", "seed=3", "--json"],
        ["quickstart", "--json", "~before", "seed=3"],
        ["--json", "quickstart", "~before", "seed=3"],
        ["quickstart", "~before", "--json", "seed=3"],
    ],
)
def test_options_and_overrides_may_come_in_any_order(words, capsys):
    assert cli.main(["plan", *words]) == 0
    keys_there = {row["step"]: row["key"] for row in json.loads(capsys.readouterr().out)}
    assert keys_there == keys("quickstart", "~before", "seed=3")


def test_plan_says_what_run_then_does():
    assert runner("plan", "light").stdout == (
        "fetch.data  run     not done before\n1 of 1 steps to run, with at least 3 B of disk\n"
    )
    first = runner("run", "light")
    assert first.returncode == 0, first.stderr
    assert "fetch.data  run     not done before\nfetch.data  done in " in first.stdout
    assert "light: 1 steps run, 0 reused, " in first.stdout
    again = runner("plan", "light").stdout.splitlines()
    assert again[0].startswith("fetch.data  reuse   done 2")
    assert again[1] == "nothing to do"
    assert "light: 0 steps run, 1 reused, " in runner("run", "light").stdout
    fresh = runner("plan", "light", "--fresh", "fetch.data").stdout
    assert fresh.startswith("fetch.data  run     asked for by --fresh (about ")


def test_an_unknown_step_to_run_afresh_is_guessed(capsys):
    assert cli.main(["plan", "light", "--fresh", "fetch.dat"]) == 1
    assert capsys.readouterr().err == (
        '--fresh: there is no step "fetch.dat". Did you mean "fetch.data"?\n'
    )


def test_a_recipe_error_exits_1_in_a_few_lines_and_loads_nothing_heavy():
    done = runner("run", "quickstart", "adapt.rnk=8")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        'override "adapt.rnk=8": adapt has no option "rnk". Did you mean "rank"?\n'
        "  See: runner show adapt\n"
    )
    assert not Path("runs").exists()
    assert loaded(HEAVY, "run", "quickstart", "adapt.rnk=8") == ([], 1)


@pytest.mark.parametrize(
    "words", [["plan", "quickstart"], ["show", "quickstart"], ["show", "adapt"], ["list"]]
)
def test_looking_loads_nothing_heavy(words):
    assert loaded(HEAVY, *words) == ([], 0)


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_load_almost_nothing(word):
    assert loaded(["hydra", "omegaconf", "yaml", "argparse", *HEAVY], word) == ([], 0)


def test_a_fault_of_our_own_exits_3_and_leaves_a_report(monkeypatch, capsys):
    def fail(words):
        raise LookupError("the thing is gone")

    monkeypatch.setitem(cli.COMMANDS, "plan", fail)
    assert cli.main(["plan", "light"]) == 3
    shown = capsys.readouterr()
    [report] = Path("runs").glob("failure-*.txt")
    assert shown.out == ""
    assert shown.err == (
        "LookupError: the thing is gone\n"
        f"  This should not happen. What we need to mend it is in {report}\n"
    )
    text = report.read_text()
    assert text.startswith(f"runner {__version__} plan, Python 3.")
    assert "Traceback" in text
    assert "LookupError: the thing is gone" in text


def test_a_fault_of_our_own_exits_3_even_where_no_report_can_be_written(monkeypatch, capsys):
    def fail(words):
        raise LookupError("the thing is gone")

    Path("runs").write_text("a file")
    monkeypatch.setitem(cli.COMMANDS, "plan", fail)
    assert cli.main(["plan", "light"]) == 3
    assert "LookupError: the thing is gone" in capsys.readouterr().err


@pytest.mark.parametrize("runs", ["runs", "elsewhere"])
def test_a_file_where_the_runs_should_go_is_told_in_a_line(runs):
    Path(runs).write_text("a file")
    done = runner("run", "light", "--runs", runs)
    assert "Traceback" not in done.stderr
    assert runs in done.stderr
    assert done.returncode == 1


def test_a_store_that_is_a_file_is_told_in_a_line(here, monkeypatch):
    monkeypatch.setenv("RUNNER_STORE", str(here / "rows.jsonl"))
    done = runner("run", "light")
    assert "rows.jsonl" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("error", "code"), [(StepError("no"), 1), (KeyboardInterrupt(), 130), (BrokenPipeError(), 141)]
)
def test_every_ending_has_its_exit_code(error, code, monkeypatch, capsys):
    def end(words):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "plan", end)
    assert cli.main(["plan"]) == code
    assert not Path("runs").exists()


def test_plain_output_has_no_escape_codes(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for words in (["run", "light"], ["run", "light"], ["plan", "light"], ["list"], ["plan", "x"]):
        done = runner(*words)
        assert ESCAPE not in done.stdout + done.stderr


# What a run looks like


def happenings(planned):
    """Every kind of event that a run of this plan can send."""
    first, *others = planned.steps
    yield Noted("", "a note of the whole run, longer than any narrow terminal is wide: " + "x" * 60)
    outcome = Outcome(first, Verdict.REUSE, "done before", 0.0, None)
    yield Finished(outcome)
    for step in others:
        yield Started(step)
        yield Noted(step.step.name, "a [bold]note[/bold] with brackets [/] and " + "x" * 150)
        yield Progressed(step.step.name, 0, 0, "steps", {})
        yield Progressed(step.step.name, 3e6, 9e6, "bytes", {})
        figures = {"loss": 0.1234, "tokens_per_second": 350}
        yield Progressed(step.step.name, 3, 9, "steps", figures)
        yield Measured(step.step.name, {"loss": 0.1})
        if step is not others[-1]:
            yield Finished(Outcome(step, Verdict.RUN, "not done before", 1.5, None))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_live_table_shows_every_step_and_its_state(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    planned, _ = running.prepare("quickstart", [])
    stream = io.StringIO()
    with live(planned, stream) as tell:
        for event in happenings(planned):
            tell(event)
    drawn = stream.getvalue().splitlines()
    assert all(len(line) <= width for line in drawn)
    shown = [tuple(line.split()[:2]) for line in drawn[-len(planned.steps) :]]
    names = [each.step.name for each in planned.steps]
    states = ["reused", *["done"] * (len(names) - 2), "running"]
    assert shown == list(zip(names, states, strict=True))


@pytest.mark.parametrize("width", [60, 120])
def test_the_live_table_is_drawn_on_a_real_terminal(width, monkeypatch):
    for name in ("LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    planned, _ = running.prepare("quickstart", [])
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    read: list[bytes] = []
    reader = threading.Thread(target=drain, args=(master, read))
    reader.start()
    with open(slave, "w", encoding="utf-8") as stream, screen(planned, stream) as tell:
        for event in happenings(planned):
            tell(event)
    reader.join(timeout=10)
    os.close(master)
    drawn = b"".join(read).decode()
    assert ESCAPE in drawn
    for each in planned.steps:
        assert each.step.name in drawn
    assert "running" in drawn
    assert "reused" in drawn


def drain(master, read):
    """Keep what is written to a terminal until nobody can write to it any more."""
    try:
        while chunk := os.read(master, 65536):
            read.append(chunk)
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def test_plain_lines_say_every_step_and_note():
    planned, _ = running.prepare("quickstart", [])
    stream = io.StringIO()
    lines = Lines(planned, stream)
    for event in happenings(planned):
        lines.hear(event)
    shown = stream.getvalue()
    assert ESCAPE not in shown
    assert "fetch.model  reuse   done before\n" in shown
    assert "fetch.data   run     not done before\n" in shown
    assert "fetch.data   done in 1.5 s\n" in shown
    assert "a [bold]note[/bold] with brackets [/] and" in shown
