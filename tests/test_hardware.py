"""What is asked of the machine."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from runner import hardware

FREED_BY_A_THREAD = """
from pathlib import Path
from threading import Thread
from runner import hardware

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def work():
    blocks = [b"1" * (1 << 20) for _ in range(300)]
    kept.extend(blocks[::20])  # between the others, so that these cannot go by themselves

kept = []
hardware.prepare()
before = resident()
thread = Thread(target=work)
thread.start()
thread.join()
after = resident()
hardware.release_memory()
print(after - before, resident() - before)
"""


def test_what_a_thread_has_freed_goes_back_to_the_system():
    command = [sys.executable, "-c", FREED_BY_A_THREAD]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert held > 200e6
    assert left < 60e6


def nvml(calls, answer):
    """The driver's library on a machine whose GPU other processes use too."""

    def find(bus, handle):
        calls.append(bus)
        return answer

    def tell(handle, found):
        found[0], found[1], found[2] = 80 << 30, 30 << 30, 50 << 30
        return 0

    return SimpleNamespace(
        nvmlInit_v2=lambda: calls.append("begin"),
        nvmlShutdown=lambda: calls.append("end"),
        nvmlDeviceGetHandleByPciBusId_v2=find,
        nvmlDeviceGetMemoryInfo=tell,
    )


@pytest.mark.parametrize(("answer", "free"), [(0, 30 << 30), (6, 80 << 30)])
def test_what_other_processes_have_of_a_gpu_is_not_free(answer, free, monkeypatch):
    calls: list = []
    gpu = hardware.Gpu("a GPU", 80 << 30, (9, 0), "0000:1B:00.0")
    monkeypatch.setattr(hardware, "gpus", lambda: (gpu,))
    library = {"libnvidia-ml.so.1": nvml(calls, answer)}
    monkeypatch.setattr(ctypes, "CDLL", library.__getitem__)
    assert hardware.free_memory("cuda") == hardware.free_memory("cuda:0") == free
    assert hardware.free_memory("cuda:1") is None
    assert calls == ["begin", b"0000:1B:00.0", "end"] * 2


def test_without_the_drivers_library_all_of_a_gpu_counts(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(hardware, "gpus", lambda: (hardware.Gpu("a GPU", 80 << 30, (9, 0)),))
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert hardware.free_memory("cuda") == 80 << 30


@pytest.mark.parametrize(("others", "policy"), [(0.25, None), (0.5, "PASSIVE")])
def test_threads_sleep_only_where_others_run_now(others, policy, tmp_path, monkeypatch):
    told = tmp_path / "loadavg"
    monkeypatch.setattr(hardware, "LOAD", str(told))
    monkeypatch.setattr(hardware, "cores", lambda: 4)
    told.write_text(f"9.00 9.00 9.00 {1 + int(others * 4)}/190 30188\n")
    _unset_threads(monkeypatch)
    hardware.prepare()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


@pytest.mark.parametrize(("load", "policy"), [(0.2, None), (0.6, "PASSIVE")])
def test_where_that_is_not_told_the_load_is_asked(load, policy, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "LOAD", str(tmp_path / "absent"))
    monkeypatch.setattr(os, "getloadavg", lambda: (load * hardware.cores(), 0, 0))
    _unset_threads(monkeypatch)
    hardware.prepare()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def _unset_threads(monkeypatch):
    """As it is before anybody has chosen, and again after the test."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_blocks_of_ever_other_sizes_leave_holes_but_not_within_exact_memory():
    """Each passing block is larger than the holes before it, and what stays fits into none."""
    code = """
import ctypes, sys
from contextlib import nullcontext
from runner import hardware
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def block(size):
    found = libc.malloc(size)
    ctypes.memset(found, 1, size)
    return found
hardware.prepare()
before = hardware.memory()["memory"]
with hardware.exact_memory() if sys.argv[1] == "exact" else nullcontext():
    for each in range(16):
        passing = block((4 << 20) + (each << 18))
        block(9 << 20)
        libc.free(passing)
print(hardware.memory()["memory"] - before)
"""

    def taken(how: str) -> int:
        command = [sys.executable, "-c", code, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    stays, passes = 16 * 9 << 20, 16 * 4 << 20
    assert stays <= taken("exact") < stays + (10 << 20)
    assert taken("kept") > stays + passes
