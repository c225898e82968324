"""The loop around a Trainer: from the newest checkpoint on, watched, stopped when asked."""

import math
import time
from pathlib import Path
from typing import Any

from runner import files, hardware
from runner.errors import StepError
from runner.products import Dataset
from runner.stage import Context
from runner.training import objectives
from runner.training.methods import gradients
from runner.training.settings import Options


def train(
    model: Any, tokenizer: Any, dataset: Dataset, options: Options, context: Context
) -> dict[str, Any]:
    """Train a model in place, from the newest checkpoint or from the start; gives the figures."""
    use_cache = model.config.use_cache
    context.checkpoint.keep = options.keep_checkpoints
    found = context.checkpoint.newest()
    if found:
        context.note(f"going on from step {found[0]}")
    trainer = objectives.trainer(
        model,
        tokenizer,
        dataset,
        args=_arguments(options, context.draft / "trainer"),
        callbacks=[_callback(context), gradients.check(context.note)],
    )
    trainer.train(resume_from_checkpoint=str(found[1]) if found else None)
    model.config.use_cache = use_cache  # the Trainer turns it off, and would save it so
    if trainer.state.global_step < trainer.state.max_steps:
        context.stop_here()
    return {
        "steps": trainer.state.global_step,
        "loss": _last_loss(trainer.state.log_history),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def _arguments(options: Options, folder: Path) -> Any:
    from transformers import TrainingArguments

    files.remove(folder)  # whatever a killed run left half-written; whole ones are checkpoints
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type=options.schedule,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        seed=options.seed,
        data_seed=options.seed,
        save_strategy="steps",
        save_steps=options.checkpoint_every,
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        use_cpu=hardware.device() == "cpu",
        dataloader_pin_memory=hardware.device() != "cpu",
        report_to=[],
        disable_tqdm=True,
    )


def _callback(context: Context) -> Any:
    """What the Trainer tells us: progress, figures, checkpoints; and what we tell it: stop."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
        loss, began, tokens_before = math.nan, 0.0, 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began, self.tokens_before = time.monotonic(), state.num_input_tokens_seen

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if context.should_stop():
                control.should_save = control.should_training_stop = True

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            if "loss" not in (logs or {}):
                return
            self.loss = float(logs["loss"])
            if not math.isfinite(self.loss):
                raise StepError(
                    f"the loss is {self.loss} at step {state.global_step}.",
                    "Try a lower adapt.learning_rate.",
                )
            seconds = time.monotonic() - self.began
            rate = (state.num_input_tokens_seen - self.tokens_before) / max(seconds, 1e-9)
            context.progress(
                state.global_step,
                state.max_steps,
                "steps",
                loss=round(self.loss, 4),
                tokens_per_second=round(rate),
            )
            context.metrics(
                {
                    "step": state.global_step,
                    "loss": self.loss,
                    "learning_rate": float(logs["learning_rate"]),
                    "tokens": int(state.num_input_tokens_seen),
                }
            )

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            context.checkpoint.save(state.global_step, written)

    return Callback()


def _last_loss(history: list[dict[str, Any]]) -> float | None:
    losses = [row["loss"] for row in history if "loss" in row]
    return round(float(losses[-1]), 4) if losses else None
