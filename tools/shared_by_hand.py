"""Jobs of a sweep done without the engine and its store: `python tools/shared_by_hand.py FOLDER`.

FOLDER has a sweep's manifest. In one process every step that jobs share is done once and stays in
memory, as people write it in a notebook. `python tools/shared_by_hand.py -m folder=FOLDER
'job=range(0,16)'` is Hydra's basic multirun: each job does all that it needs.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore

from runner import hardware
from runner.checkpoint import Checkpoints
from runner.stage import Context
from runner.stages import known
from runner.sweep import manifest as manifests
from runner.sweep.manifest import Row


@dataclass
class Config:
    """What Hydra is given."""

    folder: str = "???"
    job: int = 0


def do(row: Row, keys: dict[str, str], made: dict[str, Any]) -> None:
    """Do a step, by its stage's own functions alone."""
    step, stage = row.step(known()), known()[row.stage]
    inputs = {
        role: {name: made[keys[name]] for name in names}
        if stage.NEEDS[role].many
        else made[keys[names[0]]]
        for role, names in row.inputs.items()
    }
    folder = Path(tempfile.mkdtemp())
    product = stage.run(step.options, inputs, Context(folder, Checkpoints(folder / "c", print)))
    if not stage.HOLDS:
        (folder / "product").mkdir()
        stage.save(product, folder / "product")
        product = stage.restore(folder / "product", inputs)
    made[row.key] = product


def do_jobs(folder: Path, numbers: Sequence[int] | None = None) -> None:
    """Do jobs, all steps that they share once."""
    manifest = manifests.load(folder)
    assert manifest is not None
    made: dict[str, Any] = {}
    for number in range(len(manifest.jobs)) if numbers is None else numbers:
        steps = manifest.steps(manifest.jobs[number])
        keys = {row.name: row.key for row in steps}
        for row in steps:
            if row.key not in made:
                do(row, keys, made)


@hydra.main(version_base="1.3", config_path=None, config_name="config")
def by_hydra(config: Any) -> None:
    """A job of Hydra's own."""
    do_jobs(Path(config.folder), [config.job])


if __name__ == "__main__":
    hardware.prepare()
    if sys.argv[1] == "-m":
        ConfigStore.instance().store(name="config", node=Config)
        by_hydra()
    else:
        do_jobs(Path(sys.argv[1]))
