"""What the Trainer says after each step, and what it is told: save, look, stop."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runner.stage import Context
from runner.training import health, objectives, world
from runner.training.saving import Saver
from runner.training.settings import Options


@dataclass
class Memory:
    """What the loop remembers across a crash, beside the Trainer's own state.

    before, best and last are losses on the rows held out; `worse` counts looks without a better.
    """

    micro: int
    asked: int | None
    before: float | None = None
    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    worse: int = 0
    devices: int = 1


@dataclass
class Telling:
    """The events of a Trainer, for the loop.

    `agreed` makes of what one process sees what all of them do; every one asks it each step.
    """

    options: Options
    context: Context
    saver: Saver
    memory: Memory
    agreed: Callable[[bool], bool] = bool
    losses: list[float] = field(default_factory=list)
    has_held_out: bool = False
    has_ended: bool = False
    began: float = 0.0
    tokens_before: int = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The clock of the rates begins."""
        self.began, self.tokens_before = time.monotonic(), state.num_input_tokens_seen

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step nothing is learned, so that nothing is lost."""
        if not state.global_step and world.size() == 1:
            self.context.stop_here()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for what is to be done before the next step."""
        every, step = self.options.evaluate_every, state.global_step
        is_last = step >= state.max_steps
        if is_last or (every is not None and step % every == 0):
            control.should_evaluate = self.has_held_out
        stops = self.agreed(self.context.should_stop())
        if stops or self.agreed(not is_last and self.saver.is_due(step)):
            control.should_save = True
        if stops:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """The figures of a step."""
        if "loss" not in (logs or {}):
            return
        row = self._figures(state, logs)
        self.context.metrics(row)
        shown = {"loss": round(row["loss"], 4), "tokens_per_second": row["tokens_per_second"]}
        self.context.progress(state.global_step, state.max_steps, "steps", **shown)
        self.losses.append(row["loss"])
        health.check_explosion(self.losses, self.options.loss_limit, state.global_step)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """A look at the rows held out."""
        step, memory = state.global_step, self.memory
        loss = float(metrics["eval_loss"])
        self.context.metrics({"step": step, "held_out_loss": loss})
        memory.last = loss
        if step == 0:
            memory.before = loss
        elif memory.best is None or loss < memory.best:
            memory.best, memory.best_step, memory.worse = loss, step, 0
            if self.options.keep == "best":
                self.saver.keep_best(kwargs["model"])
        else:
            memory.worse += 1
        if self.options.patience is not None and memory.worse >= self.options.patience:
            self.has_ended = control.should_training_stop = True

    def _figures(self, state: Any, logs: Any) -> dict[str, Any]:
        seconds = max(time.monotonic() - self.began, 1e-9)
        known = {
            "step": state.global_step,
            "loss": float(logs["loss"]),
            "learning_rate": float(logs["learning_rate"]),
            "gradient_norm": float(logs["grad_norm"]),
            "tokens": int(state.num_input_tokens_seen),
            "tokens_per_second": round(
                (state.num_input_tokens_seen - self.tokens_before) / seconds
            ),
        }
        return known | objectives.figures(logs)


def callback(**fields: Any) -> Any:
    """A Telling that is a TrainerCallback of transformers too."""
    from transformers import TrainerCallback

    return type("Callback", (Telling, TrainerCallback), {})(**fields)
