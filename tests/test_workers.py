"""Several processes that train together: what they give, and what becomes of them when some die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import make_data

from runner import hardware, secrets
from runner.checkpoint import Checkpoints
from runner.errors import StepError, Stopped
from runner.products import Dataset, Model, open_model
from runner.stage import Context
from runner.stages import adapt
from runner.training import workers

ROWS = 24
LONG = {"epochs": 8.0, "checkpoint_every": 5}  # 48 steps


def dataset(packed=False):
    """Rows of unequal lengths, of which about two thirds of the tokens are trained."""
    import datasets
    import torch

    from runner.data import pack

    torch.manual_seed(1)
    made = []
    for number in range(ROWS):
        ids = torch.randint(0, 250, (4 + 7 * number % 40,)).tolist()
        made.append({"input_ids": ids, "labels": [-100] * (len(ids) // 3) + ids[len(ids) // 3 :]})
    if packed:
        made = [pack.joined(made[at : at + 3]) for at in range(0, ROWS, 3)]
    train = datasets.Dataset.from_list(made)
    return Dataset(train=train, held_out=train.select([]))


class Step:
    """A step's context over a folder, and what was said to it."""

    def __init__(self, folder, on_progress=lambda step, done: None):
        self.notes, self.rows, self.signal, self.folder = [], [], None, folder
        self.context = Context(
            draft=folder / "work",
            checkpoint=Checkpoints(folder / "checkpoints", self.notes.append),
            progress=lambda done, total, unit, **figures: on_progress(self, done),
            note=self.notes.append,
            metrics=self.rows.append,
            stop_signal=lambda: self.signal,
        )
        self.context.draft.mkdir(parents=True, exist_ok=True)

    def train(self, model, data=None, **options):
        """Train in float32; gives the bytes of the adapter that the step saves."""
        import torch

        opened = open_model(model, dtype=torch.float32)
        inputs = {"model": Model(opened.model, opened.tokenizer), "dataset": data or dataset()}
        settings = {
            "rank": 4,
            "effective_batch_size": 4,
            "epochs": 2.0,
            "checkpoint_every": 3,
            "devices": 2,
        }
        product = adapt.run(adapt.Options(**{**settings, **options}), inputs, self.context)
        saved = self.folder / "saved"
        saved.mkdir()
        adapt.save(product, saved)
        return (saved / "adapter_model.safetensors").read_bytes()


def difference(one, other):
    from safetensors.torch import load

    one, other = load(one), load(other)
    assert {*one} == {*other}
    return max((one[name] - other[name]).abs().max().item() for name in one)


def running(folder):
    """The workers over a folder: rank and process id."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"runner.training.worker" in words and str(folder).encode() in words[-2]:
                settings = (place / "environ").read_bytes().split(b"\0")
                rank = next(each for each in settings if each.startswith(b"RANK="))
                found[int(rank.removeprefix(b"RANK="))] = int(place.name)
        except (OSError, IndexError):
            continue
    return found


def kill_once(at, rank, number=signal.SIGKILL):
    """What to do when training has come so far: kill a worker, once."""
    killed = []

    def on_progress(step, done):
        if done >= at and not killed:
            killed.append(done)
            os.kill(running(step.folder)[rank], number)

    return on_progress


@pytest.fixture(scope="module")
def undisturbed(tiny_model, tmp_path_factory):
    """The adapter that two processes give that nobody disturbs."""
    return Step(tmp_path_factory.mktemp("undisturbed")).train(tiny_model, **LONG)


@pytest.mark.parametrize("packed", [False, True])
def test_two_processes_learn_what_one_learns(tiny_model, tmp_path, packed):
    one, two = Step(tmp_path / "one"), Step(tmp_path / "two")
    alone = one.train(tiny_model, dataset(packed), devices=1)
    together = two.train(tiny_model, dataset(packed), devices=2)
    assert difference(alone, together) < 1e-5
    assert [row["step"] for row in two.rows] == [row["step"] for row in one.rows]
    assert [row["loss"] for row in two.rows] == pytest.approx([r["loss"] for r in one.rows])
    assert two.context.facts["devices"] == 2
    assert two.context.facts["steps"] == one.context.facts["steps"]


def test_a_killed_worker_costs_nothing_but_time(tiny_model, tmp_path, undisturbed):
    step = Step(tmp_path, kill_once(at=12, rank=1))
    assert step.train(tiny_model, **LONG) == undisturbed
    died, resumed = step.notes
    log = tmp_path / "work" / "worker-1.log"
    assert died == (
        f"worker 1 of 2 died (SIGKILL); its log: {log}."
        " Going on from the last checkpoint (retry 1 of 1)."
    )
    assert resumed.startswith("going on from step ")
    assert not running(tmp_path)


def test_a_worker_that_dies_too_often_is_named_with_its_log(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "dates-and-figs-0815")
    secrets.known.cache_clear()
    speaks = "import os; print('I am', os.environ['SOME_TOKEN'])"
    (tmp_path / "sitecustomize.py").write_text(speaks)
    monkeypatch.syspath_prepend(str(tmp_path))
    step = Step(tmp_path, kill_once(at=3, rank=0))
    with pytest.raises(StepError, match=r"worker 0 of 2 died \(SIGKILL\)") as raised:
        step.train(tiny_model, retries=0, **LONG)
    secrets.known.cache_clear()
    log = tmp_path / "work" / "worker-0.log"
    assert str(log) in str(raised.value)
    assert "  | I am [hidden]" in str(raised.value)
    assert "I am [hidden]" in log.read_text()
    assert "dates-and-figs" not in log.read_text()
    assert not running(tmp_path)


def test_a_signal_is_heard_by_all_and_the_same_bytes_come_out(tiny_model, tmp_path, undisturbed):
    def stop(step, done):
        step.signal = "SIGTERM" if done >= 10 else None

    stopped = Step(tmp_path / "two", stop)
    with pytest.raises(Stopped):
        stopped.train(tiny_model, **LONG)
    number, _ = stopped.context.checkpoint.newest()
    assert 10 <= number < 48
    assert number == stopped.rows[-1]["step"]
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    assert Step(tmp_path / "two").train(tiny_model, **LONG) == undisturbed
    alone = Step(tmp_path / "one")
    assert difference(alone.train(tiny_model, devices=1, **LONG), undisturbed) < 1e-5
    said = "2 devices came this far, now there are 1: the same rows a step, with other rounding"
    assert said in alone.notes


def test_what_is_wrong_with_the_training_itself_is_not_tried_again(tiny_model, tmp_path):
    step = Step(tmp_path)
    with pytest.raises(StepError, match="the gradient's norm is nan at step") as raised:
        step.train(tiny_model, learning_rate=1e30, warmup_steps=0)
    assert "try a lower adapt.learning_rate" in raised.value.command
    assert not any("retry" in note for note in step.notes)
    assert not running(tmp_path)


STARVED = """
import os
if os.environ.get("RANK") == "1":
    from runner.training import loss
    whole, calls = loss.trained_loss, []
    def short_of_memory(model, inputs, divisor):
        calls.append(model)
        if len(calls) > {after} and len(inputs["input_ids"]) > 1:
            raise MemoryError
        return whole(model, inputs, divisor)
    loss.trained_loss = short_of_memory
