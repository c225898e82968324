"""Have a model answer the rows held out; each answer is kept as soon as it is there."""

import json
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import products
from runner.errors import StepError
from runner.files import digest_json
from runner.options import Fault, option
from runner.products import Dataset, Model, Row
from runner.recipe import Step
from runner.stage import (
    Context,
    Need,
    never_stale,
    pins_nothing,
    resolves_nothing,
    takes_little_room,
    writes_text,
)

if TYPE_CHECKING:
    from runner.data.prompts import Asked, Prompts

NEEDS: Mapping[str, Need] = {"model": Need(kind="model"), "dataset": Need(kind="dataset")}
GIVES = "text"
VERSION = 2
PARTS = False
HOLDS = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """How answers are drawn."""

    max_new_tokens: int = option(64, "The longest answer, in tokens", at_least=1)
    temperature: float = option(0.0, "0 is greedy: always the likeliest token", at_least=0)
    top_p: float = option(
        1.0, "Draw from the likeliest tokens of this total", at_least=0, at_most=1
    )
    top_k: int = option(0, "Draw from this many of the likeliest tokens; 0 is all", at_least=0)
    rows: int | None = option(None, "Only the first rows held out", at_least=1)
    batch_size: int = option(32, "Prompts answered together", at_least=1)
    seed: int = option(0, "Decides what is drawn, batch by batch", at_least=0)


resolve = resolves_nothing
pins = pins_nothing
stale = never_stale
room = takes_little_room
save = products.save_rows
restore = products.restore_rows


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """Settings for drawing mean nothing to greedy answers."""
    if options.temperature > 0:
        return writes_text(inputs)
    drawn = {"top_p": options.top_p != 1.0, "top_k": options.top_k != 0}
    fact = "has no effect on greedy answers; set a temperature above 0."
    unused = [Fault((name,), f"{name} {fact}") for name, is_set in drawn.items() if is_set]
    return unused + writes_text(inputs)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> list[Row]:
    """Answer in batches, going on after the rows that a killed run has kept."""
    from runner.data.prompts import Prompts

    dataset: Dataset = inputs["dataset"]
    rows = dataset.conversations()[: options.rows]
    if not rows:
        raise StepError("there is nothing to answer: no rows are held out.")
    kept = context.draft / "rows.jsonl"
    model = products.with_template(inputs["model"], dataset.template)
    prompts, size = Prompts(model.tokenizer), 1 if _has_prompt(model.model) else options.batch_size
    answers = _kept(kept, size)
    tokens, begun = 0, time.monotonic()
    for start in range(len(answers), len(rows), size):
        batch = _answers(model, prompts, rows[start : start + size], options, start)
        _append(kept, batch)
        answers += batch
        tokens += sum(row["answer_tokens"] for row in batch)
        rate = round(tokens / (time.monotonic() - begun), 1)
        context.progress(len(answers), len(rows), "prompts", tokens_per_second=rate)
        context.stop_here()
    context.facts |= {
        "rows": len(answers),
        "answer_tokens": sum(r["answer_tokens"] for r in answers),
    }
    return answers


def _has_prompt(model: Any) -> bool:
    """Whether a trained prompt stands before each row; padding would come between the two."""
    forms = getattr(model, "peft_config", {}).values()
    return any(form.is_prompt_learning for form in forms)


def _answers(
    model: Model, prompts: "Prompts", rows: Sequence[Row], options: Options, start: int
) -> list[Row]:
    """One batch: prompt, expected answer, answer, why it ended, token counts."""
    import torch

    tokenizer, stops = model.tokenizer, prompts.stops
    asked = prompts.asked(rows)
    encoded = tokenizer.pad(
        {"input_ids": [each.prompt_ids for each in asked]}, return_tensors="pt"
    ).to(model.model.device)
    torch.manual_seed(options.seed + start)
    with torch.inference_mode(), _one_head(model.model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Position ids are not supported", UserWarning)
        output = model.model.generate(
            **encoded,
            max_new_tokens=options.max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stops,
            **_drawing(options),
        )
    answers = output[:, encoded["input_ids"].shape[1] :].tolist()
    return [
        _answer(row, each, ids, stops, tokenizer, options)
        for row, each, ids in zip(rows, asked, answers, strict=True)
    ]


def _answer(
    row: Row, asked: "Asked", ids: list[int], stops: list[int], tokenizer: Any, options: Options
) -> Row:
    ends = next((at for at, token in enumerate(ids) if token in stops), None)
    before = row["messages"][:-1]
    return {
        "id": digest_json([before, row.get("tools"), _settings(options)])[:16],
        "prompt": before[-1]["content"],
        "expected": asked.expected,
        "answer": tokenizer.decode(ids[:ends], skip_special_tokens=True).strip(),
        "finish": "length" if ends is None else "stop",
        "answer_tokens": len(ids) if ends is None else ends + 1,
    }


@contextmanager
def _one_head(model: Any) -> Iterator[None]:
    """Keep torch from copying the output layer's weights once for every row of the batch.

    transformers hands that layer a strided slice, and torch 2.13 multiplies such a slice by
    frozen weights as a batch: 1.8 GB and seconds more, for 32 rows of a model of 0.3 GB.
    """
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: (given[0].contiguous(), *given[1:])
    )
    try:
        yield
    finally:
        hook.remove()


def _drawing(options: Options) -> dict[str, Any]:
    if options.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
    }


def _settings(options: Options) -> dict[str, Any]:
    return {"max_new_tokens": options.max_new_tokens, **_drawing(options), "seed": options.seed}


def _kept(path: Path, batch_size: int) -> list[Row]:
    """The whole batches that an earlier process wrote; a torn last line is dropped."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    found = found[: len(found) - len(found) % batch_size]
    path.unlink(missing_ok=True)
    _append(path, found)
    return found


def _append(path: Path, rows: Sequence[Row]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
