"""A run as Python and notebooks see it: what its folder says, and what the store has of it."""

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from runner import results
from runner.errors import Problem, RecipeError
from runner.report import folder as folders
from runner.report import html


class Step(folders.RunStep):
    """What became of one step, and what it made."""

    @cached_property
    def product(self) -> Any:
        """What it made, as a later step would get it, read back from the store when asked for.

        Files, a Dataset, a Model (`.model`, `.tokenizer`), rows or scores (`runner/products.py`).
        RecipeError where the store has it no more, with the command that makes it again.
        """
        return results.product_of(self.run.folder, self.name)

    def rows(self) -> list[dict[str, Any]]:
        """The rows of what it made: answers, what each row scored, or the tokens trained on.

        RecipeError for a step that gives a model or files, which have none.
        """
        if self.gives == "text":
            return list(self.product)
        if self.gives == "scores":
            return list(self.product["rows"])
        if self.gives == "dataset":
            return list(self.product.train)
        fact = f"{self.name} gives {self.gives}, which has no rows."
        raise RecipeError([Problem("", fact, f"What it made is in step({self.name!r}).product.")])


class Run(folders.Run):
    """One run: `step(name)`, `scores`, `seconds`, `ending`, `record`, and its `folder`."""

    def step(self, name: str) -> Step:
        """The step of that name; RecipeError where there is none."""
        found = super().step(name)
        return Step(**{each.name: getattr(found, each.name) for each in fields(found)})

    @property
    def report(self) -> Path:
        """Its page, `report.html`, made now if it is not there; it opens in any browser."""
        path = self.folder / folders.REPORT
        return path if path.exists() else html.write(self.folder)


def read(folder: Path) -> Run:
    """The run of a folder."""
    found = folders.read(folder)
    return Run(found.folder, found.record)
