"""What a Trainer must remember to go on bit for bit, as tensors and JSON: nothing that can run.

A checkpoint folder holds `weights.safetensors` (the trained parameters by name), `state.json` with
`state.safetensors` (optimizer, schedule, gradient scaler, and what the loop remembers: a tree whose
tensors lie beside it) and `trainer_state.json` (the Trainer's own counters). Random numbers are not
kept: each step begins with a seed of its own.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.errors import StepError

WEIGHTS, STATE, TENSORS, COUNTERS = (
    "weights.safetensors",
    "state.json",
    "state.safetensors",
    "trainer_state.json",
)
Tensors = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A copy in memory of all that a checkpoint holds, taken between two steps."""

    step: int
    weights: Tensors
    tree: Any
    tensors: Tensors
    counters: str

    def write(self, folder: Path) -> None:
        """Write it into a folder that is there."""
        from safetensors.torch import save_file

        save_file(self.weights, folder / WEIGHTS)
        save_file(self.tensors, folder / TENSORS)
        (folder / STATE).write_text(json.dumps(self.tree), encoding="utf-8")
        (folder / COUNTERS).write_text(self.counters, encoding="utf-8")


def take(trainer: Any, memory: dict[str, Any]) -> Snapshot:
    """A snapshot of a Trainer; `memory` is what the loop itself remembers (JSON values)."""
    tensors: Tensors = {}
    kept = {name: each.state_dict() for name, each in _stateful(trainer)}
    tree = plain({**kept, "memory": memory}, tensors)
    trainer.state.log_history = trainer.state.log_history[-1:]  # the history has a file of its own
    counters = json.dumps(asdict(trainer.state), indent=1, sort_keys=True) + "\n"
    return Snapshot(trainer.state.global_step, weights(trainer.model), tree, tensors, counters)


def restore(trainer: Any, folder: Path) -> None:
    """Put optimizer, schedule and scaler back where they were."""
    tree = _read(folder)
    for name, each in _stateful(trainer):
        each.load_state_dict(tree[name])


def memory(folder: Path) -> dict[str, Any]:
    """What the loop remembered in a checkpoint."""
    return dict(_read(folder)["memory"])


def weights(model: Any) -> Tensors:
    """A copy in main memory of the parameters that are trained."""
    return {name: _copy(parameter) for name, parameter in _trained(model)}


def put_weights(model: Any, path: Path) -> None:
    """Set the trained parameters to those of a file; StepError where they are others."""
    import torch

    found = _open(path)
    there = dict(_trained(model))
    if {*found} != {*there}:
        raise StepError(
            f"{path.name} of a checkpoint does not hold the parameters that are trained.",
            "Begin anew: runner run ... --fresh adapt",
        )
    with torch.no_grad():
        for name, parameter in there.items():
            parameter.copy_(found[name])


def plain(value: Any, tensors: Tensors) -> Any:
    """A value as JSON can hold it exactly, its tensors copied into `tensors` by number."""
    import torch

    if torch.is_tensor(value):
        name = str(len(tensors))
        tensors[name] = _copy(value)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[plain(k, tensors), plain(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [plain(each, tensors) for each in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def unplain(value: Any, tensors: Tensors) -> Any:
    """The value that `plain` was given."""
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "dict":
        return {unplain(k, tensors): unplain(v, tensors) for k, v in held}
    parts = [unplain(each, tensors) for each in held]
    return tuple(parts) if kind == "tuple" else parts


def _read(folder: Path) -> Any:
    tree = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return unplain(tree, _open(folder / TENSORS))


def _open(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, FileNotFoundError) as error:
        raise StepError(
            f"the checkpoint's {path.name} cannot be read: {error}.",
            "Begin anew: runner run ... --fresh adapt",
        ) from error


def _stateful(trainer: Any) -> Iterator[tuple[str, Any]]:
    yield "optimizer", trainer.optimizer
    yield "schedule", trainer.lr_scheduler
    if getattr(trainer.accelerator, "scaler", None) is not None:
        yield "scaler", trainer.accelerator.scaler


def _trained(model: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter


def _copy(tensor: Any) -> Any:
    import torch

    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
