"""What a run has made, read back from the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner import files
from runner.composing import compose
from runner.errors import Problem, RecipeError
from runner.events import Event, Noted
from runner.execute import product
from runner.origins import short
from runner.plan import Planned, Verdict, plan
from runner.report import folder as folders
from runner.run import store_of
from runner.stages import known


def model_of(run: Path, note: Callable[[str], None]) -> Any:
    """The last model that a run has made; RecipeError where the store has it no more.

    What the run's recipe fetched stands for what the run has recorded of it, and nothing is asked
    of the network for that.
    """
    recipe = compose(str(run / folders.RECIPE), [], known())
    record = files.read_json(run / folders.RECORD) or {}
    store = store_of(recipe)
    planned = plan(recipe, store, (), record.get("sources", {}))
    done = record.get("steps", {})
    made = [p for p in planned.steps if p.step.stage.GIVES == "model" and p.step.name in done]
    if not made:
        raise RecipeError([Problem(short(run), "this run has made no model.")])
    last = made[-1]
    _check(run, last, str(done[last.step.name]["key"]))

    def tell(event: Event) -> None:
        if isinstance(event, Noted):
            note(event.text)

    return product(planned, store, last.step.name, tell)


def _check(run: Path, last: Planned, key: str) -> None:
    """It must be there as the run has made it."""
    if last.key != key:
        fact = f"{last.step.name} would be another one today: its files or the runner changed."
    elif last.verdict is not Verdict.REUSE or last.dropped:
        fact = f"what {last.step.name} made is not in the store: {last.reason}."
    else:
        return
    command = f"runner run {short(run / folders.RECIPE)}"
    raise RecipeError([Problem(short(run), fact, "Make it again:", command)])
