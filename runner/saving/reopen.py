"""Opens a saved folder with transformers and peft alone, in a process of its own.

A job comes as JSON through standard input, the answer goes out in the same way. Nothing of
recipe-runner is imported: who uses the folder has none of it.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Open, compute the logits of the prompt, and compare."""
    job = json.load(sys.stdin)
    begun = time.monotonic()
    ids = job["ids"] if job["gguf"] else _ids(_tokenizer(job), job)
    found = _compared(job, _model(job).eval(), ids)
    answer = json.dumps({**found, "seconds": time.monotonic() - begun})
    sys.stdout.write(f"\n{answer}\n")  # libraries may have written before it


def _tokenizer(job: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(job["folder"], trust_remote_code=job["trust"])


def _model(job: dict[str, Any]) -> Any:
    """The model of the folder; of an adapter, the base with the adapter on it."""
    import transformers

    kind = getattr(transformers, job["class"])
    settings = {
        "dtype": "auto",
        "attn_implementation": job["attention"],
        "device_map": job["device"],
        "trust_remote_code": job["trust"],
    }
    if job["gguf"]:  # its tokenizer is llama.cpp's: transformers cuts added tokens into pieces
        settings |= {"gguf_file": job["gguf"], "dtype": job["dtype"]}
    if job["base"] is None:
        return kind.from_pretrained(job["folder"], **settings)
    from peft import PeftModel

    settings |= {"dtype": job["dtype"], **job["base_settings"]}
    if job["quantization"]:
        settings["quantization_config"] = transformers.BitsAndBytesConfig(**job["quantization"])
    base = kind.from_pretrained(job["base"], **settings)
    return PeftModel.from_pretrained(base, job["folder"])


def _ids(tokenizer: Any, job: dict[str, Any]) -> list[int]:
    """The prompt in tokens, by the chat template where there is one."""
    if tokenizer.chat_template is None or not job["chat"]:
        return list(tokenizer(job["prompt"])["input_ids"])
    message = {"role": "user", "content": job["prompt"]}
    return list(
        tokenizer.apply_chat_template([message], add_generation_prompt=True, return_dict=False)
    )


def _compared(job: dict[str, Any], model: Any, ids: list[int]) -> dict[str, Any]:
    """How far the logits are from those that are expected, relative to the largest of these."""
    import numpy as np
    import torch

    if ids != job["ids"]:
        return {"ids": ids}
    with torch.inference_mode():
        given = torch.tensor([ids], device=model.device)
        found = model(input_ids=given).logits.float().cpu().numpy()
    expected = np.load(Path(job["logits"]), allow_pickle=False)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return {"shape": list(found.shape), "expected": list(expected.shape)}
    furthest = float(np.abs(found - expected).max())
    likeliest = float((found.argmax(-1) == expected.argmax(-1)).mean())
    return {"difference": furthest / float(np.abs(expected).max() or 1), "likeliest": likeliest}


if __name__ == "__main__":
    main()
