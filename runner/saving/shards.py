"""Weights in files of a set size: a safetensors file that is larger becomes several.

https://huggingface.co/docs/safetensors: eight bytes of length, a header in JSON, then the tensors.
"""

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from runner import files

SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(kB|MB|GB|TB)", re.I)
UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
INDEX = "model.safetensors.index.json"
WEIGHTS = "model*.safetensors"


def parsed(size: str) -> int | None:
    """The bytes of `5GB`; None where it is no size."""
    found = SIZE.fullmatch(size.strip())
    return int(float(found[1]) * UNITS[found[2].lower()]) or None if found else None


def split(folder: Path, limit: int) -> None:
    """Have no file of a model's weights larger than `limit` bytes, but for one tensor that is.

    Files that are small enough stay as they are. Of tensors only those of one new file are in
    memory at once.
    """
    sources = sorted(folder.glob(WEIGHTS))
    if all(path.stat().st_size <= limit for path in sources):
        return
    sizes = {name: (path, size) for path in sources for name, size in _tensors(path).items()}
    groups = list(_groups({name: size for name, (_, size) in sizes.items()}, limit))
    places: dict[str, str] = {}
    for number, names in enumerate(groups, 1):
        title = f"model-{number:05}-of-{len(groups):05}.safetensors"
        _write(folder / f".{title}", {name: sizes[name][0] for name in names})
        places |= dict.fromkeys(names, title)
    for path in sources:
        path.unlink()
    for title in set(places.values()):
        (folder / f".{title}").rename(folder / title)
    _write_index(folder / INDEX, places, sum(size for _, size in sizes.values()))


def parameters(folder: Path) -> int:
    """Numbers in all tensors of a folder's safetensors files."""
    headers = (_header(path) for path in folder.glob("*.safetensors"))
    return sum(math.prod(each["shape"]) for header in headers for each in header.values())


def _header(path: Path) -> dict[str, Any]:
    """What a file says of each of its tensors."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header


def _tensors(path: Path) -> dict[str, int]:
    """The name and bytes of every tensor of a file, in the order in which they lie there."""
    found = {name: each["data_offsets"] for name, each in _header(path).items()}
    return {name: end - begin for name, (begin, end) in sorted(found.items(), key=_begin)}


def _begin(item: tuple[str, list[int]]) -> int:
    return item[1][0]


def _groups(sizes: Mapping[str, int], limit: int) -> Iterable[list[str]]:
    """Names whose tensors go into one file, in order."""
    names: list[str] = []
    room = limit
    for name, size in sizes.items():
        if names and size > room:
            yield names
            names, room = [], limit
        names.append(name)
        room -= size
    yield names


def _write(path: Path, sources: Mapping[str, Path]) -> None:
    """A file with the named tensors, each from where it lies now."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for source in dict.fromkeys(sources.values()):
        with safe_open(source, framework="pt") as opened:
            metadata = opened.metadata()
            tensors |= {
                name: opened.get_tensor(name) for name, at in sources.items() if at == source
            }
    save_file(tensors, path, metadata=metadata)


def _write_index(path: Path, places: Mapping[str, str], total: int) -> None:
    known = files.read_json(path) or {}
    metadata = known.get("metadata", {}) | {"total_size": total}
    whole = {"metadata": metadata, "weight_map": dict(sorted(places.items()))}
    path.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")
