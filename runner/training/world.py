"""The processes that train together, as one of them sees it: how many, which one, what they agree.

Outside of workers.py there is one process, and nothing here costs anything.
"""

import os
from datetime import timedelta
from typing import Any

from runner import hardware

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another one's part of a step."""


def size() -> int:
    """How many processes train together."""
    return _distributed().get_world_size() if _together() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one writes and reports."""
    return _distributed().get_rank() if _together() else 0


def any_of(flag: bool) -> bool:
    """Whether the flag is true in any process; every process must ask at the same point."""
    if not _together():
        return flag
    import torch

    raised = torch.tensor([int(flag)])
    _distributed().all_reduce(raised, op=_distributed().ReduceOp.MAX)
    return bool(raised.item())


def wait() -> None:
    """Go on when every process has come here."""
    any_of(False)


def join() -> None:
    """Become one of the processes, by what the environment says (as torchrun sets it)."""
    if hardware.gpus():
        import torch

        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if hardware.gpus() else "gloo"
    _distributed().init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Be one process again."""
    if _together():
        _distributed().destroy_process_group()


def arguments() -> dict[str, Any]:
    """What transformers' TrainingArguments must be told beside what one process tells them."""
    if not _together():
        return {}
    backend = {} if hardware.gpus() else {"ddp_backend": "gloo"}
    return {**backend, "ddp_find_unused_parameters": False}


def _together() -> bool:
    import torch.distributed as distributed

    return distributed.is_available() and distributed.is_initialized()


def _distributed() -> Any:
    import torch.distributed as distributed

    return distributed
