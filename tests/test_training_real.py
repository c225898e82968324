"""Four methods on the real model of the quickstart: what is taught, kept, opened and merged."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner import files, hardware, merging, places, products
from runner.checkpoint import Checkpoints
from runner.products import Dataset, Model
from runner.stage import Context
from runner.stages import adapt, evaluate
from runner.training.settings import Options

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(900)]

RATES = {"lora": 1e-3, "dora": 1e-3, "qlora": 1e-3, "full": 2e-5}
ROWS = 8
"""Of the rows held out, those that are scored before and after."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """The folder of the model, and the rows of the quickstart, through the runner itself."""
    folder = tmp_path_factory.mktemp("real")
    data = places.shipped("recipes") / "data" / "dates.jsonl"
    recipe = "defaults: [{/fetch: smollm2-135m}, _self_]\nsteps: [fetch, process]\n"
    recipe += f"fetch: {{data: {{path: {data}}}}}\nprocess: {{held_out: 64}}\n"
    (folder / "r.yaml").write_text(recipe)
    env = {**os.environ, "RUNNER_STORE": str(folder / "store")}
    env.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "runner", "run", "r.yaml"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = folder.glob("store/entries/*/product/files/config.json")
    (rows,) = folder.glob("store/entries/*/product/held_out.arrow")
    return model.parent, products.restore_dataset(rows.parent, {})


def opened(folder: Path) -> Model:
    return products.open_model(folder, dtype="float32")


def held_out(model: Model, dataset: Dataset) -> float:
    rows = list(dataset.held_out)[:ROWS]
    return evaluate.perplexity(model, rows, evaluate.Options(), lambda rows: None)


def logits(model: Any, dataset: Dataset) -> Any:
    import torch

    ids = torch.tensor([dataset.held_out[0]["input_ids"]], device=model.device)
    with torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("method", RATES)
def test_a_method_teaches_the_real_model_and_merges_into_base_plus_adapter(method, made, tmp_path):
    from peft import PeftModel

    folder, dataset = made
    losses: list[float] = []
    context = Context(
        tmp_path / "draft",
        Checkpoints(tmp_path / "checkpoints", print),
        metrics=lambda row: losses.append(row["loss"]),
    )
    options = Options(
        method=method,
        learning_rate=RATES[method],
        max_steps=12,
        effective_batch_size=4,
        warmup_steps=2,
        evaluate_rows=0,  # held_out() looks at more than a loss
    )
    base = opened(folder)
    before = held_out(base, dataset)
    taught = adapt.run(options, {"model": base, "dataset": dataset}, context)
    after = held_out(taught, dataset)
    print(f"{method}: loss {losses[0]:.3f} -> {losses[-1]:.3f}, held out {before} -> {after}")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert after < 0.8 * before
    (tmp_path / "kept").mkdir()
    adapt.save(taught, tmp_path / "kept")
    if method == "full":
        read = adapt.restore(tmp_path / "kept", {})
        assert logits(read.model, dataset).equal(logits(taught.model, dataset))
        return
    alone = PeftModel.from_pretrained(opened(folder).model, tmp_path / "kept").eval()
    whole = merging.merged(taught.model, print)
    difference = (logits(whole, dataset) - logits(alone, dataset)).abs().max()
    print(f"{method}: merged and base plus adapter differ by {float(difference):.1e}")
    assert difference < 1e-3
    assert hardware.device() == "cpu" or whole.device.type == "cuda"
    assert files.size_below(tmp_path / "kept") < 60_000_000
