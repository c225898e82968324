"""What a recipe says of its sweep: the `sweep:` block."""

from dataclasses import dataclass
from typing import Any, Literal

from runner.options import option

Direction = Literal["maximize", "minimize"]
JOB_FIGURES = ("bytes", "seconds", "peak_memory")
"""What a job costs: figures of it that no step names."""


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
    search: Literal["grid", "random", "optuna"] = option(
        "grid", "Every value with every other, some drawn at random, or those that Optuna proposes"
    )
    trials: int = option(20, "Jobs that a search tries", at_least=1)
    seed: int = option(0, "The seed of what a search draws", at_least=0)
    sampler: str | dict[str, Any] = option(
        "tpe", "Optuna's sampler: a name, or {name: tpe, multivariate: true} with its settings"
    )
    pruner: str | dict[str, Any] | None = option(
        None, "Optuna's pruner, likewise: {name: median, n_startup_trials: 5}; null gives up none"
    )
    report: str = option(
        "adapt.held_out_loss", "What a pruner looks at while a step works, as STEP.FIGURE"
    )
    objective: str | tuple[str, ...] | None = option(
        None,
        "The score that is looked for, as STEP.FIGURE: evaluate.exact_match; or a list of such,"
        " also bytes, seconds and peak_memory of the job",
    )
    direction: Direction | tuple[Direction, ...] = option(
        "maximize", "Which scores are better; or a list, one for each objective"
    )
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

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """The options whose values go side by side, group by group."""
        lists = [each for each in self.zip if isinstance(each, tuple)]
        names = tuple(each for each in self.zip if isinstance(each, str))
        return [*lists, names] if names else lists

    @property
    def objectives(self) -> dict[str, Direction]:
        """Every score that is looked for, with its direction."""
        return directed(self.objective, self.direction)

    def is_enough(self, failures: int) -> bool:
        """Whether the sweep is to stop after so many failed steps."""
        policy = self.on_failure
        most = policy.stop_after if isinstance(policy, StopAfter) else 1
        return policy != "continue" and failures >= most


def directed(
    objective: str | tuple[str, ...] | None, direction: Direction | tuple[Direction, ...]
) -> dict[str, Direction]:
    """Scores with their directions; ValueError where there are not as many of both."""
    names = (objective,) if isinstance(objective, str) else objective or ()
    found = (direction,) * len(names) if isinstance(direction, str) else direction
    return dict(zip(names, found, strict=True))
