"""The one loop that runs a plan: reuse what is done, make the rest, keep each step as it ends."""

import errno
import gc
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from shutil import copytree
from threading import Lock, Thread
from typing import Any

from runner import room, upkeep
from runner.errors import StepError, Stopped
from runner.files import digest_json
from runner.plan import Plan, Planned, Verdict, needed, versions
from runner.secrets import masked
from runner.stage import Context
from runner.store import Draft, Entry, Store

REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS}
"""What a file system says when it is at fault, and neither the step nor its data."""


@dataclass(frozen=True)
class Outcome:
    """What became of one step."""

    planned: Planned
    verdict: Verdict
    reason: str
    seconds: float
    entry: Entry


@dataclass(frozen=True)
class Started:
    """A step begins to run."""

    planned: Planned


@dataclass(frozen=True)
class Progressed:
    """A step has come this far; `figures` are what the moment looks like (loss, rate)."""

    step: str
    done: float
    total: float
    unit: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Noted:
    """A step (or the run, where the name is empty) has something to say."""

    step: str
    text: str


@dataclass(frozen=True)
class Dropped:
    """A step's files were let go, for the recipe does not keep them and nothing needs them."""

    step: str
    size: int


@dataclass(frozen=True)
class Measured:
    """A row of figures over time."""

    step: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A step is done."""

    outcome: Outcome


Event = Started | Progressed | Noted | Measured | Finished | Dropped
Tell = Callable[[Event], None]


def execute(
    plan: Plan, store: Store, tell: Tell, stop_signal: Callable[[], str | None]
) -> list[Outcome]:
    """Run a plan to its end and return what became of every step, in order."""
    run = _Execution(plan, store, tell, stop_signal)
    for group in _side_by_side(plan.steps):
        run.settle_all(group)
    return [run.outcomes[planned.step.name] for planned in plan.steps]


def _side_by_side(steps: Sequence[Planned]) -> Iterator[list[Planned]]:
    """The steps in order; neighbours that bring files from outside come together."""
    for brings, found in groupby(steps, key=lambda p: p.step.stage.PARTS and not p.step.inputs):
        group = list(found)
        yield from [group] if brings else ([each] for each in group)


class _Execution:
    """The products in memory while a plan runs, and how each of them is come by."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        tell: Tell,
        stop_signal: Callable[[], str | None],
    ) -> None:
        self.plan, self.store = plan, store
        self.told, self.telling, self.stop_signal = tell, Lock(), stop_signal
        self.held: dict[str, Any] = {}
        self.lent: list[str] = []
        self.read: dict[str, tuple[Entry, Mapping[str, Any]]] = {}
        self.outcomes: dict[str, Outcome] = {}

    def settle_all(self, group: Sequence[Planned]) -> None:
        """See to it that steps are done; of several, each in a thread of its own.

        Where one fails the others stop as by a signal, and what they have is kept.
        """
        if len(group) == 1 or not any(p.verdict is not Verdict.REUSE for p in group):
            for planned in group:
                self.settle(planned)
        else:
            self._settle_in_threads(group)
        self._let_go(after=group[-1])
        self._drop_files(after=group[-1])

    def _settle_in_threads(self, group: Sequence[Planned]) -> None:
        failed: list[BaseException] = []
        asked_to_stop, self.stop_signal = self.stop_signal, self._stop_or_failed(failed)

        def settle(planned: Planned) -> None:
            try:
                self.settle(planned)
            except BaseException as error:
                failed.append(error)

        threads = [Thread(target=settle, args=(planned,), daemon=True) for planned in group]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)  # a second Ctrl-C comes through here
        self.stop_signal = asked_to_stop
        if failed:
            raise failed[0]

    def _stop_or_failed(self, failed: Sequence[BaseException]) -> Callable[[], str | None]:
        asked = self.stop_signal
        return lambda: asked() or ("SIGTERM" if failed else None)

    def settle(self, planned: Planned) -> None:
        """See to it that a step is done."""
        self._stop_if_asked()
        entry = self.store.entry(planned.key)
        if planned.dropped:
            entry = entry or self.store.remains(planned.key)
        if planned.verdict is Verdict.REUSE and entry:
            outcome = Outcome(planned, Verdict.REUSE, planned.reason, 0.0, entry)
        else:
            room.check(self.plan, self.store, self.plan.steps.index(planned))
            outcome = self._make(planned)
        self.store.remember(self.plan.recipe.name, planned.step.name, planned.key, planned.parts)
        self._finish(outcome)

    def tell(self, event: Event) -> None:
        """Pass an event on, one at a time."""
        with self.telling:
            self.told(event)

    def product(self, name: str, *, consume: bool) -> Any:
        """A step's product, from memory or from the store; consumed, it is nobody else's.

        What a running step has borrowed is not consumed under its hands (by an input that must be
        restored or made again on the way): the consumer gets another one from the store.
        """
        planned = self.plan.step(name)
        if not consume:
            if name not in self.held:
                self.held[name] = self._restore(planned)
            self.lent.append(name)
            return self.held[name]
        if name in self.held and name not in self.lent:
            return self.held.pop(name)
        return self._restore(planned)

    def _restore(self, planned: Planned) -> Any:
        """Read a product back, every byte checked; a damaged one is made again first."""
        step = planned.step
        entry = self.store.entry(planned.key)
        fault = (entry.damage() or self._staleness(step.name, entry)) if entry else "it is gone"
        if entry is None or fault:
            self.tell(Noted(step.name, f"the kept result is damaged ({fault}): made again"))
            reason = f"the kept result was damaged: {fault}"
            old = str(entry.record["id"]) if entry else None
            again = replace(planned, verdict=Verdict.RUN, reason=reason, replaces=old)
            outcome = self._make(again)
            self._finish(outcome)
            entry = outcome.entry
            if step.name in self.held and step.name not in self.lent:
                return self.held.pop(step.name)
        self.read[step.name] = entry, entry.seen()
        return step.stage.restore(entry.product, Inputs(self, planned))

    def _finish(self, outcome: Outcome) -> None:
        self.outcomes[outcome.planned.step.name] = outcome
        self.tell(Finished(outcome))

    def _make(self, planned: Planned) -> Outcome:
        """Run a step, unless somebody else made it while we waited for the lease."""
        name, begun = planned.step.name, time.monotonic()
        self.tell(Started(planned))

        def on_wait(text: str) -> None:
            self.tell(Noted(name, text))

        with self.store.lease(planned.key, on_wait, self._stop_if_asked):
            found = self.store.entry(planned.key)
            if found and found.record["id"] != planned.replaces:
                waited = time.monotonic() - begun
                reason = "made by another run meanwhile"
                return Outcome(planned, Verdict.REUSE, reason, waited, found)
            if planned.fresh:
                self.store.drop_draft(planned.key)
            entry = self._run(planned, self.store.draft(planned.key))
        return Outcome(planned, planned.verdict, planned.reason, time.monotonic() - begun, entry)

    def _run(self, planned: Planned, draft: Draft) -> Entry:
        step, begun = planned.step, time.monotonic()

        def note(text: str) -> None:
            self.tell(Noted(step.name, text))

        context = Context(
            draft=draft.work,
            checkpoint=draft.checkpoints(note),
            progress=lambda done, total, unit, **figures: self.tell(
                Progressed(step.name, done, total, unit, figures)
            ),
            note=note,
            metrics=lambda row: self.tell(Measured(step.name, row)),
            stop_signal=self.stop_signal,
        )
        borrowed_before = len(self.lent)
        try:
            with ExitStack() as used:
                context.keep_part = partial(self._part, planned, used)
                product = step.stage.run(step.options, Inputs(self, planned), context)
        except StepError as error:
            error.step = error.step or step.name
            raise
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            failure = StepError(f"{error.strerror}: {error.filename or 'while it wrote or read'}.")
            failure.step = step.name
            raise failure from error
        finally:
            del self.lent[borrowed_before:]
        self._check_what_was_read(planned)
        entry = self.store.commit(
            draft,
            lambda folder: step.stage.save(product, folder),
            {
                "recipe": self.plan.recipe.name,
                "step": step.name,
                "parts": planned.parts,
                "facts": masked(context.facts),
                "seconds": round(time.monotonic() - begun, 3),
                "versions": versions(),
            },
            planned.replaces,
        )
        if step.stage.HOLDS:
            self.held[step.name] = product
        return entry

    def _check_what_was_read(self, planned: Planned) -> None:
        """Where an input was changed while the step read it, nothing of the step's work counts."""
        number = self.plan.steps.index(self.plan.step(planned.step.name))
        asked = needed([*self.plan.steps[:number], planned], begin=number)
        for name in asked & {*self.read}:
            entry, seen = self.read[name]
            fault = entry.damage() if entry.seen() != seen else self._staleness(name, entry)
            if fault:
                self.store.drop_draft(planned.key)
                error = StepError(f"its input {name} changed while it ran: {fault}. Run again.")
                error.step = planned.step.name
                raise error

    def _staleness(self, name: str, entry: Entry) -> str | None:
        """What is wrong with what a result keeps outside the store."""
        step = self.plan.step(name).step
        return step.stage.stale(step.options, entry.product, entry.record["facts"])

    def _let_go(self, after: Planned) -> None:
        """Drop the products that no later step will ask for."""
        later = self.plan.steps[self.plan.steps.index(after) + 1 :]
        wanted = {
            name
            for planned in later
            if planned.verdict is not Verdict.REUSE
            for names in planned.step.inputs.values()
            for name in names
        }
        if gone := [name for name in self.held if name not in wanted]:
            for name in gone:
                del self.held[name]
            gc.collect()
            torch: Any = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _part(
        self,
        planned: Planned,
        used: ExitStack,
        name: str,
        options: Mapping[str, Any],
        roles: Collection[str],
        make: Callable[[Path], None],
    ) -> Path:
        """Find or make a part of a step's work; it stays for as long as `used` is open."""
        recipe, step = self.plan.recipe.name, f"{planned.step.name}.{name}"
        inputs = {role: planned.parts["inputs"][role] for role in roles}
        parts = {**planned.parts, "part": name, "options": dict(options), "inputs": inputs}
        key, begun = digest_json(parts)[:32], time.monotonic()
        used.enter_context(upkeep.using(self.store, [key]))

        def on_wait(text: str) -> None:
            self.tell(Noted(planned.step.name, f"{name}: {text}"))

        with self.store.lease(key, on_wait, self._stop_if_asked):
            entry = self.store.entry(key)
            if entry is None or entry.damage():
                draft = self.store.draft(key)
                make(draft.work)
                seconds = round(time.monotonic() - begun, 3)
                facts: dict[str, Any] = {
                    "recipe": recipe,
                    "step": step,
                    "parts": parts,
                    "facts": {},
                }
                facts |= {"seconds": seconds, "versions": versions()}
                link = partial(copytree, draft.work, copy_function=os.link, dirs_exist_ok=True)
                replaces = str(entry.record["id"]) if entry else None
                entry = self.store.commit(draft, link, facts, replaces)
        self.store.remember(recipe, step, key, parts)
        return entry.product

    def _drop_files(self, after: Planned) -> None:
        """Let go of large results that the recipe does not keep and nothing needs any more."""
        recipe, steps = self.plan.recipe, self.plan.steps
        done = steps.index(after) + 1
        wanted = needed(steps, begin=done)
        for planned in steps[:done]:
            name = planned.step.name
            if recipe.keeps(name) or name in wanted:
                continue
            if entry := upkeep.spare(self.store, recipe.name, planned.key):
                self.read.pop(name, None)
                self.store.drop(entry)
                self.tell(Dropped(name, upkeep.size_of(entry)))

    def _stop_if_asked(self) -> None:
        if signal_name := self.stop_signal():
            raise Stopped(signal_name)


class Inputs(Mapping[str, Any]):
    """A step's inputs by role; a product is restored only when its role is asked for.

    A role that takes many steps gives a mapping from step name to product.
    """

    def __init__(self, execution: _Execution, planned: Planned) -> None:
        self._execution, self._planned = execution, planned

    @property
    def options(self) -> Any:
        """The step's options now: those outside its key may be others than when it was made."""
        return self._planned.step.options

    def __getitem__(self, role: str) -> Any:
        step = self._planned.step
        names = step.inputs[role]
        need = step.stage.NEEDS[role]
        if need.many:
            return {name: self._execution.product(name, consume=False) for name in names}
        return self._execution.product(names[0], consume=need.consumes)

    def __contains__(self, role: object) -> bool:
        return role in self._planned.step.inputs  # without restoring anything

    def __iter__(self) -> Iterator[str]:
        return iter(self._planned.step.inputs)

    def __len__(self) -> int:
        return len(self._planned.step.inputs)
