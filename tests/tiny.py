"""A tiny random chat model, a tiny dataset and a recipe over all stages."""

import json
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_model(folder: Path, seed: int = 0) -> Path:
    """Write a random two-layer Llama and a byte-level tokenizer with a ChatML template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_data(path: Path, rows: int = 40) -> Path:
    """Write conversations of one question and one answer."""
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"say {number}"},
                    {"role": "assistant", "content": str(number * 7)},
                ]
            }
        )
        for number in range(rows)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_recipe(folder: Path, model: Path, **adapt: object) -> Path:
    """Write a recipe that goes through all stages with that model, data beside it."""
    make_data(folder / "rows.jsonl")
    options = {
        "rank": 4,
        "max_steps": 12,
        "effective_batch_size": 4,
        "checkpoint_every": 3,
        **adapt,
    }
    recipe = {
        "name": "tiny",
        "steps": "fetch process load before adapt after quantize evaluate save".split(),
        "fetch": {"model": {"path": str(model)}, "data": {"path": "rows.jsonl"}},
        "process": {"held_out": 8},
        "before": {"stage": "generate", "max_new_tokens": 6, "batch_size": 3},
        "after": {"stage": "generate", "max_new_tokens": 6, "batch_size": 3},
        "adapt": options,
        "evaluate": {"reference": "adapt", "perplexity_rows": 4},
        "save": {"to": "saved", "overwrite": True, "verify": False},
    }
    path = folder / "tiny.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    return path
