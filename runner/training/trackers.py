"""Experiment trackers that follow a training, by transformers' own integrations.

They write below one folder for all runs of a recipe, so that a step that goes on after a crash goes
on in the tracker too. What the user's environment says of a tracker (WANDB_MODE,
MLFLOW_TRACKING_URI, TRACKIO_DIR, TENSORBOARD_LOGGING_DIR and the like) wins.
"""

import json
import netrc
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runner import files
from runner.options import Fault, plain
from runner.secrets import mask, masked
from runner.stage import Context
from runner.training import world
from runner.training.settings import Options

CALLBACKS = {
    "trackio": "TrackioCallback",
    "tensorboard": "TensorBoardCallback",
    "wandb": "WandbCallback",
    "mlflow": "MLflowCallback",
}
EVENTS = ("on_train_begin", "on_log", "on_train_end")


def check(options: Options) -> list[Fault]:
    """The trackers that are not installed."""
    return [
        Fault(
            ("track",),
            f"{name} is not installed.",
            f"python -m pip install 'recipe-runner[{name}]'",
        )
        for name in dict.fromkeys(options.track)
        if find_spec(name) is None
    ]


def callbacks(options: Options, context: Context) -> list[Any]:
    """A callback for each tracker; of several processes the first one alone has them."""
    if world.rank() > 0 or not options.track:
        return []
    run = _run(options, context)
    return [_callback(_Tracker(name, run, context)) for name in dict.fromkeys(options.track)]


@dataclass(frozen=True)
class Run:
    """What a tracker is told of a training."""

    recipe: str
    name: str
    id: str
    folder: Path
    settings: Mapping[str, Any]
    goes_on: bool


def _run(options: Options, context: Context) -> Run:
    """The run of a training that begins, or that of the one that goes on."""
    about = context.about
    folder = (about.folder or context.draft / "trackers").resolve()
    files.make_folder(folder)
    known = folder / f"{about.key}.id"
    goes_on = context.checkpoint.newest() is not None and known.exists()
    if not goes_on:
        files.write_text(known, uuid.uuid4().hex[:8])
    number = known.read_text(encoding="utf-8")
    settings = masked({"recipe": dict(about.plain), about.step: plain(options)})
    name = f"{about.recipe}.{about.step}-{number}"
    return Run(about.recipe, name, number, folder, settings, goes_on)


class _Tracker:
    """One tracker over one training; its first failure is said, and ends it and nothing else."""

    def __init__(self, name: str, run: Run, context: Context) -> None:
        self.name, self.run, self.note = name, run, context.note
        self.callback: Any = None
        self.has_failed = False

    def hear(self, event: str, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Hand an event on to the tracker."""
        if self.has_failed:
            return
        try:
            with _environment(_variables(self.name, self.run)):
                self.callback = self.callback or _made(self.name)
                told = _Told(args, self.run, self.name)
                getattr(self.callback, event)(told, state, control, model=None, **rest)
                _afterwards(self.name, event, self.run)
        except Exception as error:
            self.has_failed = True
            first = (str(error).splitlines() or [""])[0]
            why = mask(f"{type(error).__name__}: {first}")
            self.note(f"{self.name} failed and is left out from here on ({why})")


def _callback(tracker: _Tracker) -> Any:
    """What the Trainer calls."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            tracker.hear("on_train_begin", args, state, control)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            tracker.hear("on_log", args, state, control, logs=dict(logs or {}))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            tracker.hear("on_train_end", args, state, control)

    return Callback()


class _Told:
    """TrainingArguments as a tracker sees them: what it calls the configuration is the recipe."""

    trackio_space_id = trackio_bucket_id = hub_private_repo = None
    trackio_static_space_id = False

    def __init__(self, args: Any, run: Run, tracker: str) -> None:
        self._args, self._run, self._tracker = args, run, tracker
        self.project, self.run_name = run.recipe, run.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._args, name)

    def to_dict(self) -> dict[str, Any]:
        """The recipe and the resolved options of the step; MLflow takes them once."""
        if self._tracker == "mlflow" and self._run.goes_on:
            return {}
        return dict(self._run.settings)

    def to_json_string(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)


def _made(name: str) -> Any:
    from transformers.integrations import integration_utils

    return getattr(integration_utils, CALLBACKS[name])()


def _variables(name: str, run: Run) -> dict[str, str]:
    """What a tracker reads from the environment."""
    folder = run.folder / name
    if name == "trackio":
        return {"TRACKIO_DIR": str(folder)}  # run.py has set it: trackio reads it when imported
    if name == "tensorboard":
        return {"TENSORBOARD_LOGGING_DIR": str(folder / run.name)}
    if name == "wandb":
        folder.mkdir(exist_ok=True)
        return {
            "WANDB_DIR": str(folder),
            "WANDB_PROJECT": run.recipe,
            "WANDB_RUN_ID": run.id,
            "WANDB_RESUME": "allow",
            "WANDB_SILENT": "true",
            "WANDB_CONSOLE": "off",
            **({} if _is_known_to_wandb() else {"WANDB_MODE": "offline"}),
        }
    folder.mkdir(exist_ok=True)
    begun = _mlflow_id(run)
    return {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": run.recipe,
        "MLFLOW_FLATTEN_PARAMS": "TRUE",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **({"MLFLOW_RUN_ID": begun.read_text(encoding="utf-8")} if begun.exists() else {}),
    }


def _is_known_to_wandb() -> bool:
    """Whether there is a key for wandb, which would ask for one.

    wandb itself is not asked: it would settle on its mode before it was told which.
    """
    if {"WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"} & {*os.environ}:
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    with suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(path).authenticators(host) is not None
    return False


def _mlflow_id(run: Run) -> Path:
    return run.folder / "mlflow" / f"{run.id}.id"


def _afterwards(name: str, event: str, run: Run) -> None:
    """What the integrations leave undone."""
    if name == "wandb" and event == "on_train_end":
        import wandb

        wandb.finish()
        wandb.teardown()  # else the next training would find this one's settings
    if name == "mlflow" and event == "on_train_begin":
        import mlflow

        files.write_text(_mlflow_id(run), mlflow.active_run().info.run_id)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables that are set as long as the block runs, unless the user has set them."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
