"""What is asked of a Hub repository, and what it answers: its commit and its files."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from runner.errors import StepError

COMMIT = re.compile("[0-9a-f]{40}")
DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
"""Control characters and the backslash, which no honest name of a file has."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A Hub repository and which of its files are wanted."""

    repo: str
    type: Literal["model", "dataset"] = "model"
    revision: str = "main"
    commit: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_pickle: bool = False

    @property
    def page(self) -> str:
        """Where a person looks at the repository."""
        kind = "datasets/" if self.type == "dataset" else ""
        return f"{address()}/{kind}{self.repo}"


@dataclass(frozen=True)
class File:
    """One file of a repository at a commit."""

    path: str
    size: int
    digest: str
    """sha256 of a large file (64 digits), git's sha1 of any other (40): the names of the blobs."""
    xet: str | None = None
    """Its name in Xet storage, where it has one."""

    def hasher(self) -> Any:
        """What the file's bytes are fed to for its digest."""
        if len(self.digest) == 64:
            return sha256()
        return sha1(b"blob %d\0" % self.size, usedforsecurity=False)


def address() -> str:
    """Where the Hub is, for a message: without the password of a mirror that wants one."""
    from huggingface_hub import constants

    return re.sub("//[^/@]*@", "//", constants.ENDPOINT)


def check_name(source: Source) -> None:
    """huggingface_hub's HFValidationError where the repository's name is none."""
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(source.repo)


def commit_of(source: Source) -> str:
    """Ask the Hub which commit the revision stands for now."""
    with _readable(source):
        commit = str(_ask(source, f"revision/{quote(source.revision, safe='')}").json()["sha"])
        if not COMMIT.fullmatch(commit):
            raise ValueError(commit)
        return commit


def listing(source: Source) -> list[File]:
    """Ask the Hub for all files of the commit: sizes and digests, a thousand a page."""
    with _readable(source):
        rows = [row for page in _pages(source) for row in page if row["type"] == "file"]
        return checked((_from_row(row) for row in rows), source)


def head(source: Source, path: str) -> None:
    """Ask the Hub for the head of a file: whether this user may have it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(
        hf_hub_url(source.repo, path, repo_type=source.type, revision=source.commit)
    )


def revisions(source: Source) -> list[str]:
    """Ask the Hub for the repository's branches and tags."""
    with _readable(source):
        refs = _ask(source, "refs").json()
        return [str(ref["name"]) for ref in [*refs["branches"], *refs["tags"]]]


def xet_access(source: Source) -> tuple[str, str, int]:
    """Ask the Hub for leave to read Xet storage: its address, a token, and when that ends."""
    with _readable(source):
        leave = _ask(source, f"xet-read-token/{source.commit}").json()
        return str(leave["casUrl"]), str(leave["accessToken"]), int(leave["exp"])


def checked(files: Iterable[File], source: Source) -> list[File]:
    """The files, refused where a name or digest could lead out of the cache."""
    found = list(files)
    for file in found:
        parts = file.path.split("/")
        if UNSAFE.search(file.path) or not {"", ".", ".."}.isdisjoint(parts):
            raise StepError(
                f"{source.repo} lists a file {file.path!r}, a name that could lead out of the "
                "folder; nothing was fetched."
            )
        if not DIGEST.fullmatch(file.digest) or file.size < 0:
            raise StepError(f"{source.repo} lists {file.path} without a size or digest.")
    return found


def to_json(files: Iterable[File]) -> dict[str, Any]:
    """A listing for a JSON file, in huggingface_hub's own form."""
    return {"format_version": 1, "files": dict(map(_to_row, files))}


def from_json(value: Any) -> list[File] | None:
    """Such a listing, huggingface_hub's or ours; None where it cannot be read."""
    try:
        if value["format_version"] != 1:
            return None
        return [_from_kept(path, row) for path, row in value["files"].items()]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _pages(source: Source) -> Iterator[Any]:
    """The listing page by page; of a next page's address only the cursor is used."""
    query = "recursive=true"
    while query:
        answer = _ask(source, f"tree/{source.commit}?{query}")
        yield answer.json()
        query = urlsplit(answer.links.get("next", {}).get("url", "")).query


def _ask(source: Source, what: str) -> Any:
    """GET what the Hub says of a repository, within the time that the user gives it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    answer = get_session().get(
        f"{constants.ENDPOINT}/api/{source.type}s/{source.repo}/{what}",
        headers=build_hf_headers(),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    hf_raise_for_status(answer)
    return answer


def _from_row(row: Mapping[str, Any]) -> File:
    large = row.get("lfs") or {"oid": row["oid"], "size": row["size"]}
    return File(str(row["path"]), int(large["size"]), str(large["oid"]), row.get("xetHash"))


def _to_row(file: File) -> tuple[str, dict[str, Any]]:
    row: dict[str, Any] = {"size": file.size, "blob_id": file.digest}
    if len(file.digest) == 64:
        row |= {"lfs_sha256": file.digest, "lfs_size": file.size}
    return file.path, row | ({"xet_hash": file.xet} if file.xet else {})


def _from_kept(path: str, row: Mapping[str, Any]) -> File:
    size = row.get("lfs_size", row["size"])
    return File(path, int(size), row.get("lfs_sha256", row["blob_id"]), row.get("xet_hash"))


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    """Turn an answer that is not what a Hub says into a StepError."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise StepError(
            f"what {address()} says of {source.repo} cannot be read. Is HF_ENDPOINT the "
            "address of a Hub, and is there no login page of a network before it?"
        ) from None
