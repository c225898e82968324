"""The loop around a Trainer: from the newest checkpoint on, watched, stopped when asked."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner.errors import StepError, StoreError
from runner.metrics import current
from runner.products import Dataset
from runner.stage import Context
from runner.training import batches, fitting, health, objectives, state, trackers, world
from runner.training.arguments import arguments
from runner.training.methods import gradients
from runner.training.objectives.given import Given
from runner.training.saving import Saver
from runner.training.settings import Options
from runner.training.telling import Memory, Telling, callback
from runner.training.watch import Dropped, Watch


def train(
    model: Any, tokenizer: Any, dataset: Dataset, options: Options, context: Context
) -> dict[str, Any]:
    """Train a model in place, from the newest checkpoint or from the start; gives the figures."""
    context.checkpoint.keep = options.keep_checkpoints
    _check_precision(model, options)
    found = context.checkpoint.newest()
    folder = found[1] if found else None
    fit, order = _plan(model, dataset, options)
    is_first = order.share == 0
    saver = Saver(context, options.checkpoint_every, options.checkpoint_seconds, writes=is_first)
    telling: Telling = callback(
        options=options,
        context=context,
        saver=saver,
        memory=_memory(options, fit, folder, context),
        agreed=world.any_of,
    )
    told = [telling, gradients.check(context.note), *trackers.callbacks(options, context)]
    wanted = arguments(options, saver.folder, _steps(options, order), fit)
    with _as_it_was(model, fit), _deterministic(options):
        trainer = objectives.trainer(
            Given(
                options=options,
                model=model,
                tokenizer=tokenizer,
                dataset=dataset,
                arguments=wanted,
                callbacks=told,
            )
        )
        _quiet(trainer)
        trainer.watch = _watch(telling, order, tokenizer)
        telling.has_held_out = _has_rows(trainer.eval_dataset)
        _go_on(trainer, telling, found)
        _run(trainer, telling, folder)
        if options.keep == "best" and telling.memory.best_step is not None and is_first:
            saver.put_best(trainer.model)
    return _facts(trainer, telling)


def _plan(model: Any, dataset: Dataset, options: Options) -> tuple[fitting.Fit, batches.Order]:
    """What fits into memory, and which rows each step learns from."""
    lengths = batches.lengths(dataset.train)
    order = batches.Order(
        lengths,
        options.effective_batch_size,
        options.seed,
        by_length=options.group_by_length,
        share=world.rank(),
        shares=world.size(),
    )
    return fitting.fit(options, model, lengths), order


def _steps(options: Options, order: batches.Order) -> int:
    """How many steps the training has."""
    if options.max_steps is not None:
        return options.max_steps
    if options.max_tokens is not None:
        return order.steps_for(options.max_tokens)
    return max(1, -int(-(options.epochs or 1.0) * len(order) // 1))


def _memory(options: Options, fit: fitting.Fit, folder: Path | None, context: Context) -> Memory:
    """What the loop remembers; rows at once count on where they were chosen alike."""
    asked = options.micro_batch_size
    if folder is None:
        return Memory(fit.micro_batch_size, asked, devices=world.size())
    memory = Memory(**state.memory(folder))
    if memory.asked != asked:
        memory.micro, memory.asked = fit.micro_batch_size, asked
    if memory.devices != world.size():
        said = f"{memory.devices} devices came this far, now there are {world.size()}"
        context.note(f"{said}: the same rows a step, with other rounding")
        memory.devices = world.size()
    return memory


def _quiet(trainer: Any) -> None:
    """The figures go to the run's folder, and need not be printed too."""
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _watch(telling: Telling, order: batches.Order, tokenizer: Any) -> Watch:
    def save(trainer: Any) -> None:
        telling.memory.micro = trainer.watch.micro
        telling.saver.save(trainer, asdict(telling.memory))

    context = telling.context
    return Watch(
        order,
        telling.memory.micro,
        context.should_stop,
        context.note,
        save,
        tokenizer=tokenizer,
        compares=telling.options.objective == "kto",
    )


def _has_rows(rows: Any) -> bool:
    return rows is not None and len(rows) > 0


def _go_on(trainer: Any, telling: Telling, found: tuple[int, Path] | None) -> None:
    """Take over what a checkpoint knows, or begin; the first look is before the first step."""
    step = found[0] if found else 0
    measured = current(telling.context.measured)
    telling.losses = [row["loss"] for row in measured if "loss" in row and row["step"] <= step]
    trainer.args.eval_on_start = telling.has_held_out and not found
    if found:
        telling.context.note(f"going on from step {step}")
        telling.saver.take_over(found[1])


def _run(trainer: Any, telling: Telling, folder: Path | None) -> None:
    """Train to the end, or until a signal or an error; then the last whole step is kept."""
    try:
        trainer.train(resume_from_checkpoint=str(folder) if folder else None)
    except Dropped:
        _keep(trainer, telling)
    except health.StarvedError:  # whichever process it is: the others have stopped in this step too
        telling.saver.writes = True
        with suppress(OSError, StoreError):  # then it goes on from the checkpoint before
            _keep(trainer, telling)
        raise
    except StepError:
        _keep(trainer, telling)
        raise
    except Exception as error:
        if not health.is_out_of_memory(error):
            raise
        raise health.no_memory("outside of a batch of rows") from error
    telling.saver.wait()
    if trainer.state.global_step < trainer.state.max_steps and not telling.has_ended:
        telling.context.stop_here()


def _keep(trainer: Any, telling: Telling) -> None:
    """A checkpoint of the last whole step, if there is one."""
    if trainer.state.global_step:
        trainer.watch.save(trainer)
        telling.saver.wait()


@contextmanager
def _as_it_was(model: Any, fit: fitting.Fit) -> Iterator[None]:
    """The Trainer turns the cache off and would save it so; checkpointing is for training only."""
    use_cache = model.config.use_cache
    try:
        yield
    finally:
        model.config.use_cache = use_cache
        if fit.gradient_checkpointing:
            model.gradient_checkpointing_disable()


@contextmanager
def _deterministic(options: Options) -> Iterator[None]:
    """Only algorithms that give the same bits each time, where asked for."""
    if not options.deterministic:
        yield
        return
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _check_precision(model: Any, options: Options) -> None:
    """float32 is what the weights must have been loaded in."""
    import torch

    if options.precision == "float32" and model.dtype != torch.float32:
        name = str(model.dtype).removeprefix("torch.")
        raise StepError(
            f"precision is float32, and the model is loaded in {name}.", "Try: load.dtype=float32"
        )


def _facts(trainer: Any, telling: Telling) -> dict[str, Any]:
    memory, losses = telling.memory, telling.losses
    looks = {
        "held_out_loss_before": memory.before,
        "held_out_loss": memory.best if telling.options.keep == "best" else memory.last,
        "best_step": memory.best_step,
    }
    return {
        "steps": trainer.state.global_step,
        "loss": round(losses[-1], 4) if losses else None,
        "tokens": int(trainer.state.num_input_tokens_seen),
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "micro_batch_size": trainer.watch.micro,
        **({name: value for name, value in looks.items() if value is not None}),
        **telling.saver.facts(),
    }
