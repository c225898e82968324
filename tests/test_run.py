"""A whole recipe over all stages on a tiny model: run, run again, kill, stop, damage."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import make_recipe

STEPS = 10


class Place:
    """A working directory with the tiny recipe and a store of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        folder.mkdir(exist_ok=True)
        self.recipe = make_recipe(folder, model)

    def start(self, *words: str, **settings: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "runner", words[0], "tiny.yaml", *words[1:]]
        env = {**os.environ, "RUNNER_STORE": str(self.store)}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **settings,
        )

    def run(self, *words: str) -> str:
        process = self.start("run", *words)
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        return out

    def record(self) -> dict[str, Any]:
        """The record of the last run, by step."""
        newest = max((self.folder / "runs" / "tiny").iterdir(), key=lambda path: path.name)
        record = json.loads((newest / "record.json").read_text())
        assert len(record["steps"]) == STEPS
        return record["steps"]

    def metrics(self) -> list[Path]:
        return sorted((self.folder / "runs" / "tiny").glob("*/metrics.jsonl"))

    def measured(self) -> int:
        """How many rows of figures all runs have left."""
        return sum(len(path.read_text().splitlines()) for path in self.metrics())

    def digests(self) -> dict[str, str]:
        return {name: facts["digest"] for name, facts in self.record().items()}

    def verdicts(self) -> dict[str, str]:
        return {name: facts["verdict"] for name, facts in self.record().items()}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a copy goes of what the undisturbed run has left."""
    return tmp_path_factory.mktemp("left")


@pytest.fixture(scope="module")
def whole(tiny_model: Path, left: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """An undisturbed run; one test after the other goes on in its folder."""
    place = Place(tmp_path_factory.mktemp("whole"), tiny_model)
    place.run()
    shutil.copytree(place.folder, left, symlinks=True, dirs_exist_ok=True)
    return place


@pytest.fixture
def done(whole: Place, left: Path, tiny_model: Path, tmp_path: Path) -> Place:
    """What the undisturbed run has left, in a folder of the test's own."""
    shutil.copytree(left, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Place(tmp_path, tiny_model)


def without_save(digests: dict[str, str]) -> dict[str, str]:
    """Save keeps the target's own path, which differs from folder to folder."""
    return {name: digest for name, digest in digests.items() if name != "save"}


def test_a_run_leaves_recipe_record_log_metrics_links_and_a_model(whole):
    run = next((whole.folder / "runs" / "tiny").iterdir())
    for name, facts in whole.record().items():
        assert facts["verdict"] == "run"
        assert (run / "products" / name).is_dir()
        assert set(facts) >= {"key", "reason", "seconds", "digest", "versions", "facts"}
    assert "rank: 4" in (run / "recipe.yaml").read_text()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["of"] == "after"] == [3, 6, 8]
    rows = [row for row in rows if row["of"] == "adapt"]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if "held_out_loss" in row] == [0, 12]
    assert all(row.get("loss", row.get("held_out_loss")) > 0 for row in rows)
    assert "run: finished" in (run / "log.txt").read_text()
    assert (whole.folder / "saved" / "model.safetensors").is_file()


def test_the_resolved_recipe_of_a_run_gives_the_same_keys(whole):
    run = next((whole.folder / "runs" / "tiny").iterdir())
    command = [sys.executable, "-m", "runner", "plan", str(run / "recipe.yaml"), "--json"]
    env = {**os.environ, "RUNNER_STORE": str(whole.store)}
    done = subprocess.run(command, cwd=whole.folder, env=env, capture_output=True, text=True)
    assert {row["step"]: row["key"] for row in json.loads(done.stdout)} == {
        name: facts["key"] for name, facts in whole.record().items()
    }


DRIVER = """
import sys
from runner.cli import main
code = main(["run", "tiny.yaml"])
heavy = {"torch", "transformers", "datasets", "peft", "pyarrow", "numpy", "jinja2", "matplotlib"}
heavy &= set(sys.modules)
print("heavy:", sorted(heavy))
sys.exit(code)
"""


