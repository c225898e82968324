"""What a test sees of the double, and what its two servers share."""

import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hub.access import Token
from hub.faults import Fault, Faults
from hub.repository import Blob, Repo
from hub.xet import Xet


@dataclass
class Record:
    """One request, and what became of it."""

    time: float
    server: str  # api or cdn
    method: str
    path: str  # without the query
    query: str
    range: str | None
    has_authorization: bool
    status: int | None = None  # None: there was no answer
    bytes_sent: int = 0  # of the body, given to the socket

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Hub:
    """The repositories, the tokens, the faults to come and the log of requests."""

    def __init__(self, *repos: Repo, tokens: Mapping[str, Token], page_size: int | None) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.tokens = dict(tokens)
        self.page_size = page_size
        self.endpoint = self.cdn = ""  # known when the servers listen
        self.requests: list[Record] = []
        self.errors: list[BaseException] = []  # of the double itself
        self.faults = Faults()
        self.committing = threading.Lock()
        self.closing = threading.Event()
        self.folder = Path(tempfile.mkdtemp(prefix="hub-"))
        self.uploads: dict[str, Blob] = {}  # by sha256
        self.xet = Xet(self.folder)
        for repo in repos:
            self.add(repo)

    def add(self, repo: Repo) -> None:
        """Serve one more repository."""
        for commit in repo.commits.values() if repo.xet else ():
            for kept in commit.files.values():
                if kept.large:
                    self.xet.hash(kept)  # now: a client does not wait long for an answer
        self.repos[repo.type, repo.id] = repo

    def fault(self, pattern: str, **what: Any) -> None:
        """Have something go wrong (see `Fault`) with the next request that matches.

        The pattern is searched for in "METHOD path": `^HEAD .*/config.json$`, `GET /cdn/`.
        """
        self.faults.add(Fault(pattern, **what))

    def asked(self, pattern: str = "") -> list[Record]:
        """The requests whose "METHOD path" has the pattern."""
        return [record for record in list(self.requests) if re.search(pattern, str(record))]

    def bytes_sent(self, pattern: str = "") -> int:
        """How many bytes were sent in answer to them."""
        return sum(record.bytes_sent for record in self.asked(pattern))

    def close(self) -> None:
        """Remove what was kept on disk."""
        shutil.rmtree(self.folder)
