"""A Hub over loopback HTTP: one model repository, as far as fetching needs it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

REPO = "acme/tiny"


class Hub(BaseHTTPRequestHandler):
    """Answers for `REPO` with the files of `folder`; every path asked for is noted."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        path = unquote(self.path.split("?")[0]).removeprefix("/")
        self.asked.append(f"{self.command} {path}")
        if path.startswith(f"api/models/{REPO}"):
            self._api(path.removeprefix(f"api/models/{REPO}").strip("/"))
        elif path.startswith(f"{REPO}/resolve/"):
            self._file(path.removeprefix(f"{REPO}/resolve/").split("/", 1)[1])
        else:
            self._error(404, "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815  the standard library's name

    def commit(self) -> str:
        """A commit that changes with the files."""
        digest = hashlib.sha1()
        for path in sorted(self.folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    def _api(self, rest: str) -> None:
        revision = rest.split("/")[1] if "/" in rest else "main"
        if revision not in ("main", self.commit()):
            self._error(404, "RevisionNotFound")
        elif rest.startswith("tree/"):
            self._json([self._item(path) for path in sorted(self.folder.iterdir())])
        else:
            siblings = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
            self._json({"id": REPO, "sha": self.commit(), "siblings": siblings})

    def _item(self, path: Path) -> dict[str, Any]:
        return {
            "type": "file",
            "path": path.name,
            "size": path.stat().st_size,
            "oid": _git_sha1(path),
        }

    def _file(self, name: str) -> None:
        path = self.folder / name
        if not path.is_file():
            self._error(404, "EntryNotFound")
            return
        body = path.read_bytes()
        self._send(200, body, {"ETag": f'"{_git_sha1(path)}"', "X-Repo-Commit": self.commit()})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def _git_sha1(path: Path) -> str:
    body = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as the repository; gives the endpoint and the list of what is asked."""
    asked: list[str] = []
    handler = type("Bound", (Hub,), {"folder": folder, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
