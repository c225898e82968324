"""What is added to every Trainer: whole effective batches, a look at each step, safe states."""

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.training import batches, health, state
from runner.training.batches import Batch, Order, Row

if TYPE_CHECKING:
    Base: Any = object
else:
    Base = object

NOTHING = Batch((), ())
"""Before the first step."""


class Dropped(Exception):  # noqa: N818  not a failure: a signal asked for the end
    """A step was left in its middle; the state is that after the step before."""


@dataclass
class Watch:
    """What a watched Trainer is told, and what it tells.

    order        which rows each step learns from
    micro        how many rows are in memory at once; halves where memory does not suffice
    should_stop  whether a signal asks for the end
    note         says a line to the user
    save         takes a checkpoint of the Trainer, between two steps
    compares     whether rows in memory are compared with one another, so that they cannot be fewer
    """

    order: Order
    micro: int
    should_stop: Callable[[], bool]
    note: Callable[[str], None]
    save: Callable[[Any], None]
    tokenizer: Any = None
    compares: bool = False
    batch: Batch = field(default=NOTHING)
    piece: tuple[int, int] = (-1, 0)


def watched(kind: type) -> type:
    """A subclass of a Trainer (of transformers or trl) whose steps are watched.

    Its `watch` is to be set before it trains. A Trainer that makes its own batches (GRPO, which
    generates them) keeps them, and its own gradient accumulation; the rest holds for it as well.
    """
    return type(f"Watched{kind.__name__}", (Watching, kind), {})


