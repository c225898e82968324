"""One file behind a URL that fsspec opens (https, s3, gs, hf): whole, checked, gone on with."""

import errno
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from io import BytesIO
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from runner import files, network
from runner.checkpoint import Checkpoints
from runner.errors import RunnerError, StepError
from runner.secrets import mask
from runner.sources.pace import pace, rest
from runner.stage import Context

CHUNK = 1 << 20
TRIES = 5
"""Tries in a row without one more byte."""
TIMEOUT = 30.0
"""Seconds without an answer."""
LONGEST_NAME = 255
PAUSE, LONGEST = 0.4, 60.0
"""Seconds before the second try, twice as long before every further one; and the longest."""


def download(url: str, sha256: str, target: Path, context: Context) -> None:
    """Bring the file into the folder `target`; a part that a killed run left is gone on with."""
    network.needed_for(mask(url))
    part = context.draft / f"{sha256[:16]}.part"
    begun = part.exists()
    with _plain_errors(url):
        found = _bring(url, part, context)
        if found != sha256 and begun:
            context.note("what an earlier run had left was damaged: from the start")
            part.unlink()
            found = _bring(url, part, context)
    if found != sha256:
        part.unlink()
        raise StepError(f"{mask(url)} has sha256 {found} instead of {sha256}.")
    files.sync(part)
    part.rename(target / _name(url))


def reach(url: str) -> int:
    """Bytes of the file, 0 where nobody says; StepError where it cannot be had. It is not read."""
    network.needed_for(mask(url))
    with _plain_errors(url):
        failures = 0
        while True:
            try:
                source, _, size = _opened(url, 0)
            except Exception as error:
                failures += 1
                if failures >= TRIES or not _may_pass(error):
                    raise
                time.sleep(_pause(error, failures))
            else:
                source.close()
                return size


def sha256_of(url: str) -> str:
    """The sha256 of what is there now; every byte is read."""
    network.needed_for(mask(url))
    with TemporaryDirectory() as folder, _plain_errors(url):
        context = Context(Path(folder), Checkpoints(Path(folder), lambda _: None))
        return _bring(url, Path(folder) / "part", context)


def _bring(url: str, part: Path, context: Context) -> str:
    """Complete the part, over any number of broken connections, and give its sha256."""
    failures, size = 0, -1
    while True:
        try:
            return _append(url, part, context)
        except Exception as error:
            grown = part.stat().st_size if part.exists() else 0
            failures = failures + 1 if grown <= size else 1
            size = grown
            if failures >= TRIES or not _may_pass(error):
                raise
            rest(context, _pause(error, failures))


def _pause(error: Exception, failures: int) -> float:
    """Seconds until the next try: what the server asks for, or longer each time."""
    asked = error.headers.get("Retry-After", "") if isinstance(error, HTTPError) else ""
    return min(float(asked) if asked.isdigit() else PAUSE * 2 ** (failures - 1), LONGEST)


def _append(url: str, part: Path, context: Context) -> str:
    """Read what the part lacks, over one connection."""
    hasher, there = _sha256(part)
    source, done, total = _opened(url, there)
    with source, open(part, "ab") as sink:
        if done < there:
            hasher = hashlib.sha256()
            sink.truncate(0)
        if lacking := files.shortage(part.parent, total - done):
            raise StepError(lacking)
        begun, before = time.monotonic(), done
        while chunk := source.read(CHUNK):
            sink.write(chunk)
            hasher.update(chunk)
            done += len(chunk)
            rate = (done - before) / max(time.monotonic() - begun, 1e-9)
            left = max(total - done, 0)
            context.progress(done, done + left, "bytes", **pace(left, rate))
            context.stop_here()
    if done < total:
        raise ConnectionError(f"it ended after {done} of {total} bytes")
    return str(hasher.hexdigest())


def _opened(url: str, begin: int) -> tuple[Any, int, int]:
    """The file, open; from where (0 where it can only be had whole); its size (0 if not said)."""
    if urlsplit(url).scheme in ("http", "https"):
        return _opened_by_http(url, begin)
    import fsspec

    system, path = fsspec.core.url_to_fs(url)
    size = int(system.info(path).get("size") or 0)
    source = system.open(path, "rb")
    try:
        return source, source.seek(begin) if begin else 0, size
    except (ValueError, OSError, NotImplementedError):
        return source, 0, size


def _opened_by_http(url: str, begin: int) -> tuple[Any, int, int]:
    headers = {"Range": f"bytes={begin}-"} if begin else {}
    try:
        answer = _opener().open(Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310
    except HTTPError as error:
        error.close()
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        return BytesIO(), begin, begin  # all of it is there
    begin = begin if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
    return answer, begin, begin + int(answer.headers.get("Content-Length") or 0)


def _opener() -> OpenerDirector:
    """What opens http and https, redirected or not, and nothing else."""
    opener = OpenerDirector()
    for handler in (
        ProxyHandler,
        HTTPHandler,
        HTTPSHandler,
        HTTPDefaultErrorHandler,
        HTTPRedirectHandler,
        HTTPErrorProcessor,
        UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _sha256(part: Path) -> tuple[Any, int]:
    """The digest of what is there so far, and how much it is."""
    hasher = hashlib.sha256()
    if part.exists():
        with open(part, "rb") as file:
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
    return hasher, part.stat().st_size if part.exists() else 0


def _may_pass(error: Exception) -> bool:
    """Whether to try again helps: not where the file is missing or refused, or the disk is full."""
    if isinstance(error, (RunnerError, FileNotFoundError, PermissionError, ImportError)):
        return False
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return False
    status = error.code if isinstance(error, HTTPError) else None
    return status is None or status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500


@contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    """What fsspec and the libraries behind it raise, in one line."""
    try:
        yield
    except RunnerError:
        raise
    except (FileNotFoundError, HTTPError) as error:
        if isinstance(error, HTTPError) and error.code != HTTPStatus.NOT_FOUND:
            raise StepError(f"{mask(url)}: the server says {error.code} {error.reason}.") from error
        raise StepError(f"{mask(url)}: there is no such file.") from error
    except Exception as error:
        said = mask(str(error).strip() or type(error).__name__).splitlines()[0]
        raise StepError(f"{mask(url)} cannot be fetched: {said}") from error


def _name(url: str) -> str:
    """What the file is called."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    fits = name.isprintable() and len(name.encode()) <= LONGEST_NAME
    return name if fits and name not in ("", ".", "..") else "file"
