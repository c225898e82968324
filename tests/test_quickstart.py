"""The main job on the real model: taught, squeezed, scored and saved; killed and gone on."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

QUIET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "RUNNER_STORE", "TQDM_DISABLE")


class Place:
    """A working directory and a store for the quickstart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {name: value for name, value in os.environ.items() if name not in QUIET}
        self.env["RUNNER_STORE"] = str(folder / "store")

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "runner", "run", "quickstart", *overrides],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *overrides: str) -> str:
        process = self.start(*overrides)
        out = process.communicate()[0]
        assert process.returncode == 0, out
        return out

    def do(self, *words: str) -> str:
        command = [sys.executable, "-m", "runner", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def record(self) -> dict[str, Any]:
        newest = max((self.folder / "runs" / "quickstart").iterdir(), key=lambda path: path.name)
        return json.loads((newest / "record.json").read_text())

    def steps_at(self) -> int:
        """Training steps done so far, over all runs."""
        paths = self.folder.glob("runs/quickstart/*/metrics.jsonl")
        lines = [line for path in paths for line in path.read_text().splitlines()]
        rows = [row for row in map(json.loads, lines) if row["of"] == "adapt"]
        return max((row["step"] for row in rows), default=0)


@pytest.fixture(scope="module")
def moment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a copy of the store goes, from the middle of training in the undisturbed run."""
    return tmp_path_factory.mktemp("moment")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, moment: Path) -> Place:
    """An undisturbed run of the quickstart."""
    made = Place(tmp_path_factory.mktemp("quickstart"))
    process = made.start("adapt.checkpoint_every=20")
    while made.steps_at() < 45 and process.poll() is None:
        time.sleep(0.05)
    for name in ("drafts", "entries"):
        shutil.copytree(made.folder / "store" / name, moment / "store" / name)
    made.out = process.communicate()[0]  # type: ignore[attr-defined]
    assert process.returncode == 0, made.out  # type: ignore[attr-defined]
    made.first = made.record()  # type: ignore[attr-defined]
    return made


def test_the_quickstart_teaches_squeezes_and_saves(place):
    facts = {name: step["facts"] for name, step in place.first["steps"].items()}
    before, after = facts["evaluate"]["exact_match"].values()
    assert before < 0.1
    assert after > 0.8
    perplexity = facts["evaluate"]["perplexity"]
    assert 1 <= perplexity["reference"] < perplexity["model"] < 1.5 * perplexity["reference"]
    assert facts["quantize"]["bytes_after"] < 0.5 * facts["quantize"]["bytes_before"]
    assert len(facts["evaluate"]["samples"]) == 3
    assert place.first["peak_memory"] < 2.7e9


def test_the_summary_says_what_a_user_wants_to_know(place):
    for pattern in (
        r"exact match +before 0\.0\d, after (0\.[89]\d|1\.00)",
        r"perplexity +before quantizing \d+\.\d+, after \d+\.\d+",
        r"size on disk +269\.1 MB before, 116\.5 MB in nf4",
        r"Write as ISO 8601: .+\n +before  .+\n +after   \d{4}-\d\d-\d\d\n",
        r"run folder: runs/quickstart/",
    ):
        assert re.search(pattern, place.out), pattern
    assert "\x1b" not in place.out


def test_the_two_lines_that_the_summary_prints_give_a_right_answer(place):
    lines = place.out.split("To use it:\n")[1]
    code = "\n".join(line.strip() for line in lines.splitlines())
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=place.folder, env=place.env, capture_output=True, text=True)
    sample = place.first["steps"]["evaluate"]["facts"]["samples"][0]
    assert sample["expected"] in done.stdout, done.stderr


def test_a_second_run_reuses_everything(place):
    out = place.run()
    assert "0 steps run, 10 reused" in out
    assert {step["verdict"] for step in place.record()["steps"].values()} == {"reuse"}
    assert out.split("exact match")[1] == place.out.split("exact match")[1]


def lacking(shown: str, out: str) -> list[str]:
    """The lines of a page that an output does not have in this order, whatever the numbers are."""
    out = re.sub(r"(T\d\d-\d\d-\d\d)-\d+", r"\1", out)  # the run folder of a second's second run
    said = iter([" ".join(line.split()) for line in out.splitlines()])
    wanted = [line for line in shown.splitlines() if line != "..."]
    patterns = [re.sub(r"\d+", r"\\d+", re.escape(" ".join(line.split()))) for line in wanted]
    expected = r"( \(about .*\))?"  # what a plan adds to steps like those that have run
    found = [any(re.fullmatch(each + expected, line) for line in said) for each in patterns]
    return [line for line, is_there in zip(wanted, found, strict=True) if not is_there]


def test_the_tutorial_shows_what_happens(place):
    page = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text()
    shown = re.findall(r"<!-- output: (.*?) -->\n```text\n(.*?)```\n", page, re.DOTALL)
    assert len(shown) == 7
    place.do("copy", "quickstart", "mine.yaml")
    outs = [place.out, *(place.do(*shlex.split(command)) for command, _ in shown[1:])]
    for (command, expected), out in zip(shown, outs, strict=True):
        assert lacking(expected, out) == [], f"{command}\n{out}"


def test_the_quickstart_killed_in_training_and_after_ends_with_the_same_bytes(place, moment):
    """It begins with what the undisturbed run had on disk when training was half done."""
    broken = Place(moment)

    def killed(when: Any) -> None:
        process = broken.start("adapt.checkpoint_every=20")
        while not when() and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def begun(step: str) -> bool:
        logs = sorted(moment.glob("runs/quickstart/*/log.txt"))
        return bool(logs) and f" {step}: run" in logs[-1].read_text()

    killed(lambda: broken.steps_at() >= 65)
    killed(lambda: begun("quantize"))
    broken.run()
    log = "".join(path.read_text() for path in sorted(moment.glob("runs/quickstart/*/log.txt")))
    assert "adapt: going on from step 40" in log
    assert "adapt: going on from step 60" in log

    def digests(record: dict[str, Any]) -> dict[str, str]:
        return {name: step["digest"] for name, step in record["steps"].items() if name != "save"}

    assert digests(broken.record()) == digests(place.first)
    saved = [
        (folder / "models" / "quickstart" / "model.safetensors").read_bytes()
        for folder in (place.folder, moment)
    ]
    assert saved[0] == saved[1]
