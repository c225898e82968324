"""What a run has made, read back from the store."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import files
from runner.composing import compose
from runner.errors import Problem, RecipeError
from runner.events import Event, Noted
from runner.execute import product
from runner.origins import short
from runner.plan import Plan, Planned, Verdict, plan
from runner.report import folder as folders
from runner.running import store_of
from runner.stages import known
from runner.store import Store

Note = Callable[[str], None]
LLAMA = "Its GGUF file, if it has one, is asked with engine=llama.cpp."


def model_of(run: Path, note: Note) -> Any:
    """The last model that a run has made; RecipeError where the store has it no more."""
    planned, store, done = _planned(run)
    if made := _giving("model", planned, done):
        return _product(run, planned, store, done, made[-1], note)
    raise RecipeError([Problem(short(run), "this run has made no model.", LLAMA)])


def gguf_of(run: Path, note: Note) -> Any:
    """The last files of a run with a GGUF file; RecipeError where the store has them no more."""
    planned, store, done = _planned(run)
    for name in reversed(_giving("files", planned, done)):
        found = _product(run, planned, store, done, name, note)
        if any(found.folder.rglob("*.gguf")):
            return found
    raise RecipeError([Problem(short(run), "this run has no GGUF file.", "Save one: format: gguf")])


def _giving(kind: str, planned: Plan, done: Mapping[str, Any]) -> list[str]:
    """The steps done that give a product of this kind, in their order."""
    steps = (each.step for each in planned.steps)
    return [each.name for each in steps if each.stage.GIVES == kind and each.name in done]


def product_of(run: Path, name: str, note: Note = lambda _: None) -> Any:
    """What a step of a run has made; RecipeError where the store has it no more."""
    planned, store, done = _planned(run)
    if name not in done:
        command = f"runner run {short(run / folders.RECIPE)}"
        raise RecipeError([Problem(short(run), f"{name} was not done.", "Go on:", command)])
    return _product(run, planned, store, done, name, note)


def _planned(run: Path) -> tuple[Plan, Store, Mapping[str, Any]]:
    """The plan of a run's recipe now, the store, and what the record says of each step done.

    What the run's recipe fetched stands for what the run has recorded of it, and nothing is asked
    of the network for that.
    """
    recipe = compose(str(run / folders.RECIPE), [], known())
    record = files.read_json(run / folders.RECORD) or {}
    store = store_of(recipe)
    planned = plan(recipe, store, (), record.get("sources", {}))
    return planned, store, record.get("steps", {})


def _product(
    run: Path,
    planned: Plan,
    store: Store,
    done: Mapping[str, Any],
    name: str,
    note: Note,
) -> Any:
    _check(run, planned.step(name), str(done[name]["key"]))

    def tell(event: Event) -> None:
        if isinstance(event, Noted):
            note(event.text)

    return product(planned, store, name, tell)


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
