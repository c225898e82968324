"""What an entry keeps of files that stay in the user's Hub cache, and how they are found again."""

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import files
from runner.errors import StepError
from runner.products import REFERENCE
from runner.sources.hub.cache import Cache, is_right
from runner.sources.hub.choice import wanted
from runner.sources.hub.repo import COMMIT, File, Source, checked
from runner.store import Store
from runner.upkeep import entries

NAME_OF = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def reference(source: Source) -> dict[str, Any]:
    """The files of a source that has been brought: the same on every machine."""
    commit = str(source.commit)
    cache = Cache.of(source)
    listed = cache.listing(commit) or cache.seen(commit)
    return {
        "repo": source.repo,
        "type": source.type,
        "commit": commit,
        "files": {
            file.path: {"size": file.size, "digest": file.digest}
            for file in sorted(wanted(listed, source), key=lambda file: file.path)
        },
    }


def view(referred: Mapping[str, Any], folder: Path) -> Path:
    """A folder with links to these very files: a commit's folder may hold others too."""
    snapshot = _snapshot(referred)
    links = {name: snapshot / name for name in referred["files"]}
    if all((folder / name).resolve() == target.resolve() for name, target in links.items()):
        return folder
    made = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    for name, target in links.items():
        path = files.inside(made, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    files.remove(folder)
    with suppress(OSError):  # another run has made it meanwhile
        os.rename(made, folder)
    shutil.rmtree(made, ignore_errors=True)
    return folder


def damage(referred: Mapping[str, Any]) -> str | None:
    """The first file that is not there, or has other bytes than the repository lists."""
    try:
        snapshot = _snapshot(referred)
    except StepError as error:
        return str(error)
    for name, facts in referred["files"].items():
        path = snapshot / name
        if not path.is_file():
            return f"{name} is missing in the Hub cache"
        if not is_right(path, File(name, facts["size"], facts["digest"]), lambda: None):
            return f"{name} in the Hub cache has other bytes than {referred['repo']} lists"
    return None


def cache_folder() -> Path:
    """The user's Hub cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


@dataclass(frozen=True)
class Cached:
    """One commit of a repository in the user's Hub cache; the size in bytes."""

    type: str
    repo: str
    commit: str
    size: int


def cached() -> list[Cached]:
    """Every commit in the user's Hub cache, by huggingface_hub's own account; largest first."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(cache_folder())
    except CacheNotFound:
        return []
    rows = [
        Cached(repo.repo_type, repo.repo_id, revision.commit_hash, revision.size_on_disk)
        for repo in found.repos
        for revision in repo.revisions
    ]
    return sorted(rows, key=lambda row: (-row.size, row.repo, row.commit))


def uses(store: Store) -> dict[str, set[str]]:
    """For each commit, the recipes whose kept results refer to it."""
    found: dict[str, set[str]] = {}
    for entry in entries(store):
        referred = files.read_json(entry.product / REFERENCE)
        if referred is not None and damage(referred) is None:
            found.setdefault(referred["commit"], set()).add(str(entry.record["recipe"]))
    return found


def _snapshot(referred: Mapping[str, Any]) -> Path:
    """The commit's folder in the Hub cache; StepError where a reference is not one of ours."""
    try:
        repo, kind, commit = (str(referred[name]) for name in ("repo", "type", "commit"))
        listed = [
            File(str(n), int(f["size"]), str(f["digest"])) for n, f in referred["files"].items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise StepError("what was fetched from the Hub cannot be read.") from None
    if (
        kind not in ("model", "dataset")
        or not COMMIT.fullmatch(commit)
        or not NAME_OF.fullmatch(repo)
    ):
        raise StepError("what was fetched from the Hub cannot be read.")
    source = Source(repo=repo, type="model" if kind == "model" else "dataset", commit=commit)
    checked(listed, source)
    return Cache.of(source).snapshot(commit)
