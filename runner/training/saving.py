"""Checkpoints of a Trainer: copied while it stands still, written while it goes on."""

import time
import uuid
from pathlib import Path
from threading import Thread
from typing import Any

from runner import files, products
from runner.stage import Context
from runner.training import state

BEST = "best.safetensors"
WRITER = "checkpoint writer"
SHARE = 0.02
"""Of the time, at most, that training may stand still for checkpoints taken by the clock."""


class Saver:
    """Takes, writes and counts the checkpoints of one training; of several processes, one does."""

    def __init__(
        self, context: Context, every: int | None, seconds: float | None, *, writes: bool = True
    ) -> None:
        self.context, self.every, self.seconds = context, every, seconds
        self.folder = context.draft / "trainer"
        self.writes = writes
        if writes:
            files.remove(self.folder)  # whatever a killed run left half-written
        self.folder.mkdir(parents=True, exist_ok=True)
        self.began = self.last = time.monotonic()
        self.stood_still, self.taken = 0.0, 0
        self.last_step: int | None = None
        self._writing: Thread | None = None
        self._failure: BaseException | None = None

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be taken after this step."""
        if self.every is not None and step % self.every == 0:
            return True
        now = time.monotonic()
        return (
            self.seconds is not None
            and now - self.last >= self.seconds
            and self.stood_still <= SHARE * (now - self.began)
        )

    def save(self, trainer: Any, memory: dict[str, Any]) -> None:
        """Copy the state of a Trainer and begin to write it; waits for the one before."""
        begun = time.monotonic()
        step = trainer.state.global_step
        if step == self.last_step or not self.writes:
            return
        self.wait()
        filled = self.folder / uuid.uuid4().hex
        filled.mkdir()
        if (self.folder / BEST).exists():  # now: it may be another one when the rest is written
            products.place(self.folder / BEST, filled / BEST)
        snapshot = state.take(trainer, memory)
        self._writing = Thread(
            target=self._write, args=(snapshot, filled), name=WRITER, daemon=True
        )
        self._writing.start()
        self.last, self.last_step, self.taken = time.monotonic(), step, self.taken + 1
        self.stood_still += self.last - begun

    def wait(self) -> None:
        """Until the last checkpoint is on disk; raises what kept it from getting there."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._failure is not None:
            raise self._failure

    def keep_best(self, model: Any) -> None:
        """Keep the trained weights as they are now as the best so far."""
        from safetensors.torch import save_file

        if not self.writes:
            return
        new = self.folder / f"{BEST}.new"
        save_file(state.weights(model), new)
        new.replace(self.folder / BEST)

    def put_best(self, model: Any) -> None:
        """Set the trained weights to the best."""
        state.put_weights(model, self.folder / BEST)

    def take_over(self, checkpoint: Path) -> None:
        """What a checkpoint knows of the best is known again."""
        self.last_step = int(checkpoint.name)
        if (checkpoint / BEST).exists() and self.writes:
            products.place(checkpoint / BEST, self.folder / BEST)

    def facts(self) -> dict[str, Any]:
        """How many were taken, and for which share of the time training stood still for them."""
        spent = time.monotonic() - self.began
        return {"checkpoints": self.taken, "checkpoint_share": round(self.stood_still / spent, 5)}

    def _write(self, snapshot: state.Snapshot, filled: Path) -> None:
        try:
            snapshot.write(filled)
            self.context.checkpoint.save(snapshot.step, filled)
        except BaseException as error:
            self._failure = error
