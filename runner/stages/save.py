"""Put the finished model where `from_pretrained` and people find it: on disk, and on the Hub."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner import files, merging, products
from runner.options import Fault, option, plain
from runner.products import Files, Model
from runner.recipe import Step
from runner.resources import Resources
from runner.saving import shards, targets
from runner.saving.formats import MARK
from runner.saving.sealing import Sealing
from runner.saving.target import Push, asked
from runner.stage import Context, Facts, Need, Room, pins_nothing, resolves_nothing

if TYPE_CHECKING:
    from runner.saving.formats import Written

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", consumes=True),
    "base": Need(kind="files", part="model", optional=True),
    "texts": Need(kind="text", many=True, optional=True),
    "scores": Need(kind="scores", many=True, optional=True),
}
GIVES = "files"
VERSION = 3
PARTS = False
HOLDS = False
RESOURCES = Resources(gpus=1, cpus=2, memory=32, minutes=120)

REFERENCE, KEPT = "saved.json", "files"
"""What the store keeps: what was written where, and the files where nothing else holds them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where to, in which form, and what is made sure of."""

    to: Path | None = option(
        None, "The folder to write; it may be left out where push is given", from_cwd=True
    )
    overwrite: bool = option(False, "Replace a folder that holds something else", keyed=False)
    format: Literal["hf", "adapter", "gguf"] = option(
        "hf",
        "A whole model, adapters merged and quantized weights as they are; the adapter alone; or"
        " one GGUF file for llama.cpp",
    )
    gguf: str = option("q8_0", "format gguf: the kind of its numbers, f16, bf16, q8_0, q4_k_m, ...")
    shard_size: str = option("5GB", "The most that one file of weights holds: 500MB, 5GB")
    hard_links: bool = option(
        False,
        "Take no room for what the store holds already: a file edited in place is then damaged in"
        " the store too. Without, files share bytes where the disk can (btrfs, XFS)",
        keyed=False,
    )
    verify: bool = option(
        True,
        "Open the folder in a new process with transformers or peft alone, and compare logits",
        keyed=False,
    )
    push: str | Push | None = option(
        None, "Then bring it to the Hub: user/name, or a mapping", keyed=False
    )


@dataclass(frozen=True)
class Saved(Files):
    """What was saved; `is_kept` where the store is to hold it, for no folder was asked for.

    `written` are its files, as long as it is known what was written.
    """

    is_kept: bool = False
    written: files.Manifest | None = None


resolve = resolves_nothing
pins = pins_nothing


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """The target may be a new folder or one to replace, never a file; names must be names."""
    faults = []
    if options.to is None and options.push is None:
        faults.append(Fault((), 'save needs "to": The folder to write.'))
    if options.to is not None and options.to.exists() and not options.to.is_dir():
        faults.append(Fault(("to",), f"{options.to} is a file; save writes a folder."))
    if shards.parsed(options.shard_size) is None:
        fact = f'"{options.shard_size}" is no size.'
        faults.append(Fault(("shard_size",), fact, "Write 500MB or 5GB."))
    if options.format == "adapter":
        faults += _without_adapter(inputs.get("model", ()))
    if options.format == "gguf":
        faults += _no_gguf(options.gguf, inputs.get("model", ()))
    if options.push is not None:
        from runner.saving import push

        faults += push.faults(asked(options.push))
    return faults


def _without_adapter(givers: tuple[Step, ...]) -> list[Fault]:
    """Steps that give a whole model, so that there is no adapter to save."""
    return [
        Fault(("format",), f"{step.name} gives a whole model, so there is no adapter to save.")
        for step in givers
        if step.stage_name == "quantize"
        or getattr(step.options, "method", None) == "full"
        or getattr(step.options, "merge", False)
    ]


def _no_gguf(kind: str, givers: tuple[Step, ...]) -> list[Fault]:
    """A kind that cannot be made here, and weights that are quantized in another form already."""
    from runner.gguf import kinds

    fact = kinds.problem(kind)
    faults = [Fault(("gguf",), fact)] if fact else []
    return faults + [
        Fault(("format",), f"{step.name} quantizes: a GGUF file is made of the model before it.")
        for step in givers
        if step.stage_name == "quantize" and step.options.method != "none"
    ]


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """The whole model, where it is to be; and for a push, whether the Hub would take it.

    StepError where an adapter cannot be merged.
    """
    if options.format != "adapter" and inputs["model"].get("adapted"):
        merging.check_base(inputs["model"])
    whole = inputs["model"].get("bytes", 0)
    leave = partial(_ask_leave, options)
    if options.to is None:
        return Room(kept=whole, gives={"bytes": whole}, leave=leave)
    hints = [*targets.hints(options.to, overwrite=options.overwrite)]
    return Room(outside=(options.to, whole), gives={"bytes": whole}, leave=leave, hints=hints)


def _ask_leave(options: Options) -> None:
    """StepError where the folder is not free, or the Hub would refuse the push."""
    if options.to is not None:
        targets.insist(options.to, overwrite=options.overwrite)
    if options.push is not None:
        from runner.saving import push

        push.ask_leave(asked(options.push))


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Saved:
    """Write beside the target, open it again, move it there whole, and push it."""
    target = options.to or context.draft / KEPT
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with Sealing() as sealing:
            _write(options, inputs, staged, context, sealing)
            written = sealing.end(staged)
        _move(staged, target, written, overwrite=options.overwrite or options.to is None)
    finally:
        files.remove(staged)
    context.facts |= {
        "to": str(options.to) if options.to else None,
        "bytes": files.total_size(written),
        "format": options.format,
        "pushed": _push(options, target, sorted(written), context),
    }
    return Saved(target, is_kept=options.to is None, written=written)


def save(product: Saved, folder: Path) -> None:
    """Keep what was written where; the bytes are the target's, or ours where there is none."""
    to = None if product.is_kept else str(product.folder)
    written = product.written or files.manifest(product.folder)
    files.write_json(folder / REFERENCE, {"to": to, "files": written})
    if product.is_kept:
        products.save_files(product, folder / KEPT)


