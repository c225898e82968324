"""What stands in for each source of a recipe, made of what is here or cheap to have."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from runner import lock as locks
from runner.checkpoint import Checkpoints
from runner.errors import Problem, RecipeError, StepError
from runner.files import digest_json
from runner.plan import KEY_LENGTH, key_parts
from runner.recipe import Recipe, Step
from runner.smoke import families, models, rows
from runner.stage import Context
from runner.store import Store, default_root

Note = Callable[[str], None]
DATA = {("process", "data")}
NONE_HERE = {("load", "adapters"), ("adapt", "adapter"), ("generate", "gguf")}
"""Roles for which a smoke run makes nothing up: adapters, and models in GGUF."""
LIGHT = (
    "config.json generation_config.json tokenizer* vocab* merges.txt special_tokens_map.json"
    " added_tokens.json chat_template* *.jinja *.model"
).split()
"""A model's configuration and tokenizer: some megabytes, and no weights."""


class StandIns:
    """Writes what stands in for each source, below a folder, and says what it is made of."""

    def __init__(self, recipe: Recipe, folder: Path, note: Note) -> None:
        self.recipe, self.folder, self.note = recipe, folder, note
        self.store = Store(recipe.store or default_root())
        self.locked = locks.locked(locks.read(recipe.path))
        self.places: dict[str, Path | None] = {}
        self.out_of_reach: set[str] = set()

    def write(self) -> dict[str, Path]:
        """By source, the folder or file that stands in for it."""
        return {step.name: self._of(step) for step in self.recipe.steps if step.stage.PARTS}

    def is_invented(self, step: Step) -> bool:
        """Whether rows had to be invented for a step that reads some."""
        return any(self.places.get(name) is None for name in step.inputs.get("data", ()))

    def _of(self, step: Step) -> Path:
        users = [*self._users(step)]
        if none_here := [user for user, role in users if (user.stage_name, role) in NONE_HERE]:
            fact = f"{none_here[0].name} takes {step.name}, for which a smoke run has nothing."
            raise RecipeError([Problem("--smoke", fact, "Leave that step out, or its role.")])
        self.places[step.name] = self._place(step)
        taken = [user for user, role in users if (user.stage_name, role) in DATA]
        if taken or (not users and getattr(step.options, "type", "") == "dataset"):
            return self._rows(step, taken[0] if taken else None)
        return self._model(step)

    def _users(self, step: Step) -> Iterator[tuple[Step, str]]:
        """The steps that take a source, and in which role."""
        for user in self.recipe.steps:
            for role, names in user.inputs.items():
                if step.name in names:
                    yield user, role

    def _place(self, step: Step) -> Path | None:
        """Where a source's files lie already: where the user has them, or in the store."""
        if step.options.path:
            return Path(step.options.path)
        try:
            options = step.stage.resolve(step.options, self.locked.get(step.name, {}))
        except StepError as error:  # the Hub does not say what it stands for
            self.note(f"{step.name}: {error.fact}")
            self.out_of_reach.add(step.name)
            return None
        key = digest_json(key_parts(replace(step, options=options), {}))[:KEY_LENGTH]
        entry = self.store.entry(key)
        if entry is None or step.stage.stale(options, entry.product, entry.record["facts"]):
            return None
        return Path(step.stage.restore(entry.product, {}).folder)

    def _rows(self, step: Step, user: Step | None) -> Path:
        """The first rows of data that is here; of other data, rows of the shape that is said."""
        target = self.folder / "data" / step.name / "rows.jsonl"
        place = self.places[step.name]
        if place:
            found = rows.first_of(place, user.options.split if user else None)
            self.note(f"{step.name}: the first {len(found)} rows")
        else:
            shape = self._shape(user)
            found = rows.invented(shape, user.options.columns if user else {})
            text = f"rows invented, of the shape {shape}; {_named(step)} is not here"
            self.note(f"{step.name}: {text}")
        rows.write(found, target)
        return target

    def _shape(self, user: Step | None) -> str:
        """What the recipe says of the columns; else what the training wants to learn from."""
        said = getattr(user.options, "shape", "auto") if user else "auto"
        wanted = [getattr(step.options, "objective", None) for step in self.recipe.steps]
        found = (rows.OF_OBJECTIVE[each] for each in wanted if each in rows.OF_OBJECTIVE)
        return said if said != "auto" else next(found, "messages")

    def _model(self, step: Step) -> Path:
        """By its own configuration and tokenizer; where these are out of reach, by its family."""
        target = self.folder / "models" / step.name
        said = f"{step.name}: a random model of 2 layers"
        if place := self.places[step.name] or self._fetched(step):
            kind = models.like(self._as_folder(place), target)
            self.note(f"{said}, {kind}; configuration and tokenizer are the real ones")
            return target
        family = families.of(_named(step))
        if family is None:
            fact = f"the configuration of {_named(step)} is not here, and cannot be fetched now."
            raise RecipeError([Problem(step.name, fact, "Once it was fetched, it is here.")])
        kind = models.of_family(family, target)
        self.note(
            f"{said}, {kind} with transformers' own settings and a tokenizer of bytes;"
            f" {_named(step)} is out of reach"
        )
        return target

    def _fetched(self, step: Step) -> Path | None:
        """Its small files, from the Hub cache or the Hub; None where they cannot be had now."""
        options = step.options
        if not options.repo or step.name in self.out_of_reach:
            return None
        from runner.sources import hub

        wanted = hub.Source(
            repo=options.repo,
            revision=options.revision,
            commit=options.commit,
            include=tuple(LIGHT),
        )
        draft = self.folder / "draft"
        try:
            return hub.bring(wanted, Context(draft, Checkpoints(draft, self.note), note=self.note))
        except StepError as error:
            self.note(f"{step.name}: {error.fact}")
            return None

    def _as_folder(self, place: Path) -> Path:
        """A folder with a model's files; of a single file (GGUF), one that leads to it."""
        if place.is_dir():
            return place
        folder = self.folder / "single"
        folder.mkdir(exist_ok=True)
        (folder / place.name).symlink_to(place)
        return folder


def _named(step: Step) -> str:
    """What a source is asked for by."""
    found = (getattr(step.options, name, None) for name in ("repo", "wheel", "url", "path"))
    return str(next(filter(None, found), step.name))
