"""Whether a saved folder is the model: opened by a plain new process, it computes the same."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import network, quantized
from runner.errors import StepError
from runner.saving.formats import Written
from runner.stage import Context

SCRIPT = Path(__file__).with_name("reopen.py")
PROMPT = "Name three colours, and say what 7 times 6 is."
TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 3e-2, "quantized": 0.2}
"""How far a logit may be from the one in memory, as a share of the largest logit, by number format.

Written and read back alike, and computed by the same kernels, the two are equal to the bit. Another
kernel or device moves them by what the number format rounds: on a CPU with AVX512-BF16 a plain
process takes a kernel of bitsandbytes that is faster and rounds more, by which SmolLM2-135M in nf4
differs from itself by 0.05, while nf4 differs from the weights before it by 0.69.
"""
OF_GGUF = {"f32": 1e-3, "f16": 1e-2, "bf16": 6e-2, "q8_0": 0.2, "q6_k": 0.3} | dict.fromkeys(
    ("q5_0", "q5_1", "q5_k_m", "q5_k_s", "q4_0", "q4_1", "q4_k_m", "q4_k_s"), 0.7
)
"""The same for the kinds of GGUF files, where few bits move a logit. Others are opened only."""
TAIL = 12
"""Lines of what the other process said that a message repeats."""


@dataclass(frozen=True)
class Expected:
    """What the model in memory makes of the prompt, and how another process is to open it."""

    job: Mapping[str, Any]
    kind: str


def expect(written: Written, draft: Path, gguf: str = "") -> Expected:
    """Compute what is to be found again, before the model goes out of memory."""
    import numpy as np
    import torch

    model = written.model
    ids, is_chat = _ids(written.tokenizer())
    with torch.inference_mode():
        given = torch.tensor([ids], device=model.device)
        logits = model(input_ids=given).logits.float().cpu().numpy()
    path = draft / "logits.npy"
    np.save(path, logits)
    under = model.get_base_model() if hasattr(model, "peft_config") else model
    kind = "quantized" if getattr(under, "is_quantized", False) else str(under.dtype)[6:]
    kind = gguf if written.file else kind
    job = {
        "logits": str(path),
        "ids": ids,
        "chat": is_chat,
        "prompt": PROMPT,
        "class": _class(under),
        "attention": under.config._attn_implementation,
        "device": _device(under),
        "dtype": str(under.dtype)[6:],
        "trust": type(under).__module__.startswith("transformers_modules."),
        "base": str(written.base) if written.base else None,
        "base_settings": _base_settings(under),
        "gguf": written.file,
        "quantization": _quantization(under) if written.base else None,
    }
    return Expected(job, kind)


def check(folder: Path, expected: Expected, context: Context) -> dict[str, Any]:
    """Open the folder in a process of its own and compare; StepError where it is another model.

    The figures: the largest difference of a logit as a share of the largest logit, the share of
    places where the same token is the likeliest, and the seconds that it took to open.
    """
    begun = time.monotonic()
    found = _asked({**expected.job, "folder": str(folder)}, context)
    limits = OF_GGUF if expected.job["gguf"] else TOLERANCE
    limit = limits.get(expected.kind, math.inf)
    if "ids" in found:
        raise _wrong("its tokenizer makes other tokens of the same prompt")
    if "shape" in found:
        raise _wrong(f"its logits are no numbers, or have the shape {found['shape']}")
    if found["difference"] > limit:
        share = f"{found['difference']:.2g} of the largest, where {limit:g} may be"
        raise _wrong(f"its logits differ from those of the model in memory by {share}")
    return {
        "difference": found["difference"],
        "tolerance": limit,
        "likeliest": found["likeliest"],
        "open_seconds": round(found["seconds"], 3),
        "seconds": round(time.monotonic() - begun, 3),
    }


def _ids(tokenizer: Any) -> tuple[list[int], bool]:
    """The prompt in tokens, and whether the chat template made them."""
    from jinja2 import TemplateError

    if tokenizer.chat_template is not None:
        message = {"role": "user", "content": PROMPT}
        try:
            found = tokenizer.apply_chat_template(
                [message], add_generation_prompt=True, return_dict=False
            )
            return list(found), True
        except TemplateError:  # one that wants other roles
            pass
    return list(tokenizer(PROMPT)["input_ids"]), False


def _device(model: Any) -> str:
    """Where the other process is to put the model: where it is here, or over all there is."""
    places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
    return "auto" if len(places) > 1 else str(model.device)


def _class(model: Any) -> str:
    """The class of transformers by whose from_pretrained the folder is opened."""
    scores = type(model).__name__.endswith("ForSequenceClassification")
    return "AutoModelForSequenceClassification" if scores else "AutoModelForCausalLM"


def _base_settings(model: Any) -> dict[str, Any]:
    """What a base must be told that is no model which scores by itself."""
    if _class(model) == "AutoModelForCausalLM":
        return {}
    return {"num_labels": model.config.num_labels, "pad_token_id": model.config.pad_token_id}


def _quantization(model: Any) -> dict[str, Any] | None:
    """How bitsandbytes holds the base of an adapter, as another process is to read it."""
    held = quantized.description(model)
    if held is None or "double_quantization" not in held:
        return None
    made = quantized.config(held["method"], held["double_quantization"], str(model.dtype))
    plain = made.to_dict()
    return {name: value for name, value in plain.items() if name.startswith(("load_in", "bnb_"))}


def _asked(job: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """The answer of the other process; it is stopped where the run is."""
    import torch

    env = os.environ | dict.fromkeys(network.LIBRARIES, "1")
    env |= {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONWARNINGS": "ignore"}
    said = context.draft / "reopened.txt"
    with open(said, "w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=env,
            text=True,
        )
        try:
            out = _finished(process, json.dumps(job), context)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise _wrong("a new process does not open it:\n  " + "\n  ".join(lines[-TAIL:]))
    return dict(json.loads(out.strip().splitlines()[-1]))


def _finished(process: "subprocess.Popen[str]", job: str, context: Context) -> str:
    asked: str | None = job
    while True:
        try:
            return process.communicate(asked, timeout=0.2)[0]
        except subprocess.TimeoutExpired:
            asked = None
            context.stop_here()


def _wrong(fact: str) -> StepError:
    return StepError(
        f"what was saved is not the model: {fact}. The target is left as it was.",
        "To have it all the same: save.verify=false",
    )
