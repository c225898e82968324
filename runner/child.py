"""What a process of ours does that another one started: leave signals to it, and end with it."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def serve(parent: int) -> None:
    """Leave signals to the process `parent`, and end with it, however that ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
