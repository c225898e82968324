"""What a recipe says of its sweep: the `sweep:` block."""

from dataclasses import dataclass
from typing import Any, Literal

from runner.options import option


@dataclass(frozen=True, kw_only=True)
class StopAfter:
    """How many failures a sweep goes on through."""

    stop_after: int = option(help="Failed steps after which the sweep stops", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Which values a recipe is run with, what is looked for, and what becomes of failures."""

    params: dict[str, Any] | None = option(
        None, "Options and their values: a list, or a text in Hydra's grammar (`4,8`, `range(1,9)`)"
    )
    zip: tuple[str, ...] | tuple[tuple[str, ...], ...] = option(
        (), "Options whose values go side by side, instead of each with each; or lists of such"
    )
    repeat: int = option(1, "Runs of every job, each with a seed of its own", at_least=1)
    objective: str | None = option(
        None, "The score that is looked for, as STEP.FIGURE: evaluate.exact_match"
    )
    direction: Literal["maximize", "minimize"] = option("maximize", "Which scores are better")
    on_failure: Literal["continue", "stop"] | StopAfter = option(
        "continue", "What becomes of the rest when a step fails; or {stop_after: N}"
    )
    retries: int = option(
        1, "Times that a step is tried again whose process died or ran out of memory", at_least=0
    )
    timeout: float | dict[str, float] | None = option(
        None, "Seconds that a step may take; or a mapping from step to seconds", at_least=0
    )
    grace: float = option(
        30.0,
        "Seconds that a step over its time has for a checkpoint, before it is killed",
        at_least=0,
    )
    workers: int | Literal["auto"] = option(
        "auto", "Processes that work at a time; auto is one for each GPU, else one", at_least=1
    )
    gpus: int = option(
        1, "GPUs of a process, where there are any and the stage uses them; 0 for none", at_least=0
    )
