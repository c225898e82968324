"""What becomes small of each stage's options; all others stay as the recipe has them."""

from collections.abc import Callable, Mapping
from typing import Any

ROWS = 8
OF_VLLM = {"memory_share": 0.8, "gpus": 1}
"""What means nothing to transformers, as it is where it is left out."""
Options = dict[str, Any]


def _process(said: Options) -> Options:
    """The rows that there are, of which no split has to be chosen."""
    return {
        "first": ROWS,
        "split": None,
        "held_out": min(said["held_out"], 2),
        "max_length": 8 * said["max_length"],  # where the tokens are bytes, rows are longer
    }


def _load(said: Options) -> Options:
    """On the CPU, with the attention that it has."""
    compiled = said["attention"].startswith("fl")
    return {
        "device_map": "one",
        "max_memory": None,
        "attention": "auto" if compiled else said["attention"],
    }


def _adapt(said: Options) -> Options:
    """Two steps of two rows, with what needs no GPU."""
    answers = said["objective"] == "grpo"
    return {
        "max_steps": 2,
        "epochs": None,
        "max_tokens": None,
        "warmup_steps": None,
        "warmup_ratio": None,
        "effective_batch_size": 2,
        "micro_batch_size": None,
        "generations": 2 if answers else said["generations"],
        "max_new_tokens": 8 if answers else said["max_new_tokens"],
        "evaluate_every": said["evaluate_every"] and 1,
        "evaluate_rows": least(said["evaluate_rows"], 2),
        "optimizer": said["optimizer"].removeprefix("paged_"),
        "precision": "auto" if said["precision"] == "float16" else said["precision"],
        "kernels": "torch",
        "compile": False,
        "devices": "auto",
        "track": [],
    }


def _quantize(said: Options) -> Options:
    """Few rows to look at, and no bound: a random model may become worse as it likes."""
    calibration, gate = said["calibration"], said["gate"]
    return {
        "calibration": {**calibration, "rows": min(calibration["rows"], 4)},
        "gate": {**gate, "rows": min(gate["rows"], 2), "max_perplexity_increase": 1e9},
    }


def _generate(said: Options) -> Options:
    """Short answers to two prompts."""
    longest = min(said["max_new_tokens"], 8)
    return {
        "rows": least(said["rows"], 2),
        "samples": min(said["samples"], 2),
        "max_new_tokens": longest,
        "min_new_tokens": min(said["min_new_tokens"], longest),
        "engine": "transformers",
        **{name: value for name, value in OF_VLLM.items() if name in said},
    }


def _evaluate(said: Options) -> Options:
    """Few rows, and nothing required of them."""
    return {
        "perplexity_rows": min(said["perplexity_rows"], 2),
        "resamples": min(said["resamples"], 20),
        "require": {},
    }


def _save(_: Options) -> Options:
    """Nowhere else: a smoke run pushes nothing."""
    return {"push": None, "overwrite": True}


def least(count: int | None, most: int) -> int:
    """A count that may be left out, where all is meant."""
    return most if count is None else min(count, most)


SMALL: Mapping[str, Callable[[Options], Options]] = {
    "process": _process,
    "load": _load,
    "adapt": _adapt,
    "quantize": _quantize,
    "generate": _generate,
    "evaluate": _evaluate,
    "save": _save,
}
