"""Who may do what: tokens, and the refusals the Hub answers with."""

from collections.abc import Mapping
from dataclasses import dataclass

from hub.repository import Repo


@dataclass(frozen=True)
class Token:
    """What a token allows in the repositories of its user and in those named."""

    role: str = "read"  # or write
    repos: tuple[str, ...] = ()
    user: str = "someone"


class Refused(Exception):  # noqa: N818  not an error of ours
    """An answer that is not the one asked for; a client reads the code before the status."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        named = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        self.headers = {name: value for name, value in named.items() if value}


def token_of(authorization: str | None, tokens: Mapping[str, Token]) -> Token | None:
    """The token that a request carries; an unknown one is refused, whatever is asked for."""
    if authorization is None:
        return None
    token = tokens.get(authorization.removeprefix("Bearer "))
    if token is None:
        raise Refused(401, message="Invalid credentials in Authorization header")
    return token


def check_seen(repo: Repo | None, token: Token | None) -> Repo:
    """A repository that one may not see looks as if it were not there."""
    if repo is None or (repo.private and not _has(token, repo.id)):
        raise Refused(404 if token else 401, "RepoNotFound", "Repository not found")
    return repo


def check_read(repo: Repo, token: Token | None) -> None:
    """The files of a gated repository are for those who were let in; its listing is for all."""
    if repo.gated and not _has(token, repo.id):
        message = f"Access to {repo.type} {repo.id} is restricted and you are not let in."
        raise Refused(403 if token else 401, "GatedRepo", message)


def check_write(id: str, token: Token | None) -> None:  # noqa: A002  the Hub's word
    """Writing takes a token with that role, of the owner or of one who was let in."""
    if token is None:
        raise Refused(401, message="Invalid username or password.")
    if token.role != "write" or not _has(token, id):
        raise Refused(403, message=f"You don't have the rights to write to {id}")


def _has(token: Token | None, id: str) -> bool:  # noqa: A002  the Hub's word
    return token is not None and (id in token.repos or id.startswith(f"{token.user}/"))