def test_a_second_run_does_nothing_and_loads_no_heavy_library(whole):
    env = {**os.environ, "RUNNER_STORE": str(whole.store)}
    command = [sys.executable, "-c", DRIVER]
    done = subprocess.run(command, cwd=whole.folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stdout
    assert "0 steps run, 10 reused" in done.stdout
    assert "\x1b" not in done.stdout
    assert set(whole.verdicts().values()) == {"reuse"}


def test_a_changed_option_reruns_that_step_and_what_depends_on_it(whole):
    whole.run("after.max_new_tokens=7")
    assert changed(whole) == {"after", "evaluate", "save"}  # its card shows answers and scores
    whole.run("adapt.rank=2")
    assert changed(whole) == {"adapt", "after", "quantize", "evaluate", "save"}
    whole.run()
    assert changed(whole) == {"save"}  # its folder had been written over


def changed(place: Place) -> set[str]:
    return {name for name, verdict in place.verdicts().items() if verdict != "reuse"}


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(whole, tiny_model, tmp_path):
    clock = random.Random(11)
    place = Place(tmp_path, tiny_model)
    committed: set[str] = set()
    for _ in range(40):
        process = place.start("run")
        try:
            process.wait(timeout=clock.uniform(0.3, 9.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        made = {path.name for path in (place.store / "entries").glob("*")}
        assert committed <= made, "a finished step was lost"
        committed = made
        if process.returncode == 0:
            break
    place.run()
    assert without_save(place.digests()) == without_save(whole.digests())
    assert not list((place.store / "leases").glob("[!.]*"))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_keeps_a_checkpoint_and_the_run_goes_on(number, code, done):
    process = done.start("run", "adapt.max_steps=4000")
    before, deadline = done.measured(), time.monotonic() + 120
    while done.measured() < before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on from here" in err
    assert "Traceback" not in err
    assert list(done.store.glob("drafts/*/checkpoints/*/.checkpoint.json"))
    plan = done.start("plan", "adapt.max_steps=4000").communicate()[0]
    assert "adapt        resume  begun before and not finished" in plan


def test_a_damaged_result_is_made_again_and_never_used(done):
    expected = done.digests()
    adapter = next(done.store.glob("entries/*/product/adapter_model.safetensors"))
    adapter.chmod(0o644)
    torn = bytearray(adapter.read_bytes())
    torn[-1] ^= 1  # the size stays: only reading every byte can tell
    adapter.write_bytes(torn)
    out = done.run("after.max_new_tokens=5")  # asks for the adapter
    assert "adapter_model.safetensors has other bytes than were written" in out
    after = done.digests()
    assert {name: after[name] for name in ("adapt", "quantize")} == {
        name: expected[name] for name in ("adapt", "quantize")
    }


def test_two_runs_at_once_do_each_step_once(tiny_model, tmp_path):
    place = Place(tmp_path, tiny_model)
    both = [place.start("run"), place.start("run")]
    outs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    records = [
        json.loads(path.read_text())["steps"]
        for path in sorted((tmp_path / "runs" / "tiny").glob("*/record.json"))
    ]
    assert len(records) == 2
    for name in records[0]:
        verdicts = sorted(record[name]["verdict"] for record in records)
        assert verdicts in (["reuse", "run"], ["reuse", "resume"]), (name, verdicts)


def test_the_room_that_steps_ask_for_is_what_they_take(tiny_model, tmp_path, monkeypatch):
    """On a tiny model, from what earlier steps have found out; headers make files a bit larger."""
    from runner import files, room, running, upkeep

    place = Place(tmp_path, tiny_model)
    place.run()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNNER_STORE", str(place.store))
    done, store = running.prepare("tiny.yaml", [])
    assert [found for _, found in room.rooms(done, store)] == [room.Room()] * STEPS
    anew, _ = running.prepare("tiny.yaml", [], ["all"])
    asked = {planned.step.name: found for planned, found in room.rooms(anew, store)}
    taken = {p.step.name: upkeep.size_of(store.entry(p.key)) for p in done.steps}
    for name in ("fetch.model", "fetch.data"):
        assert asked[name].kept == taken[name]
    assert asked["process"].kept < taken["process"]
    weights = store.entry(done.step("adapt").key).product / "adapter_model.safetensors"
    assert 0.9 * weights.stat().st_size < asked["adapt"].kept < weights.stat().st_size
    assert asked["quantize"].kept < taken["quantize"]
    folder, size = asked["save"].outside
    assert folder == tmp_path / "saved"
    assert size < files.size_below(folder)
