"""What the record of a run says of it as a whole: the plan, the command, the machine, the time."""

import platform
import time
from collections.abc import Sequence
from typing import Any

from runner import __version__, hardware
from runner.plan import Plan, Planned, versions


def of_plan(plan: Plan) -> list[dict[str, Any]]:
    """Every step of a plan, also those that a run never comes to."""
    return [_of_step(planned) for planned in plan.steps]


def of_run(words: Sequence[str], begun: float) -> dict[str, Any]:
    """What was typed, with what and where; `begun` is the time since the epoch, in seconds."""
    return {
        "command": list(words),
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "seconds": round(time.time() - begun, 3),
        **machine(),
        "libraries": versions(),
    }


def machine() -> dict[str, Any]:
    """What everything is done with and on, the libraries left out."""
    return {
        "runner": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": hardware.cores(),
        "gpus": [gpu.name for gpu in hardware.gpus()],
    }


def _of_step(planned: Planned) -> dict[str, Any]:
    step = planned.step
    return {
        "step": step.name,
        "stage": step.stage_name,
        "gives": step.stage.GIVES,
        "inputs": {role: list(names) for role, names in step.inputs.items()},
        "verdict": str(planned.verdict),
        "reason": planned.reason,
    }
