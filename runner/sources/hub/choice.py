"""Which files of a repository are fetched: by patterns, or what a model needs and no more."""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import NamedTuple

from runner.errors import StepError, did_you_mean, listing
from runner.sources.hub.repo import File, Source

SMALL = (
    "*.json *.jinja *.txt *.md *.model *.tiktoken *.vocab *.bpe *.spm "
    "*LICENSE* *LICENCE* *NOTICE* *README* *USE_POLICY*"
).split()
"""Configuration, tokenizer, templates and terms; no code."""
ASIDE = "original/* onnx/* openvino/* coreml/* tflite/* runs/* checkpoint-*/* .*".split()
"""Second copies in other forms, and what a training left behind."""
SAFE = ("*.safetensors", "*.gguf")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Weights that can run code when they are loaded, in order of preference."""
OTHER = ("*.h5", "*.msgpack", "*.onnx", "*.tflite", "*.ot", "*.mlmodel", "*.npz", "*.nemo")
"""Weights that transformers does not load with torch."""
NOT_WEIGHTS = "training_args.* optimizer* scheduler* scaler* rng_state*".split()
INDEX = re.compile(r"(.+)(\.[a-z0-9]+)\.index(\.[^./]+)?\.json")
NAME = re.compile(
    r"(?P<base>.+?)(\.(?P<variant>[^./-]+))?(?P<part>-\d{5}-of-\d{5})?"
    r"(\.(?P<late>[^./-]+))?\.(?P<form>[a-z0-9]+)"
)
"""model.safetensors, model.fp16.safetensors, model-00001-of-00002.safetensors, ..."""
SHOWN = 8


class Weights(NamedTuple):
    """What the name of a file of weights says; the parts of one checkpoint share it."""

    base: str
    variant: str
    form: str


def wanted(files: Sequence[File], source: Source) -> list[File]:
    """The files to fetch; StepError where the patterns or the repository leave nothing to load."""
    from huggingface_hub.utils import filter_repo_objects

    fit = filter_repo_objects(
        files,
        allow_patterns=list(source.include) or None,
        ignore_patterns=list(source.exclude) or None,
        key=lambda file: file.path,
    )
    found = list(fit)
    if not found:
        raise _nothing(files, source)
    if source.type == "dataset":
        return found
    if not source.include:
        return _needed(found, source)
    if not _any(found, SAFE):
        _allow(_pickles(found), source)
    return found


def names(files: Sequence[File]) -> str:
    """The first few names, for a message."""
    more = [f"{len(files) - SHOWN} more"] if len(files) > SHOWN else []
    return listing([file.path for file in files[:SHOWN]] + more)


def _needed(files: list[File], source: Source) -> list[File]:
    """Weights in one form, and the small files beside them."""
    inside = [file for file in files if not _fits(file, ASIDE)] or files
    weights = _weights(inside, source)
    in_parts = {_said(file)[0] for file in weights if _said(file)[1]}
    small = [file for file in inside if _fits(file, SMALL) and _index_of(file, in_parts)]
    return small + weights


def _weights(files: list[File], source: Source) -> list[File]:
    """Safetensors before GGUF before pickles."""
    if tensors := _all(files, ("*.safetensors",)):
        return _plain(tensors)
    if models := _all(files, ("*.gguf",)):
        return _one_gguf(models, source)
    if pickles := _pickles(files):
        _allow(pickles, source)
        first = next(form for form in PICKLED if _any(pickles, (form,)))
        return _plain(_all(pickles, (first,)))
    if others := _all(files, OTHER):
        raise StepError(
            f"{source.repo} has weights only as {names(others)}, which torch does not load.",
            "To fetch them all the same, name them in fetch.model.include.",
        )
    return []


def _plain(files: list[File]) -> list[File]:
    """One copy of each checkpoint: not its other number formats, not its parts beside a whole."""
    plain = {_said(file)[0].base for file in files if not _said(file)[0].variant}
    whole = {_said(file)[0] for file in files if not _said(file)[1]}
    kept = [
        file
        for file in files
        for said, part in [_said(file)]
        if not (said.variant and said.base in plain) and not (part and said in whole)
    ]
    return [file for file in kept if not _fits(file, ("consolidated*",))] or kept


def _one_gguf(files: list[File], source: Source) -> list[File]:
    models = [file for file in files if "mmproj" not in file.path] or files
    if len({_said(file)[0] for file in models}) == 1:
        return models
    raise StepError(
        f"{source.repo} has several GGUF models and no safetensors: {names(models)}. "
        "Name one of them in fetch.model.include.",
        f'runner run RECIPE "fetch.model.include=[{models[0].path}]"',
    )


def _allow(pickles: list[File], source: Source) -> None:
    """Refuse a model whose weights are pickles, unless the recipe allows it."""
    if pickles and not source.allow_pickle:
        raise StepError(
            f"{source.repo} has its weights only as pickles ({names(pickles)}), a form that can "
            "run code when it is loaded. With `allow_pickle: true` they are fetched, and loaded "
            "with weights_only, which runs none.",
            "runner run RECIPE fetch.model.allow_pickle=true",
        )


def _nothing(files: Sequence[File], source: Source) -> StepError:
    if not files:
        return StepError(f"{source.repo} has no files at commit {source.commit}.")
    paths = [file.path for file in files]
    guess = next(filter(None, (did_you_mean(each, paths) for each in source.include)), "")
    fact = f"{source.repo} has no file that fits include and exclude. {guess}".rstrip()
    return StepError(f"{fact} It has {names(files)}.")


def _said(file: File) -> tuple[Weights, bool]:
    """What the name says, and whether the file is one part of several."""
    match = NAME.fullmatch(file.path)
    if match is None:
        return Weights(file.path, "", ""), False
    variant = match["variant"] or match["late"] or ""
    return Weights(match["base"], variant, match["form"]), bool(match["part"])


def _index_of(file: File, in_parts: set[Weights]) -> bool:
    """Whether a file is the index of one of these, or no index at all."""
    match = INDEX.fullmatch(file.path)
    if match is None:
        return True
    base, form, variant = match.groups(default="")
    return _said(File(f"{base}{variant}{form}", 0, ""))[0] in in_parts


def _pickles(files: list[File]) -> list[File]:
    return [
        file
        for file in _all(files, PICKLED)
        if not any(fnmatch(PurePosixPath(file.path).name, name) for name in NOT_WEIGHTS)
    ]


def _fits(file: File, patterns: Sequence[str]) -> bool:
    return any(fnmatch(file.path, pattern) for pattern in patterns)


def _all(files: Sequence[File], patterns: Sequence[str]) -> list[File]:
    return [file for file in files if _fits(file, patterns)]


def _any(files: Sequence[File], patterns: Sequence[str]) -> bool:
    return bool(_all(files, patterns))
