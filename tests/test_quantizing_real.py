"""Every method on the real model: as its library alone, and the same when a user opens it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner import merging, products
from runner.checkpoint import Checkpoints
from runner.quantizing import making, methods
from runner.quantizing.settings import Options
from runner.stage import Context

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(1200)]

TOOLS = Path(__file__).parent.parent / "tools"
ROWS, LENGTH, GROUP, ANSWER = 8, 128, 64, 24
NAMES = [name for name in methods.METHODS if name != "none"]

OPEN = """
import json, sys, torch
sys.path.insert(0, sys.argv[3])
from by_hand import answer
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], device_map="cpu").eval()
print(json.dumps(answer(model, json.loads(sys.argv[2]), int(sys.argv[4]))))
"""


@pytest.fixture(scope="module")
def whole(real_model: Path) -> Path:
    """The real model."""
    return real_model


@pytest.fixture(scope="module")
def adapted(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a random LoRA adapter merged into it."""
    import torch
    from peft import LoraConfig, get_peft_model

    opened = products.open_model(whole)
    torch.manual_seed(0)
    form = LoraConfig(r=8, target_modules="all-linear", init_lora_weights="gaussian")
    model = get_peft_model(opened.model, form)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.002)
    folder = tmp_path_factory.mktemp("adapted") / "model"
    products.write_model(merging.merged(model, print), opened.tokenizer, folder)
    return folder


def rows(whole: Path) -> list[list[int]]:
    from pydoc_data.topics import topics

    texts = [topics[name] for name in sorted(topics)]
    found = (ids[:LENGTH] for ids in products.open_tokenizer(whole)(texts)["input_ids"])
    return [ids for ids in found if len(ids) == LENGTH][:ROWS]


def called(command: list[str], name: str, **more: str) -> list[int]:
    """What a process prints last, as JSON."""
    env = {**os.environ, **dict(methods.METHODS[name].environment), **more}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def weights(folder: Path) -> dict[str, bytes]:
    import torch
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  it is no mapping
                tensor = file.get_tensor(name).contiguous().flatten()
                found[name] = tensor.view(torch.uint8).numpy().tobytes()
    return found


@pytest.mark.parametrize("base", ["whole", "adapted"])
@pytest.mark.parametrize("name", NAMES)
def test_a_method_gives_what_its_library_gives_and_opens_as_it_was(name, base, request, tmp_path):
    if lacking := methods.missing(name):
        pytest.skip(lacking)
    source: Path = request.getfixturevalue(base)
    given = rows(source)
    (tmp_path / "rows.json").write_text(json.dumps(given))
    by_hand = [sys.executable, str(TOOLS / "by_hand.py"), name, str(source)]
    by_hand += [str(tmp_path / "rows.json"), str(tmp_path / "hand")]
    before = called(by_hand, name, COUNT=str(ANSWER))
    group = GROUP if GROUP in methods.METHODS[name].groups else None
    options = methods.resolved(Options(method=name, group_size=group))
    made = tmp_path / "made"
    made.mkdir()
    (tmp_path / "draft").mkdir()
    context = Context(tmp_path / "draft", Checkpoints(tmp_path / "checkpoints", print))
    making.make(source, made, given, options, context)
    assert weights(made) == weights(tmp_path / "hand")
    reading = [sys.executable, "-c", OPEN, str(made), json.dumps(given[0]), str(TOOLS), str(ANSWER)]
    assert called(reading, name) == before
