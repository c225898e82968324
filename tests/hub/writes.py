"""What the Hub answers to those who change something, listed in `API` and `CDN`."""

import base64
from typing import Any

from hub.access import Refused, check_write
from hub.answers import AT, FILE, REPO, Address, Answer, Call, xet_access
from hub.repository import Blob, Commit, Repo, blob


def create_repo(call: Call) -> Answer:
    """A new repository, empty."""
    made = _named(call)
    check_write(made.id, call.token)
    private = call.body.get("private") or call.body.get("visibility") == "private"
    made.private = bool(private)
    url = f"{call.hub.endpoint}/{made.prefix}{made.id}"
    if (made.type, made.id) in call.hub.repos:
        return Answer({"error": "You already created this repo", "url": url}, status=409)
    call.hub.add(made)
    return Answer({"url": url, "name": made.id, "id": "0" * 24})


def delete_repo(call: Call) -> Answer:
    """A repository less."""
    named = _named(call)
    check_write(named.id, call.token)
    if call.hub.repos.pop((named.type, named.id), None) is None:
        raise Refused(404, "RepoNotFound", "Repository not found")
    return Answer()


def _named(call: Call) -> Repo:
    """A repository with the type and id that the body gives."""
    owner = call.body.get("organization") or (call.token.user if call.token else "")
    return Repo(f"{owner}/{call.body['name']}", call.body.get("type") or "model")


def may_write(call: Call) -> Answer:
    """Whether the token may write to the repository."""
    _written(call)
    return Answer({})


def validate_yaml(call: Call) -> Answer:
    """Any model card will do."""
    return Answer({"errors": [], "warnings": []})


def preupload(call: Call) -> Answer:
    """How each file is to be sent, and what is there now: what has not changed is not sent."""
    repo, files = _written(call), call.commit.files

    def told(path: str, size: int) -> dict[str, Any]:
        mode = "lfs" if repo.is_large(path, size) else "regular"
        there = {"oid": files[path].digest} if path in files else {}
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, **there}

    return Answer({"files": [told(file["path"], file["size"]) for file in call.body["files"]]})


def batch(call: Call) -> Answer:
    """Where to put each large file that is not there yet."""
    _written(call)

    def told(oid: str, size: int) -> dict[str, Any]:
        upload = {"href": f"{call.hub.cdn}/lfs/{oid}"}
        wanted = {} if _stored(call, oid) else {"actions": {"upload": upload}}
        return {"oid": oid, "size": size, **wanted}

    objects = [told(one["oid"], one["size"]) for one in call.body["objects"]]
    return Answer({"transfer": "basic", "objects": objects})


def xet_token(call: Call) -> Answer:
    """Where the pieces of large files are to go, and leave to put them there."""
    _written(call)
    return xet_access(call.hub.xet.for_writing())


def put(call: Call) -> Answer:
    """A large file, kept until a commit names it."""
    kept = blob(call.body, large=True)
    if kept.digest != call.parts["digest"]:
        raise Refused(400, message=f"the content has sha256 {kept.digest}")
    call.hub.uploads[kept.digest] = kept
    return Answer()


def _stored(call: Call, oid: str) -> Blob | None:
    """A large file by its sha256, if it was ever put or committed."""
    for repo in call.hub.repos.values():
        for commit in repo.commits.values():
            for kept in commit.files.values():
                if kept.large and kept.digest == oid:
                    return kept
    return call.hub.uploads.get(oid)


def _stored_in_xet(call: Call, oid: str, size: int) -> Blob | None:
    """A large file that a client did not put here but in Xet's store."""
    path = call.hub.xet.file(oid, size)
    return path and blob(path, large=True)


def commit(call: Call) -> Answer:
    """The files as they are after one change; another waits until it is made."""
    with call.hub.committing:
        return _commit(call)