class Watching(Base):  # type: ignore[misc]  # the other base is a Trainer, known when it runs
    """The part of a watched Trainer that is ours."""

    watch: Watch
    control: Any

    # --- batches

    def get_train_dataloader(self) -> Any:
        """Batches of whole steps, unless the Trainer makes its own."""
        if not self._takes_rows():
            return super().get_train_dataloader()
        return batches.loader(
            self.train_dataset, self.watch.order, lambda: int(self.state.global_step)
        )

    def _takes_rows(self) -> bool:
        from transformers import Trainer

        makers = [kind for kind in type(self).__mro__ if "get_train_dataloader" in vars(kind)]
        return next(kind for kind in makers if kind is not Watching) is Trainer

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> Any:
        """What the whole step trains, over all processes; the loss is divided by it."""
        import torch

        if not batch_samples or not isinstance(batch_samples[0], Batch):
            return super()._get_num_items_in_batch(batch_samples, device)
        batch, rows = batch_samples[0], batch_samples[0].rows
        mine = [0.0, 0.0] if batch.idle else [batches.items(rows), float(batches.tokens(rows))]
        all_of_it = self.accelerator.gather(torch.tensor([mine], device=device))
        self.step_items, self.step_tokens = all_of_it.double().sum(dim=0).tolist()
        if "labels" not in rows[0]:
            return None
        total = math.inf if batch.idle else self.step_items
        return torch.tensor(total, dtype=torch.float32, device=device)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: batches are rows until they are cut."""
        return 0

    # --- steps

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Gradients of one step, in as many pieces as memory asks for; gives its loss."""
        if not isinstance(inputs, Batch):
            self._seed_piece()
            return super().training_step(model, inputs, num_items_in_batch)
        self.watch.batch = inputs
        self.seed_step()
        loss = self._attempt(model, inputs, num_items_in_batch)
        while loss is None:
            self._halve(model)
            self.seed_step()
            loss = self._attempt(model, inputs, num_items_in_batch)
        if self.accelerator.num_processes == 1:  # of several, all see the gradients' norm
            self._check_number("loss", loss)
        self.state.num_input_tokens_seen += int(self.step_tokens)
        return loss

    def seed_step(self, piece: int = 0) -> None:
        """Seed all random numbers by the step, so that none of their state must be kept."""
        from runner.training.seeding import seed

        seed(self.args.seed, self.state.global_step, self.args.process_index, piece)

    def _seed_piece(self) -> None:
        """The same for a Trainer that cuts its steps into pieces itself."""
        step, piece = self.watch.piece
        self.watch.piece = (
            self.state.global_step,
            piece + 1 if step == self.state.global_step else 0,
        )
        self.seed_step(self.watch.piece[1])

    def _attempt(self, model: Any, batch: Batch, items: Any) -> Any:
        """The step's loss, or None where memory did not suffice."""
        try:
            return self._accumulate(model, batch, items)
        except Exception as error:
            if not health.is_out_of_memory(error):
                raise
            if self.accelerator.num_processes > 1:  # the others wait in the middle of a step
                self._forget(model)
                rows = min(self.watch.micro, len(batch.rows))
                self._check_is_divisible(rows)
                raise health.StarvedError(rows, self.state.global_step + 1) from error
        return None

    def _accumulate(self, model: Any, batch: Batch, items: Any) -> Any:
        """Forward and backward of all rows, so many at once as fit."""
        total, size, rows = 0.0, self.watch.micro, batch.rows
        for begin in range(0, len(rows), size):
            if self.accelerator.num_processes == 1 and self.watch.should_stop():
                raise Dropped
            piece = rows[begin : begin + size]
            self.current_gradient_accumulation_steps = self._pieces(batch, piece)
            is_last = begin + size >= len(rows)
            with nullcontext() if is_last else self.accelerator.no_sync(model):
                total += super().training_step(model, self.data_collator(piece), items)
        return total

    def _pieces(self, batch: Batch, piece: Sequence[Row]) -> float:
        """How many pieces like this one the step has: where a loss is a mean, it is divided by it.

        Gradients are averaged over processes, so each of them counts as many times as there are.
        """
        part = 0.0 if batch.idle else batches.items(piece) * self.accelerator.num_processes
        return float(self.step_items) / part if part else math.inf

    def _halve(self, model: Any) -> None:
        """Forget the half-made step, and take half as many rows at once from now on."""
        self._forget(model)
        self._check_is_divisible(self.watch.micro)
        self.watch.micro = health.halved(self.watch.micro)
        self.watch.note(health.goes_on(self.state.global_step + 1, self.watch.micro))

    def _forget(self, model: Any) -> None:
        import torch

        model.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _check_is_divisible(self, rows: int) -> None:
        if rows == 1:
            raise health.no_memory("even with a single row at once")
        if self.watch.compares:
            raise health.no_memory("with all rows of a step at once, which the objective compares")

    # --- health

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The gradients' norm, looked at before the optimizer uses them."""
        norm = super()._get_grad_norm(model, grad_norm)
        if getattr(self.accelerator, "scaler", None) is None:  # which skips such steps by itself
            self._check_number("gradient's norm", norm)
        return norm

    def _check_number(self, what: str, value: Any) -> None:
        if not math.isfinite(float(value)):
            raise health.no_number(
                what,
                float(value),
                self.state.global_step + 1,
                self.watch.batch,
                self.watch.tokenizer,
            )

    # --- evaluation

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Scores on the rows held out; of a language model, the mean loss of a trained token."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        if not self._takes_rows() or "labels" not in getattr(rows, "column_names", ()):
            return dict(super().evaluate(eval_dataset, ignore_keys, metric_key_prefix))
        metrics = {f"{metric_key_prefix}_loss": self._held_out_loss(rows)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _held_out_loss(self, rows: Any) -> float:
        """The same whatever fits into memory at once: divided by all trained tokens together."""
        import torch

        accelerator = self.accelerator
        items = torch.tensor(batches.items(list(rows)), device=self.args.device)
        mine = range(accelerator.process_index, len(rows), accelerator.num_processes)
        total = torch.zeros(1, device=self.args.device)
        model = self.model.eval()
        with torch.no_grad(), self.compute_loss_context_manager():
            for begin in range(0, len(mine), self.watch.micro):
                total += self._piece_loss(
                    model, rows, mine[begin : begin + self.watch.micro], items
                )
        model.train()
        return float(accelerator.gather(total).mean())

    def _piece_loss(self, model: Any, rows: Any, numbers: Sequence[int], items: Any) -> Any:
        piece = rows.__getitems__(list(numbers))
        inputs = self._prepare_inputs(self.data_collator(piece))
        loss = self.compute_loss(model, inputs, num_items_in_batch=items)
        if not self.model_accepts_loss_kwargs:
            loss = loss * batches.items(piece) / items * self.accelerator.num_processes
        return loss

    # --- states

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.watch.save(self)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state.put_weights(self.model, Path(resume_from_checkpoint) / state.WEIGHTS)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state.restore(self, Path(checkpoint))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """It comes with the optimizer."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """There is none: each step has a seed."""