"""


@pytest.mark.parametrize("after", [0, 7])
def test_where_one_has_no_memory_all_go_on_from_the_last_step_with_fewer_rows(
    tiny_model, tmp_path, monkeypatch, after
):
    alone = Step(tmp_path / "one").train(tiny_model, devices=1)
    (tmp_path / "sitecustomize.py").write_text(STARVED.format(after=after))
    monkeypatch.syspath_prepend(str(tmp_path))
    step = Step(tmp_path / "two")
    together = step.train(tiny_model, checkpoint_every=None, retries=0)
    assert difference(alone, together) < 1e-5
    halved = f"not enough memory at step {after + 1}: goes on with 1 rows at once"
    assert step.notes[0].startswith(halved)
    assert step.notes[1:] == ([f"going on from step {after}"] if after else [])
    assert [row["step"] for row in step.rows] == list(range(1, 13))
    assert step.context.facts["micro_batch_size"] == 1


def test_where_a_single_row_has_no_memory_nobody_tries_again(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(STARVED.format(after=3).replace("> 1:", "> 0:"))
    monkeypatch.syspath_prepend(str(tmp_path))
    step = Step(tmp_path / "two")
    with pytest.raises(StepError, match="even with a single row at once"):
        step.train(tiny_model, effective_batch_size=2)
    assert not running(tmp_path)


def test_devices_must_be_there_and_have_a_row_each(monkeypatch):
    def faults(**options):
        return [each.fact for each in workers.check(adapt.Options(**options))]

    assert faults(devices=4, effective_batch_size=6) == []
    assert faults(devices=4, effective_batch_size=3) == ["3 rows a step are fewer than 4 devices."]
    drawn = "each process of grpo would draw answers of its own: with more devices, others."
    assert faults(devices=2, objective="grpo") == [drawn]
    assert faults(devices=1, objective="grpo") == []
    gpu = hardware.Gpu("a GPU", 1 << 30, (9, 0))
    monkeypatch.setattr(hardware, "gpus", lambda: (gpu, gpu))
    assert faults(devices=4) == ["there are 2 GPUs, not 4."]
    assert workers.count(adapt.Options(objective="grpo")) == 1
    assert workers.count(adapt.Options()) == 2
    assert workers.count(adapt.Options(devices=1)) == 1


# The whole command


@pytest.fixture
def command(tmp_path, tiny_model):
    """`runner run` of a recipe that trains with two processes."""
    make_data(tmp_path / "rows.jsonl")
    recipe = {
        "name": "two",
        "steps": ["fetch", "process", "load", "adapt"],
        "fetch": {"model": {"path": str(tiny_model)}, "data": {"path": "rows.jsonl"}},
        "process": {"held_out": 8},
        "adapt": {"max_steps": 60, "effective_batch_size": 4, "checkpoint_every": 5, "devices": 2},
    }
    (tmp_path / "two.yaml").write_text(json.dumps(recipe))
    words = [sys.executable, "-m", "runner", "run", "two"]
    return lambda: subprocess.Popen(words, cwd=tmp_path, start_new_session=True)


def until(condition, process=None):
    limit = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < limit
        assert process is None or process.poll() is None
        time.sleep(0.05)


def measured(folder):
    return sum(len(path.read_text().splitlines()) for path in folder.glob("runs/*/*/metrics.jsonl"))


def test_the_command_leaves_nobody_behind_and_goes_on(command, own_store, tmp_path):
    first = command()
    until(lambda: measured(tmp_path) > 8, first)
    first.kill()
    first.wait()
    until(lambda: not running(own_store))
    second, before = command(), measured(tmp_path)
    until(lambda: measured(tmp_path) > before + 3, second)
    os.killpg(second.pid, signal.SIGTERM)
    assert second.wait() == 75
    assert not running(own_store)
    assert command().wait() == 0
