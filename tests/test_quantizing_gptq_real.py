"""GPTQ and torchao on the real model of the quickstart, held against their libraries."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from squeezing import opened, quantize, told

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(1800)]

BY_HAND = """
import json, os, sys
os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
from gptqmodel import GPTQModel, QuantizeConfig
whole, saved, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = GPTQModel.load(whole, QuantizeConfig(bits=4, group_size=64))
shown = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
model.quantize(shown, batch_size=1)
model.save(saved)
"""

READ_BY_IT = """
import json, os, sys
os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
import torch
from gptqmodel import GPTQModel
model = GPTQModel.load(sys.argv[2])
ids = torch.tensor([json.loads(sys.argv[1])])
text = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0].tolist()
print("FOUND" + json.dumps(text))
"""


@pytest.fixture(scope="module")
def real(real_model):
    """The real model."""
    return real_model


@pytest.fixture(scope="module")
def texts(real):
    """Rows of 256 tokens of Python's documentation: to calibrate with, and to look at."""
    from pydoc_data.topics import topics

    from runner import products

    tokenizer = products.open_tokenizer(real)
    ids = tokenizer("\n".join(topics[name] for name in sorted(topics)))["input_ids"]
    rows = [ids[at : at + 256] for at in range(0, 24 * 256, 256)]
    return rows[:16], rows[16:]


def test_gptq_is_that_of_the_library_and_reads_the_same(real, texts, tmp_path):
    pytest.importorskip("gptqmodel", reason="needs the extra gptq")
    rows, _ = texts
    done = quantize(real, tmp_path / "ours", rows, method="gptq", group_size=64)
    assert done.layers == list(range(1, 31))
    ours = tmp_path / "ours" / "target"
    said = [sys.executable, "-c", BY_HAND, str(real), str(tmp_path / "theirs"), json.dumps(rows)]
    subprocess.run(said, cwd=tmp_path, check=True, capture_output=True)
    weights = load_file(ours / "model.safetensors")
    for name, tensor in load_file(tmp_path / "theirs" / "model.safetensors").items():
        assert torch.equal(tensor, weights[name]), name
    prompt = rows[0][:48]
    [found] = opened(prompt, ours)
    assert found["wrong"] == []
    assert found["text"] == told(READ_BY_IT, json.dumps(prompt), str(tmp_path / "theirs"))


@pytest.mark.parametrize(("form", "most"), [("int8", 0.01), ("int4", 0.5)])
def test_torchao_keeps_what_the_model_knows(real, texts, tmp_path, form, most):
    pytest.importorskip("torchao", reason="needs the extra torchao")
    more = {"group_size": 32} if form == "int4" else {}
    assert quantize(real, tmp_path, [], method=f"torchao-{form}", **more).ended
    text = [token for row in texts[1] for token in row]
    whole, made = opened(text, real, tmp_path / "target")
    assert made["wrong"] == []
    assert made["loss"] - whole["loss"] < most
