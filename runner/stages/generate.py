"""Have a model answer prompts; each answer is kept as soon as it is there."""

from collections.abc import Mapping
from typing import Any

from runner import products
from runner.answering import keeping, loop, settings
from runner.products import Row
from runner.resources import Resources
from runner.stage import Context, Need, never_stale, pins_nothing, takes_little_room

NEEDS: Mapping[str, Need] = {
    "model": Need(kind="model", optional=True),
    "dataset": Need(kind="dataset", optional=True),
    "assistant": Need(kind="model", named=True, optional=True),
    "gguf": Need(kind="files", named=True, optional=True),
}
GIVES = "text"
VERSION = 3
PARTS = False
HOLDS = True
RESOURCES = Resources(gpus=1, cpus=2, memory=16, minutes=120)

Options = settings.Options
resolve = settings.resolve
check = settings.check
pins = pins_nothing
stale = never_stale
room = takes_little_room
save = keeping.save
restore = products.restore_rows


def run(options: Options, inputs: Mapping[str, Any], context: Context) -> list[Row]:
    """One row for every prompt and sample, in the order of the prompts."""
    return loop.answers(options, inputs, context)
