"""Real preferences and the real model of the quickstart: what DPO does to them in a few steps."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_data_shapes import demos  # noqa: F401  a fixture

from runner.checkpoint import Checkpoints
from runner.products import Dataset, Files
from runner.stage import Context
from runner.stages import adapt, load

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


@pytest.fixture(scope="module")
def files(real_model: Path) -> Files:
    """The real model."""
    return Files(real_model)


def pairs(path: Path, tokenizer: Any) -> list[dict[str, list[int]]]:
    """The pairs with short questions, their answers cut to 40 tokens."""
    found = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        said = [(ROLES[each["from"]], each["value"]) for each in row["conversations"]]
        messages = [{"role": role, "content": text} for role, text in said]
        ids = [
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
                row["chosen"]["value"],
                row["rejected"]["value"],
            )
        ]
        if len(ids[0]) <= 80 and ids[1][:40] != ids[2][:40]:
            answers = {"chosen_ids": ids[1][:40], "rejected_ids": ids[2][:40]}
            found.append({"prompt_ids": ids[0], **answers})
    return found


def test_real_pairs_are_told_apart_after_a_few_steps_of_dpo(
    demos: Path,  # noqa: F811
    files: Files,
    tmp_path: Path,
):
    from datasets import Dataset as Rows

    rows: list[dict[str, Any]] = []
    made = Context(
        draft=tmp_path / "work",
        checkpoint=Checkpoints(tmp_path / "checkpoints", print),
        metrics=rows.append,
    )
    base = load.run(load.Options(dtype="float32"), {"files": files}, made)
    found = Rows.from_list(pairs(demos / "dpo_en_demo.json", base.tokenizer)[:12])
    assert len(found) == 12
    options = adapt.Options(
        objective="dpo", max_steps=9, effective_batch_size=4, learning_rate=5e-4, warmup_steps=0
    )
    dataset = Dataset(train=found, held_out=found.select([]))
    adapt.run(adapt.resolve(options, {}), {"model": base, "dataset": dataset}, made)
    print([(round(row["loss"], 3), round(row["rewards/margins"], 3)) for row in rows])
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    last = rows[-3:]  # as many as the set has batches
    assert sum(row["loss"] for row in last) / 3 < 0.6
    assert sum(row["rewards/margins"] for row in last) / 3 > 0.2
