"""Trackers follow a training, go on with it, and never ask or break anything."""

import json

import pytest
from test_workers import dataset

from runner.checkpoint import Checkpoints
from runner.errors import Stopped
from runner.products import open_model
from runner.stage import About, Context
from runner.stages import adapt
from runner.training import trackers

TRACKERS = sorted(trackers.CALLBACKS)


def train(model, folder, until=None, **options):
    """Train 6 steps (stopped after `until` of them); gives what was noted."""
    notes, done = [], []
    about = About("dates", "adapt", "0123456789abcdef", {"name": "dates"}, folder / "trackers")
    context = Context(
        draft=folder / "work",
        checkpoint=Checkpoints(folder / "checkpoints", notes.append),
        note=notes.append,
        progress=lambda step, *rest, **figures: done.append(step),
        stop_signal=lambda: "SIGTERM" if until and done and done[-1] >= until else None,
        about=about,
    )
    context.draft.mkdir(parents=True, exist_ok=True)
    settings = {"rank": 2, "effective_batch_size": 4, "max_steps": 6, "devices": 1, **options}
    inputs = {"model": open_model(model), "dataset": dataset()}
    try:
        adapt.run(adapt.Options(**settings), inputs, context)
    except Stopped:
        assert until
    return notes


def read_tensorboard(folder):
    """The steps of each run, by its name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for place in (folder / "tensorboard").iterdir():
        events = EventAccumulator(str(place)).Reload()
        found[place.name] = sorted({each.step for each in events.Scalars("train/loss")})
        text = events.Tensors("args/text_summary")[0].tensor_proto.string_val[0]
        assert json.loads(text)["adapt"]["rank"] == 2
    return found


def read_trackio(folder):
    """Likewise."""
    from trackio.sqlite_storage import SQLiteStorage

    assert list((folder / "trackio").glob("dates*.db"))
    names = SQLiteStorage.get_runs("dates")
    logs = {name: SQLiteStorage.get_logs("dates", name) for name in names}
    return {
        n: [r["train/global_step"] for r in rows if "train/loss" in r] for n, rows in logs.items()
    }


def read_mlflow(folder):
    """Likewise."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dates")
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.data.params["adapt.rank"] == "2"
        rows = client.get_metric_history(run.info.run_id, "loss")
        found[run.info.run_name] = sorted(row.step for row in rows)
    return found


def read_wandb(folder):
    """Likewise, as far as files that were never sent can say: the runs alone."""
    places = list((folder / "wandb" / "wandb").glob("offline-run-*"))
    assert all(list(place.glob("run-*.wandb")) for place in places)
    names = {place.name.rpartition("-")[2] for place in places}
    return {f"dates.adapt-{name}": [1, 2, 3, 4, 5, 6] for name in names}


READ = {
    "tensorboard": read_tensorboard,
    "trackio": read_trackio,
    "mlflow": read_mlflow,
    "wandb": read_wandb,
}


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "TRACKIO_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore")  # the trackers' own
@pytest.mark.parametrize("name", TRACKERS)
def test_a_run_that_goes_on_goes_on_in_its_tracker(name, tiny_model, tmp_path, monkeypatch):
    pytest.importorskip(name)
    if name == "trackio":  # it may have been imported, and its folder been decided, before
        storage = pytest.importorskip("trackio.sqlite_storage")
        monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackers" / "trackio")
    notes = train(tiny_model, tmp_path, until=3, track=(name,))
    notes += train(tiny_model, tmp_path, track=(name,))
    assert [note for note in notes if name in note] == []
    number = (tmp_path / "trackers" / "0123456789abcdef.id").read_text()
    found = READ[name](tmp_path / "trackers")
    assert found == {f"dates.adapt-{number}": [1, 2, 3, 4, 5, 6]}
    written = {path.name for path in tmp_path.iterdir()}
    assert written <= {"trackers", "work", "checkpoints", ".cache", ".config"}


def test_a_tracker_that_fails_is_said_once_and_training_goes_on(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.setitem(trackers.CALLBACKS, "mlflow", "NoSuchCallback")
    notes = train(tiny_model, tmp_path, track=("mlflow",))
    assert len(notes) == 1
    assert notes[0].startswith("mlflow failed and is left out from here on (AttributeError: ")


def test_a_missing_tracker_is_told_with_its_pip_line(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    (fault,) = trackers.check(adapt.Options(track=("trackio", "trackio")))
    assert fault.where == ("track",)
    assert fault.fact == "trackio is not installed."
    assert fault.guess == "python -m pip install 'recipe-runner[trackio]'"


def test_every_tracker_has_an_extra_and_an_integration():
    import tomllib

    from transformers.integrations import integration_utils

    from runner import places

    project = tomllib.loads((places.PACKAGE.parent / "pyproject.toml").read_text())["project"]
    for name, callback in trackers.CALLBACKS.items():
        assert name in project["optional-dependencies"]
        assert hasattr(integration_utils, callback)
