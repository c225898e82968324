"""Optuna's study of a sweep: what it proposes, and a journal of it that outlives kills.

    sweeps/<recipe>/<id>/study.journal   every trial, as Optuna's JournalStorage writes it

Every draw has a seed of its own, made of the sweep's, the trial's number and what is drawn: so a
search that is killed and gone on with proposes what an undisturbed one does.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.changes import Change
from runner.errors import did_you_mean, listing
from runner.files import digest_json
from runner.sweep.settings import Sweep
from runner.sweep.space import Dimension, Space

NAME = "study.journal"
SAMPLERS = {
    "tpe": "TPESampler",
    "gp": "GPSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
    "qmc": "QMCSampler",
    "random": "RandomSampler",
}
"""What `sweep.sampler` may name. CMA-ES is none of them: it keeps its state as a pickle."""
PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive-halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
"""What `sweep.pruner` may name."""
SEQUENCES = ("qmc",)
"""Samplers that go through one sequence, so that all draws have the same seed."""


def sampler(settings: Sweep, draw: int) -> Any:
    """The sampler for one draw; TypeError or ValueError where the settings are not its own."""
    from optuna import samplers

    name, given = _named(settings.sampler, SAMPLERS)
    seed = settings.seed if name in SEQUENCES else draw
    with _quiet():
        return getattr(samplers, SAMPLERS[name])(**{"seed": seed, **given})


def pruner(settings: Sweep) -> Any:
    """The pruner; TypeError or ValueError where the settings are not its own."""
    from optuna import pruners

    if settings.pruner is None:
        return pruners.NopPruner()
    name, given = _named(settings.pruner, PRUNERS)
    with _quiet():
        return getattr(pruners, PRUNERS[name])(**given)


def _named(asked: str | Mapping[str, Any], valid: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """A name, and the settings beside it."""
    given = {"name": asked} if isinstance(asked, str) else dict(asked)
    name = str(given.pop("name", ""))
    if name not in valid:
        guess = did_you_mean(name, valid) or f"There are: {listing([*valid])}"
        raise ValueError(f'there is no "{name}". {guess}')
    return name, given


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna warns of all that it may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Study:
    """The trials of a search. One process has it at a time."""

    def __init__(self, folder: Path, name: str, settings: Sweep, space: Space) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.settings, self.space, self.states = settings, space, optuna.trial.TrialState
        path = folder / NAME
        _mend(path)
        with _quiet():
            self.study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path), _Alone())),
                study_name=name,
                directions=[*settings.objectives.values()],
                sampler=sampler(settings, 0),
                pruner=pruner(settings),
                load_if_exists=True,
            )
        self.sign = 1 if "minimize" in settings.objectives.values() else -1

    def __len__(self) -> int:
        return len(self.study.get_trials(deepcopy=False))

    def unfinished(self) -> list[Any]:
        """The trials that were begun and have no result: in flight at a kill, or failed."""
        from optuna.trial import Trial

        found = self.study.get_trials(deepcopy=False, states=[self.states.RUNNING])
        trials = []
        for each in found:
            self._seed(each.number, "")
            trials.append(Trial(self.study, each._trial_id))
        return trials

    def ask(self) -> Any:
        """A new trial."""
        self._seed(len(self), "")
        with _quiet():
            return self.study.ask()

    def changes(self, trial: Any) -> tuple[Change, ...]:
        """What it proposes; of one that was begun before, what it proposed then."""
        with _quiet():
            return self.space.whole([self._chosen(trial, each) for each in self.space.dimensions])

    def _chosen(self, trial: Any, dimension: Dimension) -> tuple[Change, ...]:
        """The value for one dimension, and the journal has it."""
        self._seed(trial.number, dimension.name)
        name, span, choices = dimension.name, dimension.span, dimension.choices
        if span is not None:
            suggest = trial.suggest_int if span.is_whole else trial.suggest_float
            return (dimension.axes[0].at(suggest(name, span.low, span.high, log=span.is_log)),)
        if len(choices) == 1:
            return choices[0]
        if even := dimension.progression:
            suggest = trial.suggest_int if isinstance(even.start, int) else trial.suggest_float
            value = suggest(name, even.start, even.stop, step=even.step)
            return min(choices, key=lambda each: abs(each[0].value - value))
        labels = [_label(each) for each in choices]
        return choices[labels.index(trial.suggest_categorical(name, [*dict.fromkeys(labels)]))]

    def _seed(self, number: int, name: str) -> None:
        what = digest_json([self.settings.seed, number, name])
        self.study.sampler = sampler(self.settings, int(what[:8], 16))

    def reported(self, trial: Any) -> dict[int, float]:
        """What was reported of it so far, by step."""
        return {
            step: self.sign * value
            for step, value in self._frozen(trial).intermediate_values.items()
        }

    def report(self, trial: Any, step: int, value: float) -> bool:
        """Take in how far it is, and say whether to give it up.

        Of a step before the last one that was reported nothing is said twice.
        """
        known = self._frozen(trial).intermediate_values
        if step < max(known, default=0):
            return False
        with _quiet():
            if step not in known:
                trial.report(self.sign * value, step)
            return bool(trial.should_prune())

    def complete(self, trial: Any, values: Sequence[float]) -> None:
        """It has its scores, one for each objective; such as are no numbers count as none."""
        with _quiet():
            if all(map(math.isfinite, values)):
                self.study.tell(trial.number, [*values])
            else:
                self.study.tell(trial.number, state=self.states.FAIL)

    def prune(self, trial: Any) -> None:
        """It is given up."""
        with _quiet():
            self.study.tell(trial.number, state=self.states.PRUNED)

    def refuse(self, trial: Any) -> None:
        """What it proposes is no recipe."""
        self.study.tell(trial.number, state=self.states.FAIL)

    def _frozen(self, trial: Any) -> Any:
        return self.study.get_trials(deepcopy=False)[trial.number]


def _label(changes: Sequence[Change]) -> str:
    """Values side by side as Optuna's own tools show them."""
    return " ".join(change.text.partition("=")[2] for change in changes)


def _mend(path: Path) -> None:
    """A line that a kill has torn counts as never written."""
    if path.exists():
        with open(path, "rb+") as file:
            text = file.read()
            file.truncate(text.rfind(b"\n") + 1)


class _Alone:
    """No lock: the sweep's own lease keeps others off, and no kill leaves it behind."""

    def acquire(self) -> bool:
        """Go on."""
        return True

    def release(self) -> None:
        """Nothing was held."""
