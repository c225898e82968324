"""A tiny random model, rows of random tokens, and trainings that are short."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from runner import files
from runner.checkpoint import Checkpoints
from runner.metrics import Metrics, current, read
from runner.products import Dataset
from runner.stage import Context
from runner.training import loop, methods, saving
from runner.training.settings import Options

OPTIONS = Options(
    rank=2, effective_batch_size=4, learning_rate=1e-2, seed=3, max_steps=6, checkpoint_every=2
)
LENGTHS = (9, 4, 12, 7, 5, 11, 3, 8, 6, 10, 12, 4, 9, 5, 7, 3, 8, 11, 6, 10, 5)


class Tokenizer:
    """As much of a tokenizer as a training asks for."""

    pad_token_id = 0

    def decode(self, ids: Any) -> str:
        return " ".join(map(str, ids))


class Crash(BaseException):
    """The process is gone at this moment."""


def rows(count: int = len(LENGTHS), *, weights: bool = False) -> list[dict[str, Any]]:
    """Rows of random tokens of a vocabulary of 64, of which the second half is trained."""
    import random

    draw = random.Random(5)
    made = []
    for number in range(count):
        length = LENGTHS[number % len(LENGTHS)]
        ids = [draw.randrange(1, 64) for _ in range(length)]
        labels = [-100] * (length // 2) + ids[length // 2 :]
        row = {"input_ids": ids, "labels": labels}
        if weights:
            row["weights"] = [draw.choice([0.0, 0.5, 1.0, 2.0]) for _ in ids]
        made.append(row)
    return made


def dataset(train: list[dict[str, Any]] | None = None, held_out: int = 5) -> Dataset:
    """The rows as a dataset product."""
    import datasets

    train = rows() if train is None else train
    kept = rows(len(LENGTHS))[:held_out] if held_out else []
    made = datasets.Dataset.from_list(train)
    return Dataset(made, datasets.Dataset.from_list(kept) if kept else made.select([]))


def model(seed: int = 0, dropout: float = 0.0) -> Any:
    """A random Llama of two layers in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            attention_dropout=dropout,
        )
    ).eval()


@dataclass
class Lesson:
    """Trainings of one draft: each goes on from what the one before left there."""

    folder: Path
    options: Options = OPTIONS
    data: Dataset = field(default_factory=dataset)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    crash_at: int | None = None
    stop_at: int | None = None

    def run(self, taught: Any = None, **changes: Any) -> Any:
        """Train, and give the model; `changes` are options."""
        import torch

        self.options = replace(self.options, **changes)
        taught = taught if taught is not None else model()
        torch.manual_seed(self.options.seed)
        self._measured, self.notes = Metrics(self.folder / "metrics.jsonl"), []
        taught = methods.attach(taught, self.options, self.notes.append)
        self._done = 0
        try:
            self.facts = loop.train(taught, Tokenizer(), self.data, self.options, self.context())
        finally:  # a process that is gone writes no more
            for thread in threading.enumerate():
                if thread.name == saving.WRITER:
                    thread.join()
            self.metrics = current(read(self._measured.path))
        return taught

    def bytes(self, **changes: Any) -> str:
        """Train, and give the digest of the adapter."""
        taught, target = self.run(**changes), self.folder / "adapter"
        files.remove(target)
        target.mkdir()
        methods.write(taught, target)
        return files.digest(target / "adapter_model.safetensors")

    def context(self) -> Context:
        """What the training may ask of the engine."""
        work = self.folder / "work"
        work.mkdir(parents=True, exist_ok=True)
        return Context(
            draft=work,
            checkpoint=self.checkpoints(),
            note=self.notes.append,
            metrics=self._measure,
            measured=self._measured.earlier,
            stop_signal=self._signal,
        )

    def checkpoints(self) -> Checkpoints:
        """Those of the draft."""
        return Checkpoints(self.folder / "checkpoints", self.notes.append)

    def _measure(self, row: Any) -> None:
        self._measured.add(row)
        self._done = row["step"]
        if self.crash_at is not None and "loss" in row and row["step"] == self.crash_at:
            raise Crash

    def _signal(self) -> str | None:
        return "SIGTERM" if self.stop_at is not None and self._done >= self.stop_at else None


def adapter(taught: Any) -> dict[str, Any]:
    """The trained parameters of a model by name."""
    return {name: p.detach().clone() for name, p in taught.named_parameters() if p.requires_grad}


def distance(one: Any, other: Any) -> float:
    """The largest difference between two adapters."""
    a, b = adapter(one), adapter(other)
    assert {*a} == {*b}
    return max(float((a[name] - b[name]).abs().max()) for name in a)
