"""What is wrong with a step: no memory, a loss that is no number, a loss that explodes."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from runner.errors import StepError
from runner.training.batches import Batch

NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
RECENT = 50
"""Losses that the median is taken of."""
IN_A_ROW = 5
"""Steps for which a loss must stay above its limit."""
SHOWN_ROWS, SHOWN_CHARACTERS = 3, 60


class StarvedError(StepError):
    """One of several processes has no memory for so many rows at once, in a step that it names."""

    def __init__(self, rows: int, step: int) -> None:
        super().__init__(f"there is not enough memory for {rows} rows at once, at step {step}.")
        self.rows, self.step_number = rows, step

    @property
    def fewer(self) -> int:
        """As many as to go on with."""
        return halved(self.rows)


def halved(rows: int) -> int:
    """Half as many rows, and one at least."""
    return -(-rows // 2)


def goes_on(step: int, rows: int) -> str:
    """What is said when a training goes on with fewer rows at once."""
    return (
        f"not enough memory at step {step}: goes on with"
        f" {rows} rows at once, and as many a step as before"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or the machine has no memory left."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(each in str(error) for each in NO_MEMORY)


def no_memory(when: str) -> StepError:
    """The error of a step for which there is no memory, whatever was tried."""
    return StepError(
        f"there is not enough memory to train, {when}.",
        "Try a lower process.max_length, adapt.gradient_checkpointing=true,"
        " adapt.optimizer=adamw_8bit or a smaller model (the effective batch size may stay).",
    )


def no_number(what: str, value: float, step: int, batch: Batch, tokenizer: Any) -> StepError:
    """The error of a loss or a gradient norm that is no finite number."""
    rows = f" The step's rows: {shown(batch, tokenizer)}." if batch.rows else ""
    return StepError(
        f"the {what} is {value} at step {step}.{rows}",
        "If these rows are sound, try a lower adapt.learning_rate or a longer adapt.warmup_steps"
        " (or, with float16, adapt.precision=bfloat16); the state before the step is kept.",
    )


def shown(batch: Batch, tokenizer: Any) -> str:
    """Rows by their numbers in the training rows, the first of them with how they begin."""
    first = [
        f"{number} ({_beginning(row, tokenizer)!r})"
        for number, row in zip(batch.numbers[:SHOWN_ROWS], batch.rows, strict=False)
    ]
    rest = [str(number) for number in batch.numbers[SHOWN_ROWS:]]
    return ", ".join(first + rest)


def check_explosion(losses: Sequence[float], limit: float | None, step: int) -> None:
    """StepError where the last losses all stay far above the median of those before.

    A median below 1 counts as 1: a small loss that becomes a few times larger is no explosion.
    """
    before, last = losses[-RECENT - IN_A_ROW : -IN_A_ROW], losses[-IN_A_ROW:]
    if limit is None or len(before) < IN_A_ROW:
        return
    usual = median(before)
    if min(last) > limit * max(usual, 1.0):
        raise StepError(
            f"the loss explodes: {last[-1]:.4g} at step {step}, and above {limit:g} times its"
            f" median of {usual:.4g} for {IN_A_ROW} steps.",
            "Try a lower adapt.learning_rate or a longer adapt.warmup_steps;"
            " adapt.loss_limit=null goes on whatever happens.",
        )


def _beginning(row: Any, tokenizer: Any) -> str:
    ids = next(value for name, value in row.items() if name.endswith("_ids"))
    text = tokenizer.decode(ids[:SHOWN_CHARACTERS]) if tokenizer else str(ids[:10])
    return str(text)[:SHOWN_CHARACTERS]
