"""What is asked of the machine."""

import subprocess
import sys

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
