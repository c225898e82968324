"""The calls by which a store touches the disk, each shown to a hook, and a model of a disk.

`hooked(root, before, after)` patches the functions below which Python's files, pathlib and
shutil lie. `before(call, path)` may raise what the disk would. `Disk` listens to `after` and
builds the folder that a loss of power would leave: what was not synced is lost, or a part of it
is there, in any order. A rename is one transaction, as on every journalling file system: it is
there or not, and a sync of either of its folders makes it last.
"""

import builtins
import io
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from runner import files

Before = Callable[[str, str], None]
After = Callable[[str, str, str], None]


def _nothing(*_: Any) -> None:
    pass


@contextmanager
def hooked(root: Path, before: Before = _nothing, after: After = _nothing) -> Iterator[None]:
    """Show every call that concerns `root` to the hooks while the block runs."""
    top = str(root)
    real = {
        name: getattr(os, name)
        for name in "open write fsync rename replace mkdir unlink remove rmdir chmod link".split()
    }
    real_open = io.open

    def full(path: Any, dir_fd: int | None = None) -> str:
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        text = os.fspath(path)
        if dir_fd is not None:
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        return os.path.abspath(text)

    def ours(path: str) -> bool:
        return path == top or path.startswith(top + "/")

    class Raw(io.FileIO):
        place = ""

        def write(self, data: Any) -> int:
            before("write", self.place)
            count = super().write(data)
            after("write", self.place, "")
            return count

    def hooked_open(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if isinstance(file, int) or not ours(full(file)):
            given = mode, buffering, encoding, errors, newline, closefd, opener
            return real_open(file, *given)
        path = full(file)
        before("open", path)
        if not set(mode) & set("wax+"):
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        raw.place = path
        after("open", path, "")
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(
            buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1
        )

    def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = full(path, dir_fd)
        if not ours(where):
            return real["open"](path, flags, mode, dir_fd=dir_fd)
        before("open", where)
        fd = real["open"](path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT:
            after("open", where, "")
        return fd

    def by_fd(name: str) -> Callable[..., Any]:
        def call(fd: int, *rest: Any) -> Any:
            where = full(fd)
            if not ours(where):
                return real[name](fd, *rest)
            before(name, where)
            found = real[name](fd, *rest)
            after(name, where, "")
            return found

        return call

    def by_path(name: str) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, dir_fd: int | None = None, **more: Any) -> Any:
            keywords = {**more, **({} if dir_fd is None else {"dir_fd": dir_fd})}
            where = full(path, dir_fd)
            other = full(rest[0]) if name in ("rename", "replace", "link") else ""
            if not (ours(where) or (other and ours(other))):
                return real[name](path, *rest, **keywords)
            before(name, where)
            found = real[name](path, *rest, **keywords)
            after(name, where, other)
            return found

        return call

    real_digest = files.digest

    def digest(path: Path) -> str:  # blake3 opens the file where no patch can see it
        if ours(full(path)):
            before("open", full(path))
        return real_digest(path)

    with ExitStack() as stack:
        for module, name, value in (
            (builtins, "open", hooked_open),
            (io, "open", hooked_open),
            (os, "open", os_open),
            (os, "write", by_fd("write")),
            (os, "fsync", by_fd("fsync")),
            *((os, name, by_path(name)) for name in real if name not in {"open", "write", "fsync"}),
            (files, "digest", digest),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


@dataclass(eq=False)
class Node:
    """A file or a folder: what it is now, and what surely is on the disk."""

    is_folder: bool
    now: Any
    durable: Any


@dataclass(eq=False)
class Change:
    """Names that come and go in one transaction: (folder, name, node or None for gone)."""

    names: list[tuple[Node, str, Node | None]]


class Disk:
    """A model of the disk below a root, fed by `after`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = Node(True, {}, {})
        self.changes: list[Change] = []
        self.calls = 0

    def after(self, call: str, path: str, other: str) -> None:
        """A call has succeeded."""
        if call == "link":
            self._name(other, self._find(path))
        elif call in ("rename", "replace"):
            self._move(path, other)
        elif call == "mkdir":
            self._name(path, Node(True, {}, {}))
        elif call in ("unlink", "remove", "rmdir"):
            self._name(path, None)
        elif call in ("open", "write"):
            self._written(path)
        elif call == "fsync":
            self._sync(path)
        self.calls += 1

    def crash(self, target: Path, chance: random.Random | None) -> None:
        """Write down what the disk holds after a loss of power now.

        Without `chance` all that was not synced is lost; with it each change of names is there or
        not, and a file's bytes are old, new, or new with a torn or empty tail.
        """
        folders: dict[int, dict[str, Node]] = {}

        def names(node: Node) -> dict[str, Node]:
            return folders.setdefault(id(node), dict(node.durable))

        for change in self.changes:
            if chance and chance.random() < 0.5:
                for folder, name, node in change.names:
                    if node is None:
                        names(folder).pop(name, None)
                    else:
                        names(folder)[name] = node
        self._write_down(self.top, target, names, chance, ())

    def _write_down(
        self,
        node: Node,
        target: Path,
        names: Callable[[Node], dict[str, Node]],
        chance: random.Random | None,
        above: tuple[int, ...],
    ) -> None:
        if not node.is_folder:
            target.write_bytes(self._bytes(node, chance))
            return
        target.mkdir(exist_ok=True)
        for name, child in names(node).items():
            if id(child) not in above:
                self._write_down(child, target / name, names, chance, (*above, id(child)))

    def _bytes(self, node: Node, chance: random.Random | None) -> bytes:
        if chance is None or node.now == node.durable:
            return bytes(node.durable)
        kind = chance.randrange(5)
        if kind == 0:
            return bytes(node.durable)
        if kind == 1:
            return bytes(node.now)
        cut = chance.randrange(len(node.now) + 1)
        if kind == 2:
            return bytes(node.now[:cut])
        if kind == 3:  # its length is there, its bytes are not
            return bytes(node.now[:cut]) + bytes(len(node.now) - cut)
        return bytes(len(node.now))

    def _find(self, path: str) -> Node:
        node = self.top
        for name in Path(path).relative_to(self.root).parts:
            node = node.now[name]
        return node

    def _name(self, path: str, node: Node | None) -> None:
        parent, name = self._find(os.path.dirname(path)), os.path.basename(path)
        if node is None:
            parent.now.pop(name)
        else:
            parent.now[name] = node
        self.changes.append(Change([(parent, name, node)]))

    def _move(self, path: str, other: str) -> None:
        node = self._find(path)
        here, there = self._find(os.path.dirname(path)), self._find(os.path.dirname(other))
        names = os.path.basename(path), os.path.basename(other)
        del here.now[names[0]]
        there.now[names[1]] = node
        self.changes.append(Change([(here, names[0], None), (there, names[1], node)]))

    def _written(self, path: str) -> None:
        data = _read(path)
        parent = self._find(os.path.dirname(path))
        if os.path.basename(path) not in parent.now:
            self._name(path, Node(False, b"", b""))
        self._find(path).now = data

    def _sync(self, path: str) -> None:
        node = self._find(path)
        if not node.is_folder:
            node.durable = node.now
            return
        for change in [c for c in self.changes if any(f is node for f, _, _ in c.names)]:
            earlier = self.changes[: self.changes.index(change)]
            self.changes.remove(change)
            for folder, name, found in change.names:
                for old in earlier:  # what came before it is in the same journal
                    old.names = [n for n in old.names if n[0] is not folder or n[1] != name]
                if found is None:
                    folder.durable.pop(name, None)
                else:
                    folder.durable[name] = found


def _read(path: str) -> bytes:
    with io.FileIO(path) as file:
        return file.readall()
