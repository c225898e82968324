"""What it costs to see that nothing is to do: `runner plan` and `run` beside `dvc repro`.

Alone, `python tools/deciding.py` prints its part of the page.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from tiny import make_model, make_recipe

ROOT = Path(__file__).parent.parent
DVC = "dvc==3.67.1"
STEPS, ROUNDS = 9, 15
MOST = 0.5
"""The share of dvc's time that ours may be."""
SETTLED = 2.5
"""Seconds after which a new file is old enough to be remembered."""


def page() -> str:
    """The part of docs/figures.md about it."""
    dvc = _dvc()
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = _ours(Path(place) / "ours"), _theirs(dvc, Path(place) / "theirs")
        env = _environment(Path(place))
        commands = {
            "`python -c pass`": ([sys.executable, "-c", "pass"], ours),
            "`dvc repro`": ([str(dvc), "repro"], theirs),
            "`runner plan`": (_runner("plan", "tiny.yaml"), ours),
            "`runner run`": (_runner("run", "tiny.yaml"), ours),
        }
        _once(*commands["`runner run`"], env)
        time.sleep(SETTLED)
        rows = _medians(commands, env)
    theirs_took = rows["`dvc repro`"]
    lines = [
        "",
        f"## Nothing to do, in {STEPS} steps (medians of {ROUNDS}, taken in turn)",
        "",
        f"A recipe of {STEPS} steps over a tiny model, beside a chain of {STEPS} stages of {DVC}"
        " that copy a file; each has been run before.",
        "",
        f"| command | ms | of `dvc repro` (at most {MOST}) |",
        "|---|---|---|",
        *(f"| {name} | {ms:.0f} | {ms / theirs_took:.2f} |" for name, ms in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _medians(commands: dict[str, tuple[list[str], Path]], env: dict[str, str]) -> dict[str, float]:
    """Milliseconds of each; one after the other, so that a busy moment meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(ROUNDS + 1):
        for name, (command, folder) in commands.items():
            took = _once(command, folder, env)
            if number:  # the first time compiles, and remembers
                times[name].append(took)
    return {name: statistics.median(each) * 1000 for name, each in times.items()}


def _once(command: Sequence[str], folder: Path, env: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    return time.perf_counter() - begun


def _environment(place: Path) -> dict[str, str]:
    """As a user has it: compiled code is kept."""
    kept = {name: value for name, value in os.environ.items() if "DONTWRITE" not in name}
    return {
        **kept,
        "PYTHONPYCACHEPREFIX": str(place / "compiled"),
        "RUNNER_STORE": str(place / "store"),
        "OMP_NUM_THREADS": "1",
    }


def _ours(folder: Path) -> Path:
    """A recipe of as many steps."""
    folder.mkdir()
    make_recipe(folder, make_model(folder / "model"))
    return folder


def _theirs(dvc: Path, folder: Path) -> Path:
    """A chain of stages that copy a file, run once."""
    folder.mkdir()
    (folder / "file0").write_text("0\n")
    stages = [
        f"  copy{n}:\n    cmd: cp file{n} file{n + 1}\n    deps: [file{n}]\n"
        f"    outs: [file{n + 1}]\n"
        for n in range(STEPS)
    ]
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(stages))
    for words in (
        ["init", "--no-scm", "--quiet"],
        ["config", "core.analytics", "false"],
        ["config", "core.check_update", "false"],
        ["repro"],
    ):
        subprocess.run([str(dvc), *words], cwd=folder, check=True, capture_output=True)
    return folder


def _dvc() -> Path:
    """dvc in an environment of its own, which stays in build/."""
    home = ROOT / "build" / "dvc"
    command = home / "bin" / "dvc"
    if not command.exists():
        venv.create(home, with_pip=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", DVC]
        subprocess.run(pip, check=True)
    return command


def _runner(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("runner")), *words]


if __name__ == "__main__":
    print(page())
