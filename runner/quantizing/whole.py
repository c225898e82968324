"""No quantization: the weights as they are, so that a sweep can hold the others against them."""

import shutil

from runner.quantizing.work import Work

KEPT = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
"""What a model is made of, but for its tokenizer."""


def quantize(work: Work) -> None:
    """Copy the weights."""
    found = sorted({path for pattern in KEPT for path in work.whole.glob(pattern)})
    for done, path in enumerate(found, 1):
        shutil.copyfile(path, work.target / path.name)
        work.progress(done, len(found), "files")
