"""Xet storage: the bytes of a file from any place on, in pieces that a kill may lose."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Optional

from runner.sources.hub.repo import File, Source, xet_access

PIECE = 8 << 20
AHEAD = 2
"""Pieces on their way at a time: at most PIECE * AHEAD bytes are lost with the process."""


class Xet:
    """A session with the storage for one repository, begun when the first file needs it."""

    def __init__(self, source: Source) -> None:
        self._source, self._lock = source, threading.Lock()
        self._streams: Any = None

    @classmethod
    def of(cls, source: Source) -> Optional["Xet"]:
        """The session, where the user has hf_xet and has not switched it off."""
        from huggingface_hub import constants

        usable = not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None
        return cls(source) if usable else None

    def chunks(self, file: File, start: int) -> Iterator[bytes]:
        """The file's bytes from `start` on, in order."""
        todo = deque(range(start, file.size, PIECE))
        with ThreadPoolExecutor(AHEAD, "xet") as pool:
            coming: deque[Any] = deque()
            while todo or coming:
                while todo and len(coming) < AHEAD:
                    coming.append(pool.submit(self._piece, file, todo.popleft()))
                yield from coming.popleft().result()

    def _piece(self, file: File, start: int) -> list[bytes]:
        from hf_xet import XetFileInfo

        end = min(start + PIECE, file.size)
        found = list(
            self._group().download_stream(XetFileInfo(file.xet, file.size), start=start, end=end)
        )
        if sum(map(len, found)) != end - start:
            raise ConnectionError("the storage gave fewer bytes than were asked for")
        return found

    def _group(self) -> Any:
        """The connection that all files share."""
        with self._lock:
            if self._streams is None:
                self._streams = self._connected()
            return self._streams

    def _connected(self) -> Any:
        from hf_xet import XetConfig, XetSession
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers

        limit = timedelta(seconds=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        settings = {"client.connect_timeout": limit, "client.read_timeout": limit}
        session = XetSession(XetConfig().with_config({**settings, "client.retry_max_attempts": 2}))
        address, token, end = xet_access(self._source)
        headers = build_hf_headers()
        api = f"{constants.ENDPOINT}/api/{self._source.type}s/{self._source.repo}"
        return session.new_download_stream_group(
            endpoint=address,
            token=token,
            token_expiry_unix_secs=end,
            token_refresh_url=f"{api}/xet-read-token/{self._source.commit}",
            token_refresh_headers=headers,
            custom_headers={k: v for k, v in headers.items() if k.lower() != "authorization"},
        )
