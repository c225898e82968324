"""From plain values to a Recipe: typed options, parts of fetch, and who gives what to whom."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.options import Fault, Where, build, plain, unknown
from runner.origins import Origins
from runner.recipe import Recipe, Step
from runner.secrets import texts_with_secrets
from runner.stage import Need, Stage
from runner.sweep.where import problems
from runner.top import OF_ALL, Kept, Top

NAME = re.compile(r"\w[\w-]*", re.ASCII)
UNFIT = re.compile(r"[^\w-]+", re.ASCII)


def link(
    path: Path,
    values: Mapping[str, Any],
    removed: Collection[str],
    written: Origins,
    stages: Mapping[str, Stage],
    problems: list[Problem],
    known: "Known | None" = None,
) -> Recipe:
    """Check every value and connect the steps; RecipeError with all problems together.

    `known` holds what an earlier call has found of recipes that were written in the same places.
    """
    return _Linking(path, values, removed, written, stages, problems, known or Known()).recipe()


class Known:
    """Steps that were linked without a fault, so that what recipes share is linked once."""

    def __init__(self) -> None:
        self.clean: set[tuple[str, str]] = set()
        self.inputs: dict[tuple[Any, ...], Mapping[str, tuple[str, ...]]] = {}
        self.steps: dict[tuple[Any, ...], tuple[Step, dict[str, Any]]] = {}


class _Linking:
    def __init__(
        self,
        path: Path,
        values: Mapping[str, Any],
        removed: Collection[str],
        written: Origins,
        stages: Mapping[str, Stage],
        problems: list[Problem],
        known: Known,
    ) -> None:
        self.path, self.values, self.removed = path, values, removed
        self.written, self.stages, self.problems = written, stages, problems
        self.known, self.mappings = known, dict[str, dict[str, Any]]()
        self.steps: list[Step] = []
        self.faulty: set[str] = set()
        self.of_all: dict[str, Any] = {}

    def recipe(self) -> Recipe:
        """The linked recipe, or RecipeError."""
        tops = {f.name for f in fields(Top)}
        top, faults = build(Top, {k: v for k, v in self.values.items() if k in tops})
        if top:  # else a wrong one is the recipe's own fault, said once
            self.of_all = {name: getattr(top, name) for name in OF_ALL if name in self.values}
        self._report(faults)
        listed = self._listed()
        self._check_names(tops, listed)
        self._check_secrets()
        self._check_paths(top, listed)
        for name in listed:
            self._add(name)
        self._check_kept(top)
        self._check_launch(top)
        if self.problems:
            raise RecipeError(self.problems, self._sound())
        top = self._anchored(top, ())
        kept = top.store if isinstance(top.store, Kept) else Kept(path=top.store)
        name = top.name or UNFIT.sub("-", self.path.stem)
        resolved = plain(top) | {"name": name, "steps": listed}
        for name in ("sweep", "launch"):
            if getattr(top, name) is None:
                del resolved[name]
        for step in self.steps:
            parent, _, part = step.name.partition(".")
            written_out = self.mappings[step.name]
            if part:
                resolved.setdefault(parent, {"stage": step.stage_name})[part] = written_out
            else:
                resolved[parent] = {"stage": step.stage_name} | written_out
        return Recipe(
            name=resolved["name"],
            path=self.path,
            steps=tuple(self.steps),
            plain=resolved,
            store=kept.path,
            versions=top.versions,
            keep=kept.keep,
            sweep=top.sweep,
            launch=top.launch,
        )

    def _sound(self) -> Recipe:
        """What can be looked at further where something is at fault."""
        gone = self.faulty | {step.name for step in self.steps if step.options is None}
        return Recipe(self.path.stem, self.path, tuple(self.steps), {}).without(gone)

    def _check_paths(self, top: Top | None, listed: list[str]) -> None:
        """The names of a recipe, its steps and parts become names of files."""
        names: list[tuple[Where, str]] = [((name,), name) for name in listed]
        names += [
            ((step, str(part)), str(part))
            for step in listed
            if isinstance(value := self.values.get(step), Mapping) and self._has_parts(step)
            for part in value
        ]
        if top and top.name:
            names.append((("name",), top.name))
        for where, name in names:
            if not NAME.fullmatch(name):
                fact = f'"{name}" is no name: use letters, digits, "-" and "_".'
                self._report([Fault(where, fact)])

    def _check_kept(self, top: Top | None) -> None:
        """`store.keep` lists steps of this recipe."""
        keep = top.store.keep if top and isinstance(top.store, Kept) else ()
        names = [step.name for step in self.steps]
        for name in keep if isinstance(keep, tuple) else ():
            if name not in names:
                guess = did_you_mean(name, names) or f"The steps are: {listing(names)}."
                fact = f'store.keep: there is no step "{name}".'
                self._report([Fault(("store", "keep"), fact, guess)])

    def _check_launch(self, top: Top | None) -> None:
        """What is said of where jobs run fits the place, and the steps."""
        if top and top.launch:
            self._report(problems(top.launch, [step.name for step in self.steps]))

    def _has_parts(self, step: str) -> bool:
        stage = self.stages.get(self._stage_name(step) or "")
        return stage is not None and stage.PARTS

    def _listed(self) -> list[str]:
        steps = self.values.get("steps")
        names = [str(name) for name in steps] if isinstance(steps, list) else []
        if isinstance(steps, list) and not set(names) - set(self.removed):
            self._report([Fault(("steps",), "steps leaves nothing to do.")])
        known = [*self.values, *self.stages]
        for name in self.removed:
            if name not in names and name not in self.values:
                guess = did_you_mean(name, names) or f"The steps are: {listing(names)}."
                self._problem(f'override "~{name}"', f'there is no step "{name}".', guess)
        for index, name in enumerate(names):
            if name in names[:index]:
                fact = f'"{name}" stands in steps twice; give the second one a name of its own.'
                self._report([Fault(("steps", str(index)), fact)])
            elif self._stage_name(name) is None:
                fact = f'"{name}" is neither a stage nor a step that says `stage:`.'
                guess = did_you_mean(name, [k for k in known if k != name])
                guess = guess or f"The stages are: {listing([*self.stages])}."
                self._report([Fault(("steps", str(index)), fact, guess)])
        return [name for name in dict.fromkeys(names) if name not in self.removed]

    def _check_secrets(self) -> None:
        """A recipe is recorded, shared and kept in git, so no secret may stand in it."""
        texts = {name: json.dumps(value, default=repr) for name, value in self.values.items()}
        fresh = {name for name, text in texts.items() if (name, text) not in self.known.clean}
        found = [*texts_with_secrets({name: self.values[name] for name in fresh})]
        if not found:
            self.known.clean |= {(name, texts[name]) for name in fresh}
        for where in found:
            what = ".".join(where) or "the recipe"
            fact = f"{what} holds a token or a password, and recipes are recorded."
            guess = "Give it by the environment (HF_TOKEN), or by: hf auth login"
            self._report([Fault(where, fact, guess)])

    def _check_names(self, tops: Collection[str], listed: list[str]) -> None:
        """Whatever stands at the top of a recipe must be one of its steps or mean something."""
        for name, value in self.values.items():
            if name in tops or name in listed or name in self.removed or value is None:
                continue
            known = name in self.stages or (isinstance(value, Mapping) and "stage" in value)
            fact = (
                f'"{name}" is set but does not stand in steps.'
                if known
                else f'a recipe has no "{name}".'
            )
            guess = did_you_mean(name, [*tops, *self.stages, *listed]) if not known else ""
            self._report([Fault((name,), fact, guess)])

    def _stage_name(self, step: str) -> str | None:
        value = self.values.get(step)
        if isinstance(value, Mapping) and "stage" in value:
            return str(value["stage"])
        return step if step in self.stages else None

    def _add(self, name: str) -> None:
        stage_name, value = self._stage_name(name), self.values.get(name)
        if stage_name is None:
            return
        if stage_name not in self.stages:
            fact, names = f'there is no stage "{stage_name}".', [*self.stages]
            guess = did_you_mean(stage_name, names) or f"The stages are: {listing(names)}."
            self._report([Fault((name, "stage"), fact, guess)])
            return
        if value is not None and not isinstance(value, Mapping):
            self._report([Fault((name,), f"{name} must be a mapping of options.")])
            return
        given = {str(k): v for k, v in (value or {}).items() if k != "stage"}
        if not self.stages[stage_name].PARTS:
            self._add_step((name,), stage_name, given)
            return
        for part, options in given.items():
            if isinstance(options, Mapping):
                self._add_step((name, part), stage_name, {str(k): v for k, v in options.items()})
            elif options is not None:
                fact = f"{name}.{part} must be a mapping: {name} takes named parts."
                self._report([Fault((name, part), fact)])
        if not given:
            self._report([Fault((name,), f"{name} has no parts, so it would do nothing.")])

    def _add_step(self, where: Where, stage_name: str, given: dict[str, Any]) -> None:
        """Link a step, or take the one that an earlier recipe linked of the same values and steps.

        With which roles it was filled does not change with values; what was checked of the steps
        that fill them does.
        """
        earlier = tuple((step.name, step.stage_name) for step in self.steps)
        same = (
            where,
            stage_name,
            json.dumps(given, default=repr),
            *map(self.values.get, OF_ALL),
            earlier,
        )
        inputs = self.known.inputs.get(same)
        if inputs is None or (found := self.known.steps.get((same, *self._givers(inputs)))) is None:
            before = len(self.problems)
            step = self._linked(where, stage_name, given)
            found = step, {} if step.options is None else _as_mapping(step)
            if len(self.problems) > before:
                self.faulty.add(step.name)
            if not self.problems:
                self.known.inputs[same] = step.inputs
                self.known.steps[same, *self._givers(step.inputs)] = found
        self.steps.append(found[0])
        self.mappings[found[0].name] = found[1]

    def _givers(self, inputs: Mapping[str, tuple[str, ...]]) -> list[int]:
        """The very steps that fill roles; those that are known are never let go of."""
        by_name = {step.name: id(step) for step in self.steps}
        return [by_name[name] for names in inputs.values() for name in names]

    def _linked(self, where: Where, stage_name: str, given: dict[str, Any]) -> Step:
        stage = self.stages[stage_name]
        roles = {role: given.pop(role) for role in stage.NEEDS if role in given}
        names = {f.name for f in fields(stage.Options)}
        given |= {n: self.of_all[n] for n in names & self.of_all.keys() - given.keys()}
        options, faults = build(stage.Options, given, where)
        also = tuple(stage.NEEDS)
        self._report(
            unknown(stage.Options, where, fault.where[-1], also)
            if fault.is_key and fault.where[:-1] == where
            else fault
            for fault in faults
        )
        inputs = self._inputs(where, stage, roles)
        if options is not None:
            options = self._anchored(options, where)
            by_role = {
                role: tuple(s for s in self.steps if s.name in names)
                for role, names in inputs.items()
            }
            self._report(
                replace(fault, where=(*where, *fault.where))
                for fault in stage.check(options, by_role)
            )
        return Step(".".join(where), stage_name, stage, options, inputs)

    def _inputs(
        self, where: Where, stage: Stage, roles: Mapping[str, Any]
    ) -> dict[str, tuple[str, ...]]:
        found = {}
        for role, need in stage.NEEDS.items():
            if roles.get(role) is not None:
                found[role] = self._named(where, role, need, roles[role])
                continue
            givers = [step.name for step in self.steps if _gives(step, need)]
            if need.named or (not givers and need.optional):
                continue
            if not givers:
                self._nobody_gives(where, need)
            found[role] = tuple(givers if need.many and not need.part else givers[-1:])
        return found

    def _named(self, where: Where, role: str, need: Need, value: Any) -> tuple[str, ...]:
        """The steps that the recipe names for a role, each checked."""
        names = [str(each) for each in value] if isinstance(value, list) else [str(value)]
        earlier = {step.name: step for step in self.steps}
        fitting = [name for name, step in earlier.items() if step.stage.GIVES == need.kind]
        for index, name in enumerate(names):
            if name not in fitting:
                why = (
                    f"gives {earlier[name].stage.GIVES}, and {role} takes {need.kind}"
                    if name in earlier
                    else "is no earlier step"
                )
                guess = did_you_mean(name, fitting) or f"It takes one of: {listing(fitting)}."
                self._report([Fault((*where, role), f'{role}: "{name}" {why}.', guess)])
            elif need.many and name in names[:index]:
                self._report([Fault((*where, role), f'{role} names "{name}" twice.')])
        if not names and need.many and not need.optional:
            self._report([Fault((*where, role), f"{role} names no step, and needs one.")])
        if len(names) != 1 and not need.many:
            self._report([Fault((*where, role), f"{role} takes one step, not {len(names)}.")])
        return tuple(names)

    def _nobody_gives(self, where: Where, need: Need) -> None:
        part = f" named {need.part}" if need.part else ""
        givers = [name for name, stage in self.stages.items() if stage.GIVES == need.kind]
        near = [step.name for step in self.steps if step.stage.GIVES == need.kind]
        guess = did_you_mean(f"fetch.{need.part}", near) if need.part else ""
        fact = f"{'.'.join(where)} needs {need.kind}{part}, and no earlier step gives it."
        self._report([Fault(where, fact, guess or f"It comes from: {listing(givers)}.")])

    def _anchored(self, options: Any, where: Where) -> Any:
        """Make every path absolute, and report the files to be read that are not there."""
        changed: dict[str, Any] = {}
        for f in fields(options):
            value = getattr(options, f.name)
            if beside := f.metadata.get("beside"):
                folder = self.written.find((*where, f.name)).folder
                changed[f.name] = tuple(_placed(each, beside, folder) for each in value)
            elif is_dataclass(value):
                changed[f.name] = self._anchored(value, (*where, f.name))
            elif isinstance(value, Path):
                origin = self.written.find((*where, f.name))
                writes = f.metadata.get("from_cwd", False)
                path = (Path.cwd() if writes else origin.folder) / value
                if not writes and not path.exists():
                    siblings = [p.name for p in path.parent.glob("*")]
                    guess = did_you_mean(path.name, siblings)
                    self._problem(origin.text, f"{path} does not exist.", guess)
                changed[f.name] = path
        return replace(options, **changed) if changed else options

    def _report(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            step = fault.where[0] if fault.where else ""
            stage = self._stage_name(step) if step else None
            command = f"See: runner show {stage}" if fault.is_key and stage in self.stages else ""
            where = self.written.find(self._place(fault.where)).text
            self._problem(where, fault.fact, fault.guess, command)

    def _place(self, where: Where) -> Where:
        """A step that the recipe says nothing about stands in its list of steps."""
        steps = self.values.get("steps")
        if where and where[0] not in self.values and isinstance(steps, list) and where[0] in steps:
            return ("steps", str(steps.index(where[0])))
        return where

    def _problem(self, where: str, fact: str, guess: str = "", command: str = "") -> None:
        self.problems.append(Problem(where, fact, guess, command))


def _gives(step: Step, need: Need) -> bool:
    named = not need.part or step.name.endswith(f".{need.part}")
    return step.stage.GIVES == need.kind and named


def _as_mapping(step: Step) -> dict[str, Any]:
    """A step as a recipe would write it out in full."""
    roles: dict[str, Any] = {
        role: list(names) if step.stage.NEEDS[role].many else names[0]
        for role, names in step.inputs.items()
        if names or step.stage.NEEDS[role].many
    }
    options: dict[str, Any] = plain(step.options)
    return roles | options


def _placed(each: Any, name: str, folder: Path) -> Any:
    """A mapping or a dataclass whose path of that name is absolute."""
    if is_dataclass(each) and not isinstance(each, type):
        return replace(each, **{name: str(folder / str(getattr(each, name)))})
    return each | {name: str(folder / str(each[name]))} if name in each else each
