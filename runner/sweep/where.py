"""What a recipe says of where the jobs of its sweep run: the `launch:` block."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from runner.errors import did_you_mean, listing
from runner.options import Fault, option
from runner.resources import Resources

LAUNCH = "launch"
"""The group of presets that is no stage's."""
OF_KIND = {
    "partition": "slurm",
    "cpu_partition": "slurm",
    "sbatch": "slurm",
    "setup": "slurm",
    "notice": "slurm",
    "requeues": "slurm",
    "address": "ray",
}
"""The options that mean something in one kind of place only."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where jobs run. Only what they cost depends on it, and no result."""

    kind: Literal["local", "slurm", "ray"] = option(
        "local", "This machine; jobs of Slurm, by submitit; or remote functions of Ray"
    )
    resources: dict[str, Resources] = option(
        {}, "What steps ask for instead of what their stages do: {adapt: {gpus: 2, minutes: 600}}"
    )
    partition: str | None = option(None, "slurm: the partition; Slurm's own default if left out")
    cpu_partition: str | None = option(None, "slurm: the partition of steps without a GPU")
    sbatch: dict[str, Any] = option({}, "slurm: more options of sbatch: {account: me, qos: low}")
    setup: tuple[str, ...] = option((), "slurm: lines of shell before each job: [module load cuda]")
    notice: int = option(
        90, "slurm: seconds that a job has for a checkpoint before its time ends", at_least=1
    )
    requeues: int = option(
        100, "slurm: times that a step goes on that ran into its time limit", at_least=0
    )
    address: str | None = option(
        None, "ray: the cluster, as HOST:PORT; what RAY_ADDRESS or this machine has if left out"
    )


def problems(launch: Launch, steps: Collection[str]) -> Iterator[Fault]:
    """What is wrong with it; `steps` are the names of the recipe's."""
    plain = Launch()
    for f in fields(Launch):
        kind = OF_KIND.get(f.name, launch.kind)
        if kind != launch.kind and getattr(launch, f.name) != getattr(plain, f.name):
            fact = f"launch.{f.name} is of launch={kind}, and the jobs run by {launch.kind}."
            yield Fault(("launch", f.name), fact)
    names = [*dict.fromkeys(part for step in steps for part in (step, step.partition(".")[0]))]
    for name in launch.resources:
        if name not in names:
            guess = did_you_mean(name, names) or f"The steps are: {listing(names)}."
            fact = f'launch.resources: there is no step "{name}".'
            yield Fault(("launch", "resources", name), fact, guess)


def resources(launch: Launch, step: str, default: Resources) -> Resources:
    """What a step asks for: as the recipe says of it, of all parts of its step, or its stage."""
    of_all = launch.resources.get(step.partition(".")[0], Resources())
    return launch.resources.get(step, Resources()).over(of_all).over(default)
