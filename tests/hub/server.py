"""The two servers: one of the Hub itself, one of its large files."""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from hub import answers, writes
from hub.access import Token
from hub.answers import Address
from hub.handler import Handler
from hub.repository import Repo
from hub.state import Hub


class Server(ThreadingHTTPServer):
    """A server that can be closed with all its connections."""

    daemon_threads = False  # they are waited for
    request_queue_size = 128

    def __init__(self, name: str, hub: Hub, addresses: list[Address], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.name, self.hub, self.addresses = name, hub, addresses
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name=name)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what some tests are about; anything else is our error."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.hub.errors.append(error)

    def close(self) -> None:
        """Stop listening, end every connection, wait for their threads."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


@contextmanager
def serve(
    *repos: Repo,
    tokens: Mapping[str, Token] | None = None,
    page_size: int | None = None,
    port: int = 0,
) -> Iterator[Hub]:
    """Serve repositories; `page_size` is the most items that one page of a listing has."""
    hub = Hub(*repos, tokens=tokens or {}, page_size=page_size)
    api = Server("api", hub, answers.API + writes.API, port)
    cdn = Server("cdn", hub, answers.CDN + writes.CDN)
    hub.endpoint = f"http://127.0.0.1:{api.server_port}"
    # not just another port: huggingface_hub 1.33 follows a redirect that stays on its host
    hub.cdn = f"http://localhost:{cdn.server_port}"
    try:
        yield hub
    finally:
        hub.closing.set()
        api.close()
        cdn.close()
        hub.close()
    if hub.errors:
        raise hub.errors[0]
