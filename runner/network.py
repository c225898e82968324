"""Whether the network may be used: `--offline` and RUNNER_OFFLINE say no, to libraries too."""

import os

from runner.errors import StepError

LIBRARIES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def forbid() -> None:
    """Use no network in this process; called before any library is imported."""
    for name in ("RUNNER_OFFLINE", *LIBRARIES):
        os.environ[name] = "1"


def is_forbidden() -> bool:
    """Whether this process may not use the network."""
    return os.environ.get("RUNNER_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def needed_for(what: str) -> None:
    """StepError where the network may not be used."""
    if is_forbidden():
        raise StepError(
            f"{what} is not here, and the network may not be used.",
            "The same command without --offline (or RUNNER_OFFLINE) fetches it.",
        )
