"""What this machine has for runs, and what it lacks: facts, each with a cure where it needs one."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runner import __version__, abilities, extras, hardware, network, places
from runner.files import human_bytes
from runner.plan import LIBRARIES
from runner.store import default_root

LITTLE = 10_000_000_000
"""Bytes of free disk below which a model of some size has no room."""
SHOWN = 6
TESTED_PYTHONS = ((3, 11), (3, 12))


@dataclass(frozen=True)
class Finding:
    """One fact of one area; with a `cure` where something is amiss, a `fault` if runs fail by it.

    What is `absent` is not amiss: it could be had.
    """

    area: str
    fact: str
    cure: str = ""
    fault: bool = False
    absent: bool = False


def findings() -> Iterator[Finding]:
    """Everything, in the order in which it is shown."""
    for look in AREAS:
        yield from look()


def of_python() -> Iterator[Finding]:
    """The interpreter, and whether it is one that the tests run on."""
    version, place = platform.python_version(), sys.prefix
    tested = sys.version_info[:2] in TESTED_PYTHONS
    cure = "" if tested else "Tested with " + " and ".join(f"{a}.{b}" for a, b in TESTED_PYTHONS)
    yield Finding("Python", f"{version} in {place}, runner {__version__}", cure)


def of_libraries() -> Iterator[Finding]:
    """What is installed, against what is needed and the set that was tested together."""
    if missing := [name for name in _required() if _version(name) is None]:
        cure = f"python -m pip install {' '.join(missing)}"
        yield Finding("libraries", f"missing: {', '.join(missing)}", cure, fault=True)
    tested = _tested()
    here = {name: version for name in tested if (version := _version(name))}
    moved = [f"{n} {tested[n]} -> {v}" for n, v in here.items() if v.split("+")[0] != tested[n]]
    moved.sort(key=lambda text: text.split()[0] not in LIBRARIES)  # those that change results lead
    same = f"{len(here) - len(moved)} of {len(here)} as in the tested set"
    more = f", and {len(moved) - SHOWN} more" if len(moved) > SHOWN else ""
    cure = "python -m pip install -c constraints.txt recipe-runner gives the tested set"
    yield Finding("libraries", same)
    if moved:
        yield Finding("libraries", f"others: {', '.join(moved[:SHOWN])}{more}", cure)


def _tested() -> dict[str, str]:
    text = places.shipped("constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))


def _required() -> list[str]:
    """What this package cannot be without, where it is installed as one."""
    with suppress(metadata.PackageNotFoundError):
        rows = [row for row in metadata.requires("recipe-runner") or () if "extra ==" not in row]
        return [found[0] for row in rows if (found := re.match(r"[\w.-]+", row))]
    return []


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def of_machine() -> Iterator[Finding]:
    """Cores and memory."""
    free = hardware.free_memory("cpu")
    memory = f", {human_bytes(free)} of memory free" if free else ""
    yield Finding("machine", f"{platform.machine()}, {hardware.cores()} cores{memory}")


def of_gpu() -> Iterator[Finding]:
    """The GPUs, their driver, and whether torch was built for them."""
    for number, gpu in enumerate(hardware.gpus()):
        major, minor = gpu.capability
        size = human_bytes(gpu.memory)
        yield Finding("GPU", f"{number}: {gpu.name}, {size}, compute capability {major}.{minor}")
    driver, built = _driver(), _cuda_of_torch()
    if driver:
        yield Finding("GPU", f"driver {driver}, torch built for {built or 'no'} CUDA")
    if hardware.gpus() and not built:
        cure = "Install another build: https://pytorch.org/get-started/locally"
        yield Finding("GPU", "torch cannot use it: it is built for CPUs", cure, fault=True)
    if driver and not hardware.gpus():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        guess = f"CUDA_VISIBLE_DEVICES is {visible!r}" if visible is not None else "See: nvidia-smi"
        yield Finding("GPU", "the driver offers none", guess)
    if not driver and not hardware.gpus():
        yield Finding("GPU", "none; everything runs on the CPU")


def _driver() -> str:
    with suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        return next(iter(re.findall(r"\b\d+\.\d+(?:\.\d+)?\b", text)), "")
    return ""


def _cuda_of_torch() -> str:
    """The CUDA that torch was built for, read from its files: to import it takes seconds."""
    spec = find_spec("torch")
    for place in (spec and spec.submodule_search_locations) or ():
        with suppress(OSError):
            text = (Path(place) / "version.py").read_text(encoding="utf-8")
            return next(iter(re.findall(r"^cuda\b.*= ['\"]([\d.]+)", text, re.MULTILINE)), "")
    return ""


def of_extras() -> Iterator[Finding]:
    """What is there of the optional libraries, and what each that is not would enable."""
    there = [name for name in extras.EXTRAS if extras.missing(name) is None]
    yield Finding("extras", f"installed: {', '.join(there) or 'none'}")
    for name in extras.EXTRAS:
        if name not in there:
            yield Finding("extras", f"{name}: {extras.ENABLES.get(name, '')}", absent=True)
    yield Finding("extras", f"to have one: {extras.line('NAME')}", absent=True)


def of_hub() -> Iterator[Finding]:
    """Whether the Hub is reached, and as whom; never the token."""
    from huggingface_hub import constants, get_token

    from runner.sources.hub import errors

    token, hub = get_token(), constants.ENDPOINT
    login = "a token is there" if token else "no token, so gated repositories stay closed"
    if network.is_forbidden() or errors.is_offline():
        yield Finding("Hub", f"not asked, for the network may not be used; {login}")
        return
    try:
        name = _whoami(token) if token else _reach(hub)
        yield Finding("Hub", f"{hub} is reached, {f'logged in as {name}' if token else login}")
    except errors.refusals() as error:
        yield _refused(error, hub)


def _whoami(token: str) -> str:
    from huggingface_hub import HfApi

    return str(HfApi().whoami(token)["name"])


def _reach(hub: str) -> str:
    from huggingface_hub.utils import get_session

    get_session().get(f"{hub}/api/models", params={"limit": 1}, timeout=10).raise_for_status()
    return ""


def _refused(error: Exception, hub: str) -> Finding:
    from runner.sources.hub import errors

    code = errors.status(error)
    if code == 401:
        return Finding("Hub", f"{hub} does not accept your token", "hf auth login", fault=True)
    if code is not None:
        return Finding("Hub", f"{hub} answers with {code}", "Try again later.")
    cure = "Without network: runner run --offline, runner bundle --help"
    return Finding("Hub", errors.unanswered(error).fact, cure)


def of_disk() -> Iterator[Finding]:
    """The room where results, downloads and runs go."""
    for name, folder in _folders().items():
        free = shutil.disk_usage(_there(folder)).free
        cure = "See what can go: runner store gc, runner cache" if free < LITTLE else ""
        yield Finding("disk", f"{name}: {human_bytes(free)} free in {folder}", cure)


def _folders() -> dict[str, Path]:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser()
    return {"store": default_root(), "Hub cache": cache, "runs": Path("runs").absolute()}


def _there(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def of_file_system() -> Iterator[Finding]:
    """What the file system of the store can do."""
    store = default_root()
    try:
        found: Mapping[str, Any] = abilities.abilities(_there(store))
    except OSError as error:
        cure = "Set RUNNER_STORE to a folder that you may write to."
        yield Finding("files", f"{store} cannot be written: {error.strerror}", cure, fault=True)
        return
    able = [name for name, can in found.items() if can]
    yield Finding("files", f"the store's file system has {', '.join(able) or 'nothing'}")
    for name, can in found.items():
        meaning = abilities.ABILITIES[name][1]
        if not can and meaning:
            yield Finding("files", f"no {name}", meaning, fault=name in abilities.NEEDED)


AREAS: tuple[Callable[[], Iterator[Finding]], ...] = (
    of_python,
    of_libraries,
    of_machine,
    of_gpu,
    of_extras,
    of_hub,
    of_disk,
    of_file_system,
)
