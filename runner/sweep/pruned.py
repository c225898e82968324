"""Jobs that a search gave up in the middle of a step: neither failed nor done.

sweeps/<recipe>/<id>/pruned/<job>.json   at which step of which figure, and all it had reported
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner import files

FOLDER = "pruned"


@dataclass(frozen=True)
class Pruned:
    """Why a job was given up: its `figure` (STEP.FIGURE) by the step at which it was reported."""

    job: str
    figure: str
    reported: Mapping[int, float]

    @property
    def why(self) -> str:
        """In a sentence."""
        step, value = max(self.reported.items())
        return f"given up at step {step}: {self.figure} {value:.4g}"


def write(folder: Path, pruned: Pruned) -> None:
    """Keep it in a sweep's folder."""
    files.make_folder(folder / FOLDER)
    rows = {str(step): value for step, value in pruned.reported.items()}
    value = {"job": pruned.job, "figure": pruned.figure, "reported": rows}
    files.write_json(folder / FOLDER / f"{pruned.job}.json", value)


def read(folder: Path) -> dict[str, Pruned]:
    """All that a sweep has given up, by job."""
    return {each.job: each for each in _every(folder)}


def _every(folder: Path) -> Iterator[Pruned]:
    for path in sorted((folder / FOLDER).glob("*.json")):
        if isinstance(value := files.read_json(path), dict):
            rows = {int(step): float(number) for step, number in value["reported"].items()}
            yield Pruned(value["job"], value["figure"], rows)
