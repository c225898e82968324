"""Optional libraries: asked for where they are used, and named with the pip line when missing."""

from importlib.util import find_spec

EXTRAS = {
    "compress": ("llmcompressor", "compressed_tensors"),
    "compressed-tensors": ("compressed_tensors",),
    "constrain": ("llguidance",),
    "flash": ("flash_attn",),
    "gguf": ("llama_cpp",),
    "gptq": ("gptqmodel", "optimum"),
    "liger": ("liger_kernel",),
    "lm-eval": ("lm_eval",),
    "mlflow": ("mlflow",),
    "optuna": ("optuna", "scipy"),
    "ray": ("ray",),
    "scores": ("rouge_score", "sacrebleu"),
    "slurm": ("submitit",),
    "tensorboard": ("tensorboard",),
    "torchao": ("torchao",),
    "trackio": ("trackio",),
    "vllm": ("vllm",),
    "wandb": ("wandb",),
}
"""What each extra of pyproject.toml brings, by the names that are imported."""

ENABLES = {
    "compress": "quantize.method=awq, w8a8 or fp8",
    "compressed-tensors": "loading checkpoints in compressed-tensors' formats",
    "constrain": "generate.json_schema and generate.regex: answers that follow them",
    "flash": "load.attention=flash_attention_2, on GPUs",
    "gguf": "generate.engine=llama.cpp, and the K-quants of save.format=gguf",
    "gptq": "quantize.method=gptq, and loading checkpoints quantized with GPTQ",
    "liger": "adapt.kernels=liger: fused layers, on GPUs",
    "lm-eval": "evaluate.tasks: those of lm-evaluation-harness",
    "mlflow": "adapt.track=[mlflow]",
    "optuna": "sweep.search=optuna",
    "ray": "launch=ray: sweeps on a cluster of Ray",
    "scores": "evaluate.metrics=[rouge] and [bleu]",
    "slurm": "launch=slurm: sweeps as jobs of Slurm",
    "tensorboard": "adapt.track=[tensorboard]",
    "torchao": "quantize.method=torchao-int8 or torchao-int4, and loading such checkpoints",
    "trackio": "adapt.track=[trackio]",
    "vllm": "generate.engine=vllm: many answers at once, on GPUs",
    "wandb": "adapt.track=[wandb]",
}
"""What can be done with each extra that cannot be done without."""


def missing(extra: str) -> str | None:
    """A sentence with the pip line where something of an extra is not installed."""
    lacking = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if not lacking:
        return None
    names = " and ".join(name.replace("_", "-") for name in lacking)
    return f"{names} is missing: {line(extra)}"


def line(extra: str) -> str:
    """What to type to have an extra."""
    return f'python -m pip install "recipe-runner[{extra}]"'
