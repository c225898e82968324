"""What a step asks of a cluster. It decides where and how long a step runs, and no result."""

from dataclasses import dataclass, fields

from runner.options import option


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What is left out is as the stage says; what that leaves out is the cluster's own default."""

    gpus: int | None = option(None, "GPUs, where the stage uses any", at_least=0)
    cpus: int | None = option(None, "Cores", at_least=1)
    memory: float | None = option(None, "Main memory in GiB", at_least=0)
    minutes: int | None = option(
        None, "Minutes that one job of a cluster may take; the next goes on from there", at_least=1
    )

    def __str__(self) -> str:
        said = {name: value for name, value in vars(self).items() if value is not None}
        return ", ".join(f"{name} {value:g}" for name, value in said.items())

    def over(self, other: "Resources") -> "Resources":
        """These, and the other's where these say nothing."""
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        return Resources(
            **{name: getattr(other, name) if v is None else v for name, v in said.items()}
        )
