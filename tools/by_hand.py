"""Each library of quantizing called by hand: `python tools/by_hand.py METHOD MODEL ROWS TARGET`.

What people would write without this project, to hold it against. MODEL is a folder, ROWS a JSON
file with lists of token ids. With COUNT in the environment it prints as JSON so many tokens that
the quantized model answers to the first row, greedily, once it is saved.
"""

import json
import os
import sys
from typing import Any

Rows = list[list[int]]


def main() -> None:
    """Read, quantize, write."""
    method, model, rows, target = sys.argv[1:]
    with open(rows, encoding="utf-8") as file:
        given = json.load(file)
    made = BY_HAND[method](model, given, target)
    if count := os.environ.get("COUNT"):
        print(json.dumps(answer(made, given[0], int(count))))
    sys.stdout.flush()
    os._exit(0)


def answer(model: Any, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens after a prompt."""
    import torch

    ids = torch.tensor([prompt])
    how = {"max_new_tokens": count, "do_sample": False}
    written = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **how)
    return list(map(int, written[0][len(prompt) :]))


def bitsandbytes(model: str, _: Rows, target: str, **settings: Any) -> Any:
    """int8, nf4, fp4."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(**settings)
    made = AutoModelForCausalLM.from_pretrained(model, quantization_config=config)
    made.save_pretrained(target)
    return made


def four_bits(kind: str) -> Any:
    """One of the 4-bit forms."""
    import torch

    settings = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    }
    return lambda model, rows, target: bitsandbytes(model, rows, target, **settings)


def gptq(model: str, rows: Rows, target: str) -> Any:
    """4 bits in groups of 64."""
    os.environ["GPTQMODEL_CPU_WORKERS"] = "2"
    from gptqmodel import GPTQModel, QuantizeConfig

    made = GPTQModel.load(model, QuantizeConfig(bits=4, group_size=64))
    made.quantize(
        [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows], batch_size=1
    )
    made.save(target)
    return GPTQModel.load(target)  # what has just been quantized answers garbage until it is read


def compressed(model: str, rows: Rows, target: str, recipe: Any) -> Any:
    """What llm-compressor's `oneshot` does."""
    import torch
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM

    IntermediatesCache.pin_memory = lambda *_, **__: None  # it asks for a GPU
    made = AutoModelForCausalLM.from_pretrained(model)
    given = DataLoader([{"input_ids": torch.tensor([ids])} for ids in rows], batch_size=None)
    oneshot(model=made, dataset=given, recipe=recipe, output_dir=target)
    return made


def awq(model: str, rows: Rows, target: str) -> Any:
    """4 bits in groups of 64."""
    from llmcompressor.modifiers.awq import AWQModifier

    return compressed(model, rows, target, AWQModifier(**scheme(4)))


def w8a8(model: str, rows: Rows, target: str) -> Any:
    """Weights and activations in 8 bits."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    rounding = GPTQModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"])
    return compressed(model, rows, target, [SmoothQuantModifier(), rounding])


def fp8(model: str, _: Rows, target: str) -> Any:
    """Weights in 8-bit floats, activations as they come."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM

    recipe = QuantizationModifier(targets="Linear", scheme="FP8_DYNAMIC", ignore=["lm_head"])
    made = AutoModelForCausalLM.from_pretrained(model)
    oneshot(model=made, recipe=recipe, output_dir=target)
    return made


def scheme(bits: int) -> dict[str, Any]:
    """Symmetric groups of 64."""
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": 64,
    }
    group = {"targets": ["Linear"], "weights": weights}
    return {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def torchao(model: str, _: Rows, target: str, config: Any) -> Any:
    """Weights alone."""
    from transformers import AutoModelForCausalLM, TorchAoConfig

    made = AutoModelForCausalLM.from_pretrained(model, quantization_config=TorchAoConfig(config))
    made.save_pretrained(target)
    return made


def torchao_int8(model: str, rows: Rows, target: str) -> Any:
    """8 bits."""
    from torchao.quantization import Int8WeightOnlyConfig

    return torchao(model, rows, target, Int8WeightOnlyConfig())


def torchao_int4(model: str, rows: Rows, target: str) -> Any:
    """4 bits in groups of 64."""
    import torch
    from torchao.quantization import IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    return torchao(
        model, rows, target, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(64))
    )


BY_HAND = {
    "int8": lambda model, rows, target: bitsandbytes(model, rows, target, load_in_8bit=True),
    "nf4": lambda *given: four_bits("nf4")(*given),
    "fp4": lambda *given: four_bits("fp4")(*given),
    "gptq": gptq,
    "awq": awq,
    "w8a8": w8a8,
    "fp8": fp8,
    "torchao-int8": torchao_int8,
    "torchao-int4": torchao_int4,
}

if __name__ == "__main__":
    main()