def _commit(call: Call) -> Answer:
    repo, before, branch = _written(call), call.commit, call.parts["revision"]
    if branch not in repo.branches:
        raise Refused(400, message="a commit goes to a branch")
    pull = _pull_request(repo, before) if "create_pr" in call.query else None
    changes: dict[str, Blob | bytes | None] = {}
    title = ""
    for line in call.body:
        value = line["value"]
        if line["key"] == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, before.sha):
                raise Refused(412, message="A commit has happened since. Please refresh.")
        else:
            changes |= _changes(call, before, line["key"], value)
    sha = repo.commit(changes, title, pull or branch)
    page = f"{call.hub.endpoint}/{repo.prefix}{repo.id}"
    made = {"success": True, "commitOid": sha, "commitUrl": f"{page}/commit/{sha}"}
    if pull:
        made["pullRequestUrl"] = f"{page}/discussions/{pull.rpartition('/')[2]}"
    return Answer(made)


def _pull_request(repo: Repo, before: Commit) -> str:
    """The name of a new pull request, which starts at a commit."""
    name = f"refs/pr/{sum(each.startswith('refs/pr/') for each in repo.branches) + 1}"
    repo.branches[name] = before
    return name


def _changes(call: Call, before: Commit, key: str, value: dict[str, Any]) -> dict[str, Blob | None]:
    path = value["path"]
    if key == "file":
        return {path: blob(base64.b64decode(value["content"]), large=False)}
    if key == "lfsFile":
        oid, size = value["oid"], value.get("size", 0)
        kept = _stored(call, oid) or _stored_in_xet(call, oid, size)
        if kept is None:
            raise Refused(400, message=f"the content of {path} was not put here")
        return {path: kept}
    whole = key == "deletedFolder"
    inside = f"{path.rstrip('/')}/"
    gone = [name for name in before.files if (name.startswith(inside) if whole else name == path)]
    if not gone:
        raise Refused(404, "EntryNotFound", f"{path} does not exist")
    return dict.fromkeys(gone)


def create_branch(call: Call) -> Answer:
    """A branch that starts at a revision."""
    repo = _written(call)
    start = repo.at(call.body.get("startingPoint") or "main")
    return _name(repo.branches, call.parts["revision"], start)


def create_tag(call: Call) -> Answer:
    """A tag on a revision."""
    return _name(_written(call).tags, call.body["tag"], call.commit)


def _name(named: dict[str, Commit], name: str, commit: Commit | None) -> Answer:
    if name in named:
        raise Refused(409, message=f"Reference {name} already exists")
    if commit is None:
        raise Refused(404, "RevisionNotFound", "Invalid rev id")
    named[name] = commit
    return Answer({})


def delete_branch(call: Call) -> Answer:
    """A branch less; its commits stay."""
    return _forget(_written(call).branches, call.parts["revision"])


def delete_tag(call: Call) -> Answer:
    """A tag less."""
    return _forget(_written(call).tags, call.parts["revision"])


def _forget(named: dict[str, Commit], name: str) -> Answer:
    if named.pop(name, None) is None:
        raise Refused(404, "RevisionNotFound", "Invalid rev id")
    return Answer({})


def _written(call: Call) -> Repo:
    """The repository asked about, if the token may write to it."""
    check_write(call.repo.id, call.token)
    return call.repo


API: list[Address] = [
    ("POST", "/api/repos/create", create_repo),
    ("DELETE", "/api/repos/delete", delete_repo),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("GET", rf"{REPO}/auth-check/write", may_write),
    ("POST", rf"{REPO}/preupload{AT}", preupload),
    ("POST", rf"{FILE}\.git/info/lfs/objects/batch", batch),
    ("GET", rf"{REPO}/xet-write-token{AT}", xet_token),
    ("POST", rf"{REPO}/commit{AT}", commit),
    ("POST", rf"{REPO}/branch{AT}", create_branch),
    ("DELETE", rf"{REPO}/branch{AT}", delete_branch),
    ("POST", rf"{REPO}/tag{AT}", create_tag),
    ("DELETE", rf"{REPO}/tag{AT}", delete_tag),
]
CDN: list[Address] = [
    ("PUT", r"/lfs/(?P<digest>[0-9a-f]{64})", put),
]
