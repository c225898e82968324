"""Optional libraries: asked for where they are used, and named with the pip line when missing."""

from importlib.util import find_spec

EXTRAS = {
    "compress": ("llmcompressor", "compressed_tensors"),
    "compressed-tensors": ("compressed_tensors",),
    "constrain": ("llguidance",),
    "flash": ("flash_attn",),
    "gguf": ("llama_cpp",),
    "gptq": ("gptqmodel", "optimum"),
    "lm-eval": ("lm_eval",),
    "scores": ("rouge_score", "sacrebleu"),
    "torchao": ("torchao",),
}
"""What each extra of pyproject.toml brings, by the names that are imported."""


def missing(extra: str) -> str | None:
    """A sentence with the pip line where something of an extra is not installed."""
    lacking = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if not lacking:
        return None
    names = " and ".join(name.replace("_", "-") for name in lacking)
    return f'{names} is missing: python -m pip install "recipe-runner[{extra}]"'
