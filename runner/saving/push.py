"""A saved folder on the Hub: large files first, then one commit in which all of it appears."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner import files, network
from runner.errors import StepError
from runner.options import Fault
from runner.saving.formats import MARK
from runner.saving.target import Push
from runner.sources.hub.errors import LOGIN, explain, insist, is_offline, refusals, status
from runner.sources.hub.repo import Source, address
from runner.sources.pace import rest
from runner.stage import Context

WRITERS = ("admin", "write", "contributor")
"""What a member of an organization must be to make a repository there."""


def faults(push: Push) -> Iterator[Fault]:
    """What is wrong with the names, found without asking anybody."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(push.repo)
    except HFValidationError:
        yield Fault(("push",), f'"{push.repo}" is no name of a repository.', "Write user/name.")
        return
    if push.repo.count("/") != 1:
        yield Fault(("push",), f'"{push.repo}" does not say whose it is.', "Write user/name.")
    if push.tag and push.pull_request:
        yield Fault(("push", "tag"), "a pull request has no tag before it is merged.")


def ask_leave(push: Push) -> None:
    """StepError where this push would be refused; a Hub that cannot be reached now may be later."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if network.is_forbidden() or is_offline():
        raise StepError(
            f"a push to {push.repo} needs the network, which may not be used.",
            "Leave it out this time: save.push=null",
        )
    if not get_token():
        raise StepError(f"a push to {push.repo} needs a token, and you are not logged in.", LOGIN)
    api = HfApi()
    with _explained(push):
        try:
            told = insist(api.whoami, tries=1)
            try:
                insist(lambda: api.auth_check(push.repo, write=True), tries=1)
            except RepositoryNotFoundError:
                _check_owner(push, told)
        except refusals() as error:
            if status(error) in (401, 403):
                raise


def _check_owner(push: Push, told: dict[str, Any]) -> None:
    """Whether the token may make a repository in that name."""
    owner = push.repo.split("/")[0]
    role = told.get("auth", {}).get("accessToken", {}).get("role")
    organizations = {each["name"]: each.get("roleInOrg", "write") for each in told.get("orgs", ())}
    if role == "read":
        raise _refused(push, "your token may only read")
    if owner != told["name"] and organizations.get(owner) not in WRITERS:
        raise _refused(push, f"you are {told['name']}, and may make no repository for {owner}")


def upload(push: Push, folder: Path, names: Sequence[str], context: Context) -> dict[str, Any]:
    """Bring the named files of a folder into the repository, and no others; gives the commit.

    Stopped at any moment and called again, it sends what is not there yet: large files are known by
    their sha256, and until the one commit nothing of them can be seen. What an earlier push brought
    and this one has not is taken away by the same commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with _explained(push):
        _prepare(api, push, context)
        added = [CommitOperationAdd(name, str(folder / name)) for name in names]
        large = sorted(added, key=lambda each: -each.upload_info.size)
        for done, each in enumerate(large):
            _insist(lambda each=each: _send(api, push, each), context)
            context.progress(done + 1, len(large), "files")
            context.stop_here()
        gone = [CommitOperationDelete(name) for name in _outdated(api, push, names, context)]
        made = _insist(lambda: _commit(api, push, [*added, *gone], context), context)
        if push.tag:
            _tag(api, push, made.oid)
    return {
        "repo": push.repo,
        "commit": made.oid,
        "url": made.pr_url or f"{address()}/{push.repo}/tree/{push.branch}",
    }


def _prepare(api: Any, push: Push, context: Context) -> None:
    """See to it that the repository and the branch are there."""
    _insist(lambda: api.create_repo(push.repo, private=push.private, exist_ok=True), context)
    if push.branch != "main":
        _insist(lambda: api.create_branch(push.repo, branch=push.branch, exist_ok=True), context)


def _send(api: Any, push: Push, added: Any) -> None:
    """Send a file if it is a large one; small ones go with the commit."""
    try:
        api.preupload_lfs_files(
            push.repo,
            [added],
            revision=push.branch,
            create_pr=push.pull_request,
            free_memory=False,
        )
    except RuntimeError as error:  # huggingface_hub says by it which file it was
        if isinstance(error.__cause__, refusals()):
            raise error.__cause__ from None
        raise


def _commit(api: Any, push: Push, operations: list[Any], context: Context) -> Any:
    return api.create_commit(
        push.repo,
        operations,
        commit_message=f"{context.about.recipe or 'model'}, written by recipe-runner",
        revision=push.branch,
        create_pr=push.pull_request,
    )


def _outdated(api: Any, push: Push, names: Sequence[str], context: Context) -> list[str]:
    """The files of an earlier push, as its own list names them, that this one does not have."""
    there = set(_insist(lambda: api.list_repo_files(push.repo, revision=push.branch), context))
    if MARK not in there:
        return []
    path = api.hf_hub_download(
        push.repo, MARK, revision=push.branch, local_dir=context.draft / "before"
    )
    found = files.read_json(Path(path))
    listed = found.get("files", {}) if isinstance(found, dict) else {}
    return sorted((there & {*listed}) - {*names})


def _tag(api: Any, push: Push, commit: str) -> None:
    """Put the tag on the commit; a StepError where it is on another one already."""
    tags = {each.name: each.target_commit for each in api.list_repo_refs(push.repo).tags}
    if tags.get(str(push.tag), commit) != commit:
        raise StepError(
            f"{push.repo} has a tag {push.tag} on another commit, and that is left alone.",
            "Take another tag: save.push.tag=...",
        )
    if push.tag not in tags:
        api.create_tag(push.repo, tag=push.tag, revision=commit)


def _insist(attempt: Any, context: Context) -> Any:
    """What a request gives, tried again while its failure may pass and nobody stops the run."""
    return insist(attempt, wait=lambda seconds: rest(context, seconds))


@contextmanager
def _explained(push: Push) -> Iterator[None]:
    """Turn what a request raises into one StepError that says what to do."""
    try:
        yield
    except refusals() as error:
        if status(error) == 403:
            raise _refused(push, "your token may not write there") from None
        raise explain(error, Source(repo=push.repo, revision=push.branch)) from None


def _refused(push: Push, fact: str) -> StepError:
    return StepError(f"{address()} would refuse a push to {push.repo}: {fact}.", LOGIN)
