"""A Hub over loopback HTTP, for tests: repositories with history, tokens, faults on demand, a log.

    with hub.serve(Repo("acme/tiny", files={"config.json": b"{}"})) as server:
        ...  # a client with HF_ENDPOINT=server.endpoint

In a process of its own: `python tests/hub FOLDER [--port N]` serves a folder as acme/big.
"""

from hub.access import Token
from hub.faults import Fault
from hub.repository import Blob, Commit, Repo
from hub.server import serve
from hub.state import Hub, Record

__all__ = ["Blob", "Commit", "Fault", "Hub", "Record", "Repo", "Token", "serve"]
