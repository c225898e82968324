"""What an objective makes its Trainer of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.products import Dataset
from runner.training.settings import Options


@dataclass(frozen=True, kw_only=True)
class Given:
    """The model to teach and the rows; `arguments` are fields of TrainingArguments."""

    options: Options
    model: Any
    tokenizer: Any
    dataset: Dataset
    arguments: Mapping[str, Any]
    callbacks: Sequence[Any]
