"""Where on the Hub a recipe wants a model to go."""

from dataclasses import dataclass

from runner.options import option


@dataclass(frozen=True, kw_only=True)
class Push:
    """A repository, and how what is new comes into it."""

    repo: str = option(help="The repository, `user/name`; it is made where there is none")
    private: bool = option(True, "Whether a repository that is made is private")
    branch: str = option("main", "The branch; it is made from main where there is none")
    tag: str | None = option(None, "A tag for the commit")
    pull_request: bool = option(False, "Open a pull request instead of changing the branch")


def asked(value: str | Push) -> Push:
    """What a recipe asks for by `user/name` alone."""
    return value if isinstance(value, Push) else Push(repo=value)