def restore(folder: Path, inputs: Mapping[str, Any]) -> Saved:
    """The saved folder."""
    to = files.read_json(folder / REFERENCE)["to"]
    return Saved(Path(to)) if to else Saved(folder / KEPT, is_kept=True)


def stale(options: Options, folder: Path, facts: Facts) -> str | None:
    """The target may have been deleted or written over, or it is to be pushed and never was."""
    if options.push is not None:
        wanted = plain(asked(options.push))
        if (facts.get("pushed") or {}).get("asked") != wanted:
            return f"it is not at {wanted['repo']} yet"
    if options.to is None:
        return None
    try:
        expected = dict(files.read_json(folder / REFERENCE)["files"])
        mark = {MARK: expected[MARK]}
    except (KeyError, TypeError, ValueError):
        return "what was saved cannot be read"
    fault = files.damage(options.to, expected, bytes_too=False)
    fault = fault or files.damage(options.to, mark, bytes_too=True)
    return f"in {options.to} {fault}" if fault else None


def _write(
    options: Options,
    inputs: Mapping[str, Any],
    staged: Path,
    context: Context,
    sealing: Sealing,
) -> None:
    """The model, its papers, and the proof that a new process opens it."""
    from runner import hardware
    from runner.saving import describe, formats, verify

    limit = shards.parsed(options.shard_size)
    assert limit is not None
    model: Model = inputs["model"]
    how = formats.How(
        shard_bytes=limit,
        hard_links=options.hard_links,
        gguf=options.gguf,
        name=context.about.recipe or "model",
        draft=context.draft,
        progress=context.progress,
        note=context.note,
        whole=sealing.begin,
    )
    written = formats.FORMATS[options.format](model, staged, how)
    expected = _expected(options, written, context)
    about = describe.about(written, staged)
    context.facts |= {"quantized": about.is_quantized, "library": about.library}
    del model, written
    describe.write(about, inputs, staged, context)
    if expected is not None:
        hardware.release_memory()  # the process that opens it may need what the model took
        found = context.facts["verified"] = verify.check(staged, expected, context)
        context.note(
            f"opened again by {about.library} alone: logits differ by {found['difference']:.1g}"
            f" of the largest, {found['tolerance']:g} may be"
        )


def _expected(options: Options, written: "Written", context: Context) -> Any:
    """What is to be found again; None where nothing is to be opened, or cannot be."""
    from runner.saving import verify

    if not options.verify:
        return None
    if written.library == "peft" and written.base is None:
        context.note("not opened again: the base of the adapter is no folder of this machine")
        return None
    if written.lost:
        lost = ", ".join(written.lost)
        context.note(f"not opened again: transformers reads {lost} of GGUF files otherwise")
        return None
    return verify.expect(written, context.draft, options.gguf)


def _push(
    options: Options, folder: Path, names: list[str], context: Context
) -> dict[str, Any] | None:
    """Bring it to the Hub, unless the run ends badly because of its figures."""
    if options.push is None:
        return None
    from runner.saving import push

    wanted = asked(options.push)
    if context.unmet:
        context.note(f"not pushed to {wanted.repo}: {context.unmet[0]}")
        return None
    made = push.upload(wanted, folder, names, context)
    context.note(f"pushed: {made['url']}")
    return {"asked": plain(wanted), **made}


def _move(staged: Path, target: Path, written: files.Manifest, *, overwrite: bool) -> None:
    """Give the new folder the target's name; what stood there goes away only after that."""
    if not target.exists():
        os.rename(staged, target)
        return
    if files.manifest(target) == written:
        return
    if any(target.iterdir()) and not overwrite:
        raise targets.taken(target, "; the store keeps the result")
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.old")
    os.rename(target, aside)
    os.rename(staged, target)
    files.remove(aside)
