"""One connection to the double: requests are noted, answered, and meet the faults that are due."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub.access import Refused, token_of
from hub.answers import Answer, Call
from hub.faults import Fault
from hub.repository import CHUNK, Blob
from hub.state import Record

if TYPE_CHECKING:
    from hub.server import Server


class Handler(BaseHTTPRequestHandler):
    """Answers by the addresses of its server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    def do_GET(self) -> None:
        """Note, meet the fault that is due, answer."""
        hub, url = self.server.hub, urlsplit(self.path)
        record = Record(
            time.time(),
            self.server.name,
            self.command,
            unquote(url.path),
            url.query,
            self.headers["Range"],
            "Authorization" in self.headers,
        )
        hub.requests.append(record)
        body = self._received()
        fault = hub.faults.take(str(record))
        hub.closing.wait(fault.delay)
        if fault.hang_up:
            self.close_connection = True
        else:
            self._send(self._answer(url.path, url.query, body, fault), fault, record)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815  the standard library's names

    def _received(self) -> bytes | Path:
        """The body of the request; a file that is put is put on disk."""
        if "Transfer-Encoding" in self.headers:
            raise NotImplementedError("a body of unknown length")
        size = int(self.headers["Content-Length"] or 0)
        if self.command != "PUT":
            body = self.rfile.read(size)
            if len(body) < size:
                raise ConnectionError("the client stopped in the middle")
            return body
        path = self.server.hub.folder / uuid.uuid4().hex
        with path.open("wb") as file:
            while size:
                chunk = self.rfile.read(min(size, CHUNK))
                if not chunk:
                    raise ConnectionError("the client stopped in the middle")
                file.write(chunk)
                size -= len(chunk)
        return path

    def _answer(self, path: str, query: str, body: bytes | Path, fault: Fault) -> Answer:
        if fault.status:
            return Answer(b"a fault", status=fault.status)
        try:
            return self._called(path, query, body)
        except Refused as refusal:
            return Answer({"error": refusal.args[-1]}, refusal.headers, refusal.status)
        except Exception as error:
            self.server.hub.errors.append(error)
            return Answer(repr(error).encode(), status=500)

    def _called(self, path: str, query: str, body: bytes | Path) -> Answer:
        method = "GET" if self.command == "HEAD" else self.command
        token = token_of(self.headers["Authorization"], self.server.hub.tokens)
        for wanted, pattern, function in self.server.addresses:
            found = re.fullmatch(pattern, path)
            if found and method == wanted:
                parts = {name: unquote(part or "") for name, part in found.groupdict().items()}
                asked = {name: values[-1] for name, values in parse_qs(query).items()}
                value = _value(body, self.headers["Content-Type"] or "")
                return function(Call(self.server.hub, token, parts, asked, path, value))
        raise Refused(404, message="no such address")

    def _send(self, answer: Answer, fault: Fault, record: Record) -> None:
        content, status = _content(answer.body), answer.status
        headers = {**answer.headers, **fault.headers}
        start, end = 0, content.size
        part = None if fault.ignore_range else self._part(answer)
        if part is not None:
            start, end = part
            status = 206 if start < end else 416
            shown = f"{start}-{end - 1}" if start < end else "*"
            headers["Content-Range"] = f"bytes {shown}/{content.size}"
        end = max(start, end - fault.cut)
        record.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(end - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(content, start, end, fault, record)

    def _part(self, answer: Answer) -> tuple[int, int] | None:
        """The part of a file that is asked for, if it is a part of that same file."""
        if answer.status != 200 or not isinstance(answer.body, Blob):
            return None
        same = self.headers["If-Range"] in (None, answer.headers.get("ETag"))
        return _part(self.headers["Range"] or "", answer.body.size) if same else None

    def _send_body(self, content: Blob, start: int, end: int, fault: Fault, record: Record) -> None:
        last = end if fault.drop_after is None else min(end, start + fault.drop_after)
        for chunk in _chunks(content, start, last, fault):
            if fault.rate and self.server.hub.closing.wait(len(chunk) / fault.rate):
                break
            record.bytes_sent += len(chunk)  # before the client can know that it has all
            try:
                self.wfile.write(chunk)
            except OSError:
                record.bytes_sent -= len(chunk)
                raise
        if last < end or self.server.hub.closing.is_set():
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def _value(body: bytes | Path, kind: str) -> Any:
    """What the body of a request says, by its content type."""
    if isinstance(body, Path):
        return body
    if kind.startswith("application/x-www-form-urlencoded"):
        return parse_qs(body.decode())
    if kind.startswith("application/x-ndjson"):
        return [json.loads(line) for line in body.splitlines()]
    return json.loads(body) if body else None


def _content(body: Any) -> Blob:
    if isinstance(body, Blob):
        return body
    source = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Blob(source, len(source), large=False, digest="")


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """Start and end of the bytes that a Range header names: equal where it names none of them."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if not found or found[0] == "bytes=-":
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    start, end = int(found[1]), int(found[2]) + 1 if found[2] else size
    return (start, min(end, size)) if start < size else (size, size)


def _chunks(content: Blob, start: int, end: int, fault: Fault) -> Iterator[bytes]:
    """The bytes from start to end, in pieces; a slow line has ten of them a second."""
    most = max(1, int(fault.rate / 10)) if fault.rate else CHUNK
    with content.open() as file:
        file.seek(start)
        while start < end:
            chunk = file.read(min(most, end - start))
            if not chunk:
                raise OSError("a served file has become shorter")
            yield _flipped(chunk, start, fault.flip)
            start += len(chunk)


def _flipped(chunk: bytes, start: int, place: int | None) -> bytes:
    """The bytes that start at one place of a file, with the one at another place changed."""
    if place is None or not start <= place < start + len(chunk):
        return chunk
    place -= start
    return chunk[:place] + bytes([chunk[place] ^ 0xFF]) + chunk[place + 1 :]
