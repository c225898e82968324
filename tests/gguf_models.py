"""Tiny models and tokenizers of every kind that is written as GGUF, and texts that cut oddly."""

from pathlib import Path
from typing import Any

from tiny import TEMPLATE

TEXTS = [
    "Hello, world!",
    " leading and trailing  ",
    "tabs\tand\n\nlines\r\n   indented\n",
    "I've said they'LL come; don't you'RE",
    "3 33 333 3333 3.14 1,000,000 ²³ ½",
    "naïve café Ünïcödé Straße ΑΒΓ привет мир",
    "我想在apple工作 こんにちは 안녕하세요 សួស្តី",
    "🚀 (normal) 😶\u200d🌫️ 🦙🦙",
    "a_b-c/d\\e {x: [1, 2]} <tag> ------======= ''''```\"\"\"",
    "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n",
    "HTMLParser fooBar FOOBAR XMLHttp \u00a0 \u3000 wide",
    "a",
    "\n",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PIECES = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
ADDED = "<tool_call>"
SIZE = 600

WIDTHS = {
    "vocab_size": SIZE + 8,  # rows without a token, as many models have
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
HEAD = {"hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128}
"""The only width of a head that transformers takes a GGUF file of Qwen3 to have."""
GEMMA = {"head_dim": 256, "query_pre_attn_scalar": 256}
SMALL_GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied-biased": (
        "llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 32},
    ),
    "llama-3": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-linear": ("llama", {"rope_parameters": LINEAR_ROPE}),
    "llama-yarn": ("llama", {"rope_parameters": YARN_ROPE}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("qwen2", {}),
    "qwen2-tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", HEAD),
    "gemma2": ("gemma2", GEMMA),
    "gemma2-windows": ("gemma2", {**SMALL_GEMMA, "num_hidden_layers": 4}),
    "gemma3": ("gemma3_text", GEMMA),
    "gemma3-windows": ("gemma3_text", {**SMALL_GEMMA, "num_hidden_layers": 8}),
}


def make_tokenizer(cuts: str) -> Any:
    """A tokenizer that cuts text in one of the ways that llama.cpp has names for."""
    from tokenizers import AddedToken, trainers
    from transformers import PreTrainedTokenizerFast

    raw = _raw(cuts)
    pieces = cuts.startswith("pieces")
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 1,
        special_tokens=[*PIECES, *byte_tokens] if pieces else SPECIAL,
        initial_alphabet=[] if pieces else _alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(TEXTS * 3, trainer)
    if pieces:
        raw = _without_special_bytes(raw)
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    plain = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **(named if pieces else plain))
    tokenizer.add_tokens([AddedToken(ADDED, normalized=False)])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(folder: Path, name: str, cuts: str = "", dtype: str = "float32") -> Path:
    """Write a random model whose every weight matters, with a tokenizer that suits it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, settings = MODELS[name]
    config = AutoConfig.for_model(
        model_type, **{"tie_word_embeddings": model_type.startswith("gemma"), **WIDTHS, **settings}
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            wide = parameter.dim() > 1
            parameter.add_(torch.randn_like(parameter) * (0.1 if wide else 0.3))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    pieces = model_type in ("mistral", "gemma2", "gemma3_text")
    make_tokenizer(cuts or ("pieces" if pieces else "gpt-2")).save_pretrained(folder)
    return folder


def _alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _raw(cuts: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    from runner.gguf import splitting

    if cuts.startswith("pieces"):
        raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        if cuts == "pieces-first":
            raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            return raw
        steps = [normalizers.Prepend("▁")] if cuts == "pieces-prefix" else []
        raw.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
        raw.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        return raw
    (parts, whole_words), _ = next(each for each in splitting.NAMES.items() if each[1] == cuts)
    raw = Tokenizer(models.BPE(ignore_merges=whole_words))
    made = [
        pre_tokenizers.Digits(individual_digits=True)
        if part == splitting.DIGITS
        else pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=part == splitting.GPT2)
        if part in (splitting.GPT2, splitting.BYTES)
        else pre_tokenizers.Split(Regex(part), "isolated")
        for part in parts
    ]
    raw.pre_tokenizer = made[0] if len(made) == 1 else pre_tokenizers.Sequence(made)
    raw.decoder = decoders.ByteLevel()
    return raw


def _without_special_bytes(raw: Any) -> Any:
    """Byte tokens are no special tokens: only training wanted them named so."""
    import json

    from tokenizers import Tokenizer

    found = json.loads(raw.to_str())
    found["added_tokens"] = [each for each in found["added_tokens"] if "<0x" not in each["content"]]
    return Tokenizer.from_str(json.dumps(found))
