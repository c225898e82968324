"""What this machine has and how to use it. Asked when called; the driver is asked, not torch."""

import ctypes
import gc
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

BUSY = 0.25
"""Others that run now, for each core, from which on a machine counts as busy."""
LOOKS, PAUSE = 5, 0.02
"""How often it is looked who runs, and the seconds between."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LOAD = "/proc/loadavg"
GIVEN_BACK_FROM, KEPT_BELOW, KEPT_BELOW_IN_OLD = 1 << 17, 1 << 30, 1 << 25
"""Bytes of a block: from where glibc gives back what is freed, and up to where it keeps it."""


@dataclass(frozen=True)
class Gpu:
    """One GPU that this process may use: memory in bytes, compute capability as (9, 0).

    `bus` is its PCI address, by which every library of the driver knows it.
    """

    name: str
    memory: int
    capability: tuple[int, int]
    bus: str = ""


@cache
def cores() -> int:
    """Cores that this process may use, the limits of a container counted in."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed or 1, max(1, int(quota) // int(period)))
    return allowed or 1


@cache
def gpus() -> tuple[Gpu, ...]:
    """The CUDA GPUs that the driver offers (CUDA_VISIBLE_DEVICES counts), in its order."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return ()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    return tuple(_gpu(driver, index) for index in range(count.value))


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, memory = ctypes.c_int(), ctypes.c_size_t()
    name, major, minor = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_int()
    bus = ctypes.create_string_buffer(32)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # COMPUTE_CAPABILITY_MAJOR
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # COMPUTE_CAPABILITY_MINOR
    driver.cuDeviceGetPCIBusId(bus, len(bus), device)
    return Gpu(name.value.decode(), memory.value, (major.value, minor.value), bus.value.decode())


def device() -> str:
    """Where models go: "cuda" where there is a GPU, else "cpu".

    Of several processes that train together each has a GPU of its own, by the number that torchrun
    and we give it.
    """
    if not gpus():
        return "cpu"
    return f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"


@cache
def computes_bfloat16() -> bool:
    """Whether bfloat16 is computed by the hardware rather than emulated."""
    if gpus():
        return all(gpu.capability >= (8, 0) for gpu in gpus())
    with suppress(OSError):
        return any(
            line.startswith(("flags", "Features")) and {"avx512_bf16", "bf16"} & {*line.split()}
            for line in Path("/proc/cpuinfo").read_text().splitlines()
        )
    return False


def prepare() -> str:
    """Set threads and memory allocation, before torch is imported; say what was chosen.

    The number of threads changes the last bits of a result, so it depends on the machine alone.
    How threads wait does not: on a busy machine they sleep, since threads that spin for one
    another on cores that others use make everything several times slower. The user's own OMP
    settings win.
    """
    threads = os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    chosen = f"threads: {threads} (of {cores()} cores)"
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & {*os.environ} and _is_busy():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        chosen += ", sleeping while they wait (the machine is busy)"
    _set_malloc(KEPT_BELOW)  # else a training step asks the system for new pages each time
    return ", ".join([*(gpu.name for gpu in gpus()), chosen])


def release_memory() -> None:
    """Give back what is freed: to the system (every thread's share too), and to the driver.

    What a thread has freed stays in its own share, which the next step's thread does not use.
    """
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    with suppress(OSError, AttributeError):  # glibc's alone has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_memory(name: str) -> int | None:
    """Bytes that are free on a device, "cpu" or "cuda:0"; None where nobody can tell.

    On the CPU the smaller of what the machine and what the container (cgroup 2) leave; of a GPU
    what the driver says that no process has, and all of it where the driver cannot be asked.
    """
    if name == "cpu":
        return min(filter(None, (_available(), _left_in_container())), default=None)
    index = int(name.partition(":")[2] or 0)
    return _left_on(gpus()[index]) if index < len(gpus()) else None


def _left_on(gpu: Gpu) -> int:
    """What is free on a GPU, asked of NVML: CUDA itself would take some of it to answer."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return gpu.memory
    if nvml.nvmlInit_v2():
        return gpu.memory
    handle, found = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
    try:
        unknown = nvml.nvmlDeviceGetHandleByPciBusId_v2(gpu.bus.encode(), ctypes.byref(handle))
        if unknown or nvml.nvmlDeviceGetMemoryInfo(handle, found):
            return gpu.memory
        return min(gpu.memory, found[1])
    finally:
        nvml.nvmlShutdown()


def _available() -> int | None:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")) * 1024
    return None


def _left_in_container() -> int | None:
    """The cgroup's limit less what it uses; files that it has cached can go."""
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, StopIteration):
        limit = int((group / "memory.max").read_text())  # "max" is no number: there is no limit
        used = int((group / "memory.current").read_text())
        rows = (group / "memory.stat").read_text().splitlines()
        cached = next(int(row.split()[1]) for row in rows if row.startswith("inactive_file "))
        return max(0, limit - used + cached)
    return None


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    with suppress(OSError, StopIteration):  # ru_maxrss begins with that of the parent
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak_memory() -> None:
    """Have `peak_memory` begin anew, where the system can do so."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def memory() -> dict[str, int]:
    """The bytes that this process holds now: `memory`, and `gpu_memory` where torch has any."""
    found = {}
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        found["memory"] = int(next(n.split()[1] for n in lines if n.startswith("VmRSS:"))) * 1024
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["gpu_memory"] = torch.cuda.memory_reserved()
    return found


def _is_busy() -> bool:
    """By who runs at this moment; by the load where that is not told, which forgets slowly."""
    looks = [running for _ in range(LOOKS) if (running := _running()) is not None]
    others = sum(looks) / len(looks) - 1 if looks else os.getloadavg()[0]
    return others > BUSY * cores()


def _running() -> int | None:
    """How many threads of the machine run or want to, this one among them."""
    time.sleep(PAUSE)
    with suppress(OSError, ValueError, IndexError), open(LOAD, encoding="ascii") as file:
        return int(file.read().split()[3].partition("/")[0])
    return None


@contextmanager
def exact_memory() -> Iterator[None]:
    """Within it the process holds what is in use, and freed blocks are given back at once.

    For work whose blocks are of ever other sizes and that is done once, as quantizing each weight
    while a model is opened: what is freed there is kept in vain, for the next does not fit in.
    """
    _set_malloc(GIVEN_BACK_FROM)
    try:
        yield
    finally:
        _set_malloc(KEPT_BELOW)


def _set_malloc(size: int) -> None:
    """From which size on glibc gives freed blocks back; where memory is another's, nothing."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if not libc.mallopt(M_MMAP_THRESHOLD, size):  # before 2.35 there was a most
            libc.mallopt(M_MMAP_THRESHOLD, min(size, KEPT_BELOW_IN_OLD))
        libc.mallopt(M_TRIM_THRESHOLD, size)
