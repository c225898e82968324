"""A sweep whose jobs Optuna proposes one after another, as scores come in.

Each job is composed and written into the manifest before it starts. What is known of a trial is in
three places, written in this order: its proposal in the study's journal, its job in the manifest,
its steps in the store. A trial without a result in the journal is taken up again by the next start:
nothing is lost, and nothing is asked for twice.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import metrics, upkeep
from runner.errors import Problem, RecipeError, did_you_mean, listing
from runner.launch import Added, Said, Tell
from runner.stage import Facts, Stage
from runner.store import Store
from runner.sweep import manifest as manifests
from runner.sweep import pruned, results, standing
from runner.sweep.expand import Expansion, expand
from runner.sweep.graph import Graph
from runner.sweep.manifest import Job, Manifest
from runner.sweep.pruned import Pruned
from runner.sweep.study import Study

LEASE = "search.lease"
CHANGED = "the recipe, a preset or what it reads is not what it was when the search began."
UNDO = "Undo the change to go on; or start a new search by the recipe's name, and share its steps."


@dataclass(frozen=True)
class Open:
    """A trial that has no result yet, and its job."""

    trial: Any
    job: Job


class Search:
    """What is asked for, what is open, and what has come of it. To be used in a `with` block."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        stages: Mapping[str, Stage],
        locked: Mapping[str, Facts],
        tell: Tell,
        at_once: int,
    ) -> None:
        self.manifest, self.folder, self.stages = manifest, folder, stages
        self.locked, self.tell, self.at_once = locked, tell, at_once
        self.store: Store = standing.store_of(manifest)
        self.expansion = self._expansion()
        self.study = Study(folder, manifest.recipe, manifest.settings, self.expansion.space)
        self.pruned = pruned.read(folder)
        self.open: list[Open] = []
        self.used = ExitStack()
        self.begun = False
        self.graph = self._graph()

    def __enter__(self) -> "Search":
        return self

    def __exit__(self, *error: object) -> None:
        self.used.close()

    def _expansion(self) -> Expansion:
        """The space, from the words of the first start; RecipeError where it is another now."""
        found = expand(str(self.manifest.path), self.manifest.words, self.stages)
        found = replace(found, settings=self.manifest.settings)
        if manifests.plan(found, self.manifest.words, self.locked).frozen != self.manifest.frozen:
            raise RecipeError([Problem(str(self.manifest.path), CHANGED, UNDO)])
        return found

    def _graph(self) -> Graph:
        """What is missing of the jobs that were not given up."""
        jobs = tuple(job for job in self.manifest.jobs if job.id not in self.pruned)
        manifest = replace(self.manifest, jobs=jobs)
        return Graph(manifest, self.stages, standing.done(manifest, self.store, self.stages))

    def go_on(self) -> None:
        """Take in what is done, and add jobs to the graph as long as there is place for some."""
        if not self.begun:
            self.begun = True
            for trial in self.study.unfinished():
                self._start(trial)
        for each in [*self.open]:
            self._settle(each)
        while len(self.open) < self.at_once and len(self.study) < self.manifest.settings.trials:
            self._start(self.study.ask())

    # A trial begins

    def _start(self, trial: Any) -> None:
        """Write its job down and add it to the graph; maybe it is over at once."""
        try:
            composed = self.expansion.job(self.study.changes(trial))
        except RecipeError as error:
            self.tell(Said(0, f"trial {trial.number} is left out: {error}"))
            self.study.refuse(trial)
            self._write_down(trial, self.manifest, "")
            return
        one = manifests.plan_one(self.expansion, self.manifest, composed, self.locked)
        [job] = one.jobs
        self._write_down(trial, manifests.joined(self.manifest, one), job.id)
        job = next(each for each in self.manifest.jobs if each.id == job.id)
        if job.id in self.pruned:
            self._repeat(trial, self.pruned[job.id])
            return
        done = standing.done(one, self.store, self.stages)
        self.graph.add(self.manifest, [job], done)
        self.open.append(Open(trial, job))
        self._use()
        self._tell_of_it()
        self._replay(self.open[-1])
        if self.open and self.open[-1].trial is trial:
            self._settle(self.open[-1])

    def _write_down(self, trial: Any, manifest: Manifest, job: str) -> None:
        trials = [*manifest.trials, *[""] * (trial.number + 1 - len(manifest.trials))]
        trials[trial.number] = job
        self.manifest = replace(manifest, trials=tuple(trials), settings=self.manifest.settings)
        manifests.save(self.manifest, self.folder)
        keys = [*self.manifest.keys]
        upkeep.keep_for_lock(self.store, self.folder / manifests.NAME, keys)

    def _use(self) -> None:
        """Say to whoever clears the store what is needed now, before what was is let go."""
        used = ExitStack()
        keys = {row.key for each in self.open for row in self.manifest.steps(each.job)}
        used.enter_context(upkeep.using(self.store, keys))
        self.used.close()
        self.used = used

    def _tell_of_it(self) -> None:
        done = [key for key in self.manifest.keys if key in self.graph.rows and self._is_done(key)]
        self.tell(Added(self.manifest, standing.names(self.manifest, done)))

    def _is_done(self, key: str) -> bool:
        return self.graph.is_done(key)

    def _repeat(self, trial: Any, before: Pruned) -> None:
        """The same job was given up already, and would be again."""
        for step, value in before.reported.items():
            self.study.report(trial, step, value)
        self.study.prune(trial)

    def _replay(self, each: Open) -> None:
        """What its steps measured that were made for other jobs, as if it were measured now."""
        for row in self.manifest.steps(each.job):
            name = self.watched(row.key)
            entry = self.store.entry(row.key) if name and self._is_done(row.key) else None
            for measured in metrics.current(metrics.read(entry.metrics)) if entry else ():
                step, value = measured.get("step"), measured.get(str(name))
                if isinstance(step, int) and step > 0 and isinstance(value, (int, float)):
                    self.measured(row.key, step, value)

    # A trial ends

    def _settle(self, each: Open) -> None:
        """Take its scores in, if all its steps are done; a failed one is tried again some day."""
        keys = [row.key for row in self.manifest.steps(each.job)]
        if all(map(self._is_done, keys)):
            self.study.complete(each.trial, self._scores(each.job))
            self.open.remove(each)
        elif any(key in self.graph.lost for key in keys):
            self.open.remove(each)

    def _scores(self, job: Job) -> list[float]:
        keys = [row.key for row in self.manifest.steps(job)]
        entries = {key: entry for key in keys if (entry := self.store.entry(key))}
        alone = replace(self.manifest, jobs=(job,))
        now = standing.Standing(alone, entries, frozenset(), {})
        [row] = results.table(now, self.stages)
        found = {name: results.score(row, name) for name in self.manifest.settings.objectives}
        for name, value in found.items():
            if value is None:
                raise RecipeError([_no_figure(name, row)])
        return [value for value in found.values() if value is not None]

    # What is measured meanwhile

    def watched(self, key: str) -> str | None:
        """The figure that is to be told as this step measures it; None where nobody asks."""
        settings, name = self.manifest.settings, self.graph.rows[key].name
        if settings.pruner is None or not settings.report.startswith(f"{name}."):
            return None
        return settings.report.removeprefix(f"{name}.")

    def measured(self, key: str, step: int, value: float) -> bool:
        """Take a figure of a step in, and say whether to give the step up."""
        for each in [each for each in self.open if key in self._keys(each)]:
            if self.study.report(each.trial, step, value):
                self._prune(each)
        return key not in self._wanted()

    def _prune(self, each: Open) -> None:
        """Give a job up; what it shares with others goes on."""
        reported = self.study.reported(each.trial)
        found = Pruned(each.job.id, self.manifest.settings.report, reported)
        pruned.write(self.folder, found)
        self.pruned[each.job.id] = found
        self.study.prune(each.trial)
        self.open.remove(each)
        self.graph.give_up(self._keys(each) - self._wanted())
        self.tell(Said(0, f"trial {each.trial.number} is {found.why}"))

    def _keys(self, each: Open) -> set[str]:
        return {row.key for row in self.manifest.steps(each.job)}

    def _wanted(self) -> set[str]:
        return {key for each in self.open for key in self._keys(each)}


def _no_figure(name: str, row: Mapping[str, Any]) -> Problem:
    names = [*results.figures(row)]
    guess = did_you_mean(name, names) or f"Figures are: {listing(names)}."
    return Problem("sweep.objective", f'no step has given a score "{name}".', guess)
