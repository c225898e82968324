"""Who is making what: a lease saves two processes from doing the same work at the same time.

A lease is one small file, whole from the start, that names its owner and holds a counter which the
owner raises while it lives. On the same host and boot the owner is looked up by process id *and*
start time; anywhere else it counts as dead when the counter has stood still for EXPIRY seconds of
the watcher's own clock (no clock is compared with another). Nothing here is needed for a right
result: should two owners ever hold one lease, the store's rename still lets one entry win.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runner.errors import StoreError, writing
from runner.files import digest_json, make_folder

EXPIRY = 30.0
POLL = 0.2
COUNTER_WIDTH = 12
FIELDS = ("token", "host", "boot", "space", "pid", "start")


@contextmanager
def lease(
    path: Path, on_wait: Callable[[str], None], stop_here: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lease while the block runs.

    `on_wait` is told once whom it has to wait for; `stop_here` may raise to end the waiting.
    """
    fd, token = _acquire(path, on_wait, stop_here)
    done = threading.Event()
    beat = threading.Thread(target=_beat, args=(fd, done), daemon=True)
    beat.start()
    try:
        yield
    finally:
        done.set()
        beat.join()
        os.close(fd)
        if (_read(path) or {}).get("token") == token:
            with suppress(OSError):
                path.unlink()


def is_held(path: Path) -> bool:
    """Whether an owner that can be seen from here is alive (an owner elsewhere counts as alive)."""
    owner = _read(path)
    return owner is not None and _lives_here(owner) is not False


def watch(path: Path) -> "Watch":
    """Follow a lease for as long as its owner of now has it."""
    return Watch(path, _read(path))


def clear(path: Path) -> None:
    """Take away the lease of an owner that is known to have died on this host."""
    owner = _read(path)
    if owner is not None and _lives_here(owner) is False:
        _break(path, owner)


def is_mine(path: Path) -> bool:
    """Whether this very process holds the lease."""
    owner = _read(path)
    return owner is not None and all(owner[name] == value for name, value in _me().items())


def signature() -> str:
    """One word for this process, for a name that says who works there: place, id, start."""
    pid = os.getpid()
    return f"{digest_json(_place())[:12]}-{pid}-{_start_time(pid)}"


def lives_beside(signed: str) -> bool:
    """Whether another process on this host, the one that signed so, is alive."""
    place, _, process = signed.partition("-")
    pid, _, start = process.partition("-")
    if place != digest_json(_place())[:12] or not _place()["boot"] or pid == str(os.getpid()):
        return False
    return _start_time(int(pid)) == start


def _acquire(
    path: Path, on_wait: Callable[[str], None], stop_here: Callable[[], None]
) -> tuple[int, str]:
    with writing(path.parent):
        make_folder(path.parent)
    token, waiting = uuid.uuid4().hex, False
    while True:
        with suppress(FileExistsError):
            return _create(path, token), token
        owner = _read(path)
        if not waiting and owner:
            on_wait(f"waiting for process {owner.get('pid')} on {owner.get('host')}")
            waiting = True
        if _wait_for(path, owner, stop_here):
            _break(path, owner)
            if owner:
                on_wait(f"process {owner['pid']} on {owner['host']} is gone; going on in its place")


def _create(path: Path, token: str) -> int:
    """Make the file, signed from its first moment; FileExistsError where there is one.

    It gets its name by a hard link, so that no kill can leave it without an owner; a file system
    without links takes O_EXCL. StoreError where nothing can be written.
    """
    signed = path.with_name(f".{path.name}.{token}")
    try:
        fd = _write_anew(signed, token)
        try:
            os.link(signed, path)
        except FileExistsError:
            os.close(fd)
            raise
        except OSError:
            os.close(fd)
            fd = _write_anew(path, token)
        finally:
            signed.unlink(missing_ok=True)
        return fd
    except FileExistsError:
        raise
    except OSError as error:
        raise StoreError(f"{path.parent}: cannot be written: {error.strerror}.") from error


def _write_anew(path: Path, token: str) -> int:
    """A new file, signed and open; none where it cannot be written whole."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    try:
        os.write(fd, _signed(token).encode())
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


def _wait_for(path: Path, owner: dict[str, Any] | None, stop_here: Callable[[], None]) -> bool:
    """Wait until the lease is free (False) or its owner is known to be dead (True)."""
    watch = Watch(path, owner)
    while True:
        stop_here()
        if (free := watch.look()) is not None:
            return free
        time.sleep(POLL)


class Watch:
    """Follows a lease that somebody else holds, without waiting for it."""

    def __init__(self, path: Path, owner: dict[str, Any] | None) -> None:
        self.path, self.owner = path, owner
        self.seen, self.since = self.owner, time.monotonic()

    def look(self) -> bool | None:
        """True where its owner is dead, False where it is not the owner's any more, else None."""
        current = _read(self.path)
        if not self.path.exists() or (
            current and self.owner and current["token"] != self.owner["token"]
        ):
            return False
        lives = _lives_here(current) if current else None
        if lives is False:
            return True
        if current != self.seen or lives:
            self.seen, self.since = current, time.monotonic()
            if self.owner is None:
                return False  # it was being written when first read
        return True if time.monotonic() - self.since > EXPIRY else None


def _break(path: Path, owner: dict[str, Any] | None) -> None:
    """Take a dead owner's file away, unless somebody has done so and holds the lease by now."""
    with open(path.with_name(".breaking"), "w") as guard:
        with suppress(OSError):  # without locks two watchers may break at once: see above
            fcntl.flock(guard, fcntl.LOCK_EX)
        if (_read(path) or {}).get("token") == (owner or {}).get("token"):
            path.unlink(missing_ok=True)


def _beat(fd: int, done: threading.Event) -> None:
    count = 0
    while not done.wait(EXPIRY / 6):
        count += 1
        with suppress(OSError):
            os.pwrite(fd, f"{count:0{COUNTER_WIDTH}d}".encode(), 0)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        count, text = path.read_text(encoding="utf-8").split("\n", 1)
        owner = json.loads(text)
        return {name: owner[name] for name in FIELDS} | {"count": int(count)}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _signed(token: str) -> str:
    return f"{0:0{COUNTER_WIDTH}d}\n" + json.dumps(_me() | {"token": token}) + "\n"


def _me() -> dict[str, Any]:
    pid = os.getpid()
    return _place() | {"pid": pid, "start": _start_time(pid)}


def _place() -> dict[str, str]:
    """Where a process id means the same process: this boot of this host, this namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux: only the counter can tell
        boot, space = "", ""
    return {"host": socket.gethostname(), "boot": boot, "space": space}


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *others = stat.rsplit(")", 1)[1].split()  # fields 3 and following of proc(5)
    return None if state in "ZX" else others[18]  # field 22: clock ticks since boot


def _lives_here(owner: dict[str, Any]) -> bool | None:
    """Whether the owner runs on this host; None where that can't be seen from here."""
    place = _place()
    if not place["boot"] or any(owner.get(name) != value for name, value in place.items()):
        return None
    return bool(_start_time(int(owner["pid"])) == owner["start"])
