"""What the Hub answers to those who read: one function an address, listed in `API` and `CDN`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from hub.access import Refused, Token, check_read, check_seen
from hub.repository import Blob, Commit, Repo

if TYPE_CHECKING:
    from hub.state import Hub

KIND = {"models": "model", "datasets": "dataset", "spaces": "space", "": "model"}


@dataclass(frozen=True)
class Call:
    """A request, taken apart."""

    hub: "Hub"
    token: Token | None
    parts: Mapping[str, str]  # of the path, by the names in the pattern of its address
    query: Mapping[str, str]
    path: str
    body: Any  # what was sent, read as its type says; of a PUT the path of the file it is in

    @property
    def repo(self) -> Repo:
        """The repository asked about, if the token may see it."""
        return check_seen(self.hub.repos.get(self.address), self.token)

    @property
    def address(self) -> tuple[str, str]:
        """Type and id of the repository asked about."""
        return KIND[self.parts["kind"]], f"{self.parts['namespace']}/{self.parts['name']}"

    @property
    def commit(self) -> Commit:
        """The commit asked about."""
        found = self.repo.at(self.parts.get("revision", "main"))
        if found is None:
            raise Refused(404, "RevisionNotFound", "Invalid rev id")
        return found


@dataclass(frozen=True)
class Answer:
    """A status, headers and what follows: a file, or a value to be sent as JSON."""

    body: Any = b""  # bytes, a Blob, or a value
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


Address = tuple[str, str, Callable[[Call], Answer]]  # method, pattern of the path, what answers


def whoami(call: Call) -> Answer:
    """Who the token belongs to."""
    if call.token is None:
        raise Refused(401, message="Invalid username or password.")
    access = {"displayName": "test", "role": call.token.role}
    auth = {"type": "access_token", "accessToken": access}
    user = call.token.user
    return Answer({"type": "user", "name": user, "fullname": user, "orgs": [], "auth": auth})


def info(call: Call) -> Answer:
    """A repository at a revision."""
    repo, commit = call.repo, call.commit
    blobs = call.query.get("blobs", "").lower() in ("1", "true")
    siblings = [_sibling(path, kept, blobs) for path, kept in commit.files.items()]
    return Answer(
        {
            "_id": "0" * 24,
            "id": repo.id,
            "sha": commit.sha,
            "author": repo.id.split("/")[0],
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            "createdAt": commit.history()[-1].date,
            "lastModified": commit.date,
        }
    )


def _sibling(path: str, kept: Blob, blobs: bool) -> dict[str, Any]:
    more: dict[str, Any] = {"size": kept.size, "blobId": kept.oid} if blobs else {}
    if blobs and kept.large:
        more["lfs"] = {
            "sha256": kept.digest,
            "size": kept.size,
            "pointerSize": len(kept.pointer),
        }
    return {"rfilename": path, **more}


def tree(call: Call) -> Answer:
    """What is in a folder."""
    repo, commit = call.repo, call.commit
    inside = f"{call.parts['path']}/" if call.parts["path"] else ""
    deep = call.query.get("recursive", "").lower() in ("1", "true")
    names = [
        name
        for name in sorted({*commit.files, *commit.folders()})
        if name.startswith(inside) and (deep or "/" not in name.removeprefix(inside))
    ]
    if inside and not names:
        raise Refused(404, "EntryNotFound", "Entry not found")
    return _page(call, [_item(call.hub, repo, commit, name) for name in names])


def paths_info(call: Call) -> Answer:
    """The named paths, those that exist."""
    repo, commit = call.repo, call.commit
    wanted, there = call.body.get("paths", []), {*commit.files, *commit.folders()}
    return Answer([_item(call.hub, repo, commit, name) for name in wanted if name in there])


def _item(hub: "Hub", repo: Repo, commit: Commit, name: str) -> dict[str, Any]:
    kept = commit.files.get(name)
    if kept is None:
        return {"type": "directory", "oid": commit.folder_oid(name), "size": 0, "path": name}
    item = {"type": "file", "oid": kept.oid, "size": kept.size, "path": name}
    if kept.large:
        size = len(kept.pointer)
        item["lfs"] = {"oid": kept.digest, "size": kept.size, "pointerSize": size}
    if kept.large and repo.xet:
        item["xetHash"] = hub.xet.hash(kept)
    return item


def _page(call: Call, items: list[Any]) -> Answer:
    start = int(call.query.get("cursor", 0))
    end = start + (call.hub.page_size or len(items))
    if end >= len(items):
        return Answer(items[start:])
    following = urlencode({**call.query, "cursor": end})
    link = f'<{call.hub.endpoint}{call.path}?{following}>; rel="next"'
    return Answer(items[start:end], {"Link": link})


def refs(call: Call) -> Answer:
    """The branches and tags."""
    repo = call.repo

    def listed(kind: str, named: Mapping[str, Commit]) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit.sha}
            for name, commit in named.items()
        ]

    own = {name: at for name, at in repo.branches.items() if not name.startswith("refs/")}
    branches, tags = listed("heads", own), listed("tags", repo.tags)
    return Answer({"branches": branches, "tags": tags, "converts": []})


def commits(call: Call) -> Answer:
    """The history of a revision, newest first."""
    return _page(
        call,
        [
            {
                "id": commit.sha,
                "title": commit.title,
                "message": "",
                "authors": [{"user": "someone"}],
                "date": commit.date,
            }
            for commit in call.commit.history()
        ],
    )


def file(call: Call) -> Answer:
    """A small file, or the way to a large one."""
    repo = call.repo
    check_read(repo, call.token)
    commit, path = call.commit, call.parts["path"]
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    kept = commit.files.get(path)
    if kept is None:
        raise Refused(404, "EntryNotFound", "Entry not found", **headers)
    headers["ETag"] = f'"{kept.digest}"'
    if not kept.large:
        return Answer(kept, headers)
    location = f"{call.hub.cdn}/cdn/{repo.prefix}{repo.id}/{kept.digest}/{quote(path)}"
    headers |= {
        "X-Linked-Etag": f'"{kept.digest}"',
        "X-Linked-Size": str(kept.size),
        "Location": location,
    }
    if repo.xet:
        auth = f"{call.hub.endpoint}/api/{repo.type}s/{repo.id}/xet-read-token/{commit.sha}"
        headers |= {"X-Xet-Hash": call.hub.xet.hash(kept), "Link": f'<{auth}>; rel="xet-auth"'}
    return Answer(f"Found. Redirecting to {location}".encode(), headers, 302)


def large_file(call: Call) -> Answer:
    """A large file, from the second server; its address is all one needs to know."""
    repo = call.hub.repos.get(call.address)
    for commit in repo.commits.values() if repo else ():
        kept = commit.files.get(call.parts["path"])
        if kept and kept.digest == call.parts["digest"]:
            return Answer(kept, {"ETag": f'"{kept.digest}"', "Accept-Ranges": "bytes"})
    raise Refused(403)


def xet_token(call: Call) -> Answer:
    """Where the pieces of large files are, and leave to read them."""
    check_read(call.repo, call.token)
    return xet_access(call.hub.xet.for_reading())


def xet_access(address: str) -> Answer:
    """The address of Xet's store and a token for it, said twice as the clients want it."""
    expiry = int(time.time()) + 3600
    headers = {
        "X-Xet-Cas-Url": address,
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": str(expiry),
    }
    return Answer({"casUrl": address, "accessToken": "xet", "exp": expiry}, headers)


ID = r"(?P<namespace>[^/]+)/(?P<name>[^/]+)"
REPO = rf"/api/(?P<kind>models|datasets|spaces)/{ID}"
FILE = rf"(?:/(?P<kind>datasets|spaces))?/{ID}"
AT = r"/(?P<revision>[^/]+)"

API: list[Address] = [
    ("GET", "/api/whoami-v2", whoami),
    ("GET", REPO, info),
    ("GET", rf"{REPO}/revision{AT}", info),
    ("GET", rf"{REPO}/tree{AT}(?:/(?P<path>.*))?", tree),
    ("POST", rf"{REPO}/paths-info{AT}", paths_info),
    ("GET", rf"{REPO}/refs", refs),
    ("GET", rf"{REPO}/commits{AT}", commits),
    ("GET", rf"{REPO}/xet-read-token{AT}", xet_token),
    ("GET", rf"{FILE}/resolve{AT}/(?P<path>.+)", file),
]
CDN: list[Address] = [
    ("GET", rf"/cdn{FILE}/(?P<digest>[0-9a-f]{{64}})/(?P<path>.+)", large_file),
]
