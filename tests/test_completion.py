"""What the TAB key offers, in a real bash, and in zsh and fish where they are installed."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pages import make_run

from runner import cli, completion

OWN = """\
steps: [fetch, load, late]
fetch: {model: {path: x}, chats: {path: y}}
late: {stage: generate}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN)


def offered(line):
    return completion.candidates(line, cli.COMMANDS)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("runner sc", ["schema"]),
        ("runner --v", ["--version"]),
        ("runner run ow", ["own"]),
        ("runner run own l", ["late.", "late=", "load.", "load="]),
        ("runner run own late=", ["late=greedy", "late=sampled"]),
        ("runner run own late.top_", ["late.top_k=", "late.top_p="]),
        ("runner run own fetch.chats.sha", ["fetch.chats.sha256="]),
        ("runner run own load.merge=", ["load.merge=false", "load.merge=true"]),
        ("runner run own load.quantization.thr", ["load.quantization.threshold="]),
        ("runner run own load.quantization.method=n", ["load.quantization.method=nf4"]),
        ("runner run own --fresh all ~l", ["~late", "~load"]),
        ("runner plan own --js", ["--json"]),
        ("runner show pro", ["process"]),
        ("runner why own la", ["late"]),
        ("runner why own late load.me", ["load.merge="]),
        ("runner schema ad", ["adapt"]),
        ("runner copy quick", ["quickstart"]),
        ("runner store ver", ["verify"]),
        ("runner completion f", ["fish"]),
        ("runner nothing ", []),
        ("runner run nowhere a", []),
        ("runner run own late.top_k=", []),
        ("", []),
    ],
)
def test_what_may_come_next_is_offered(line, found):
    assert offered(line) == found


def test_every_command_is_offered_and_none_that_is_hidden():
    assert offered("runner ") == sorted(["--help", "--version", *cli.COMMANDS])
    assert "complete" not in cli.COMMANDS


def test_runs_are_offered_by_their_names(tmp_path):
    make_run(tmp_path / "runs")
    assert offered("runner report p") == ["pages", "pages/2026-01-02T03-04-05"]


def test_a_recipe_that_cannot_be_read_completes_to_nothing():
    Path("own.yaml").write_text("steps: [fetch\n")
    assert offered("runner run own l") == []
    Path("own.yaml").write_text("- steps\n")
    assert offered("runner run own l") == []


def test_to_complete_loads_nothing_heavy():
    code = (
        "import sys; from runner.cli import main; main(['complete', 'runner run own load.'])\n"
        "print({'torch', 'hydra', 'omegaconf', 'transformers', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "load.dtype=\n" in done.stdout
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr


# In the shells


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """The environment of a shell that finds this runner."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "runner"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m runner "$@"\n')
    script.chmod(0o755)
    path = os.pathsep.join((str(tmp_path / "bin"), os.environ["PATH"]))
    ways = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PATH": path, "PYTHONPATH": ways, "HOME": str(tmp_path)}


def in_bash(line, shell):
    """What bash would complete the line's last word with."""
    code = (
        'source <(runner completion bash); COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}\n'
        'compopt() { printf "option %s %s\\n" "$@"; }; _runner_complete\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", code, "bash", line]
    done = subprocess.run(command, env=shell, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash_completes_commands_recipes_and_options(shell):
    assert in_bash("runner pl", shell) == ["plan"]
    assert in_bash("runner run own late.top_", shell) == ["late.top_k=", "late.top_p="]
    assert in_bash("runner run own late.temp", shell) == ["option -o nospace", "late.temperature="]
    assert in_bash("runner run own zzz", shell) == [""]


def test_bash_completes_what_follows_an_equals_sign(shell):
    assert in_bash("runner run own late=gr", shell) == ["greedy"]
    assert in_bash("runner run own load.merge=", shell) == ["false", "true"]


def typed(command, keys, wanted, shell):
    """What an interactive shell shows when these keys are typed into it, one text after another."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, {**shell, "TERM": "xterm", "COLUMNS": "200"})
    shown, until = b"", time.monotonic() + 60
    try:
        for each, mark in keys:
            os.write(terminal, each.encode())
            while mark.encode() not in plain(shown) and time.monotonic() < until:
                if select.select([terminal], [], [], 1)[0]:
                    shown += os.read(terminal, 4096)
        return wanted.encode() in plain(shown), shown
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def plain(shown):
    """What a terminal shows, without the codes that move and colour."""
    return re.sub(rb"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", b"", shown)


def test_the_tab_key_works_in_an_interactive_bash(shell):
    keys = [
        ('PS1="ready> "; eval "$(runner completion bash)"; echo se""t\n', "set\r"),
        ("runner run own late=gr\t", "late=greedy "),
    ]
    found, shown = typed(["bash", "--norc", "-i"], keys, "late=greedy ", shell)
    assert found, shown


ZSH = """\
PS1="ready> "; eval "$(runner completion zsh)"
tell() { print -r -- "[$BUFFER]"; BUFFER= }; zle -N tell; bindkey "^X" tell; echo se""t
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_the_tab_key_works_in_an_interactive_zsh(shell):
    lines = {
        "runner pl\t": "[runner plan ]",
        "runner run ow\t": "[runner run own ]",
        "runner run own late=gr\t": "[runner run own late=greedy ]",
        "runner run own late.temp\t0.5": "[runner run own late.temperature=0.5]",
        "runner run own load.quantization.method=n\tx": "load.quantization.method=nf4 x]",
        "runner run own \\~la\t": "[runner run own \\~late ]",
        "runner run --fre\tall": "[runner run --fresh all]",
        "runner run own late.top_\t": "[runner run own late.top_]",  # top_k and top_p are shown
        "runner run own zzz\t": "[runner run own zzz]",
        "runner copy own ow\t": "[runner copy own own.yaml ]",
    }
    keys = [(ZSH, "set\r"), *((line + "\x18", told) for line, told in lines.items())]
    found, shown = typed(["zsh", "-f", "-i"], keys, "own.yaml ]", shell)
    missing = [told for told in lines.values() if told.encode() not in plain(shown)]
    assert not missing, plain(shown).decode()
    assert found, plain(shown)


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
def test_fish_completes_too(shell):
    def completed(line):
        code = f"runner completion fish | source; complete -C '{line}'"
        command = ["fish", "--no-config", "-c", code]
        done = subprocess.run(command, env=shell, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("runner run own late.top_") == ["late.top_k=", "late.top_p="]
    assert completed("runner run own late=gr") == ["late=greedy"]
    assert completed("runner copy own ow") == ["own.yaml"]
