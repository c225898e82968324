"""The registry: every stage by its name. A third party adds one by the entry-point group below."""

from importlib.metadata import entry_points

from runner.stage import Stage
from runner.stages import adapt, evaluate, fetch, generate, load, process, quantize, save

ENTRY_POINTS = "recipe_runner.stages"

STAGES: dict[str, Stage] = {
    "fetch": fetch,
    "process": process,
    "load": load,
    "adapt": adapt,
    "quantize": quantize,
    "generate": generate,
    "evaluate": evaluate,
    "save": save,
}


def known() -> dict[str, Stage]:
    """The stages of this package and of every installed package that brings some."""
    others = {point.name: point.load() for point in entry_points(group=ENTRY_POINTS)}
    return others | STAGES
