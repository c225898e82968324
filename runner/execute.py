"""The one loop that runs a plan: reuse what is done, make the rest, keep each step as it ends."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from runner import dropping, hardware, lineage, room, upkeep
from runner.errors import StepError, Stopped, failing_as
from runner.events import (
    Dropped,
    Event,
    Finished,
    Measured,
    Noted,
    Outcome,
    Progressed,
    Started,
    Tell,
)
from runner.making import Making
from runner.metrics import Metrics
from runner.plan import Plan, Planned, Verdict, needed
from runner.stage import About, Context
from runner.store import Draft, Entry, Store


def execute(
    plan: Plan,
    store: Store,
    tell: Tell,
    stop_signal: Callable[[], str | None],
    beside: Path | None = None,
) -> list[Outcome]:
    """Run a plan to its end and return what became of every step, in order.

    `beside` is a folder for what belongs to all runs of the recipe.
    """
    run = _Execution(plan, store, tell, stop_signal, beside)
    for group in _side_by_side(plan.steps):
        run.settle_all(group)
    return [run.outcomes[planned.step.name] for planned in plan.steps]


def product(plan: Plan, store: Store, name: str, tell: Tell) -> Any:
    """A step's product as a later step would get it; what it builds on is restored with it."""
    return _Execution(plan, store, tell, lambda: None, None).product(name, consume=False)


@dataclass
class Memory:
    """What a process holds from one plan to the next, by key: products, and what they read."""

    products: dict[str, Any] = field(default_factory=dict)
    read: dict[str, tuple[Entry, Mapping[str, Any]]] = field(default_factory=dict)

    def keep(self, keys: Collection[str]) -> None:
        """Let all other products go."""
        gone = [key for key in self.products if key not in keys]
        for key in gone:
            del self.products[key]
        if gone:
            hardware.release_memory()


def execute_last(
    plan: Plan,
    store: Store,
    tell: Tell,
    stop_signal: Callable[[], str | None],
    beside: Path | None,
    memory: Memory,
) -> Outcome:
    """Make the last step of a plan whose earlier ones are done, of what is in memory or the store.

    Where it fails, nothing stays in memory: what the step was at may be changed.
    """
    run, last = _Execution(plan, store, tell, stop_signal, beside), plan.steps[-1]
    names = {planned.key: planned.step.name for planned in plan.steps}
    run.held = {names[key]: product for key, product in memory.products.items() if key in names}
    run.read = {names[key]: seen for key, seen in memory.read.items() if key in names}
    memory.products = {}
    run.settle(last)
    memory.products = {plan.step(name).key: product for name, product in run.held.items()}
    memory.read |= {plan.step(name).key: seen for name, seen in run.read.items()}
    return run.outcomes[last.step.name]


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
        beside: Path | None,
    ) -> None:
        self.plan, self.store, self.beside = plan, store, beside
        self.told, self.telling, self.stop_signal = tell, Lock(), stop_signal
        self.making = Making(store, plan.recipe.name, self.tell, self._stop_if_asked)
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
        gone = self._let_go(after=group[-1])
        if gone or any(self.outcomes[p.step.name].verdict is not Verdict.REUSE for p in group):
            hardware.release_memory()
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
            for key in (planned.key, *entry.record.get("part_keys", ())):
                self.store.clear_lease(key)
            outcome = Outcome(planned, Verdict.REUSE, planned.reason, 0.0, entry)
        else:
            room.outlook(self.plan, self.store, self.plan.steps.index(planned)).insist()
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
        begun = time.monotonic()
        self.tell(Started(planned))
        with self.making.lease(planned.key, planned.step.name):
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
        context = self._context(planned, draft)
        borrowed_before, parts = len(self.lent), list[Entry]()
        try:
            with failing_as(step.name), ExitStack() as used:
                context.keep_part = partial(self._part, parts, planned, used)
                product = step.stage.run(step.options, Inputs(self, planned), context)
        finally:
            del self.lent[borrowed_before:]
        self._check_what_was_read(planned)
        entry = self.store.commit(
            draft,
            lambda folder: step.stage.save(product, folder),
            {
                **self.making.record(step.name, planned.parts, begun, context.facts),
                "part_keys": [part.key for part in parts],
            },
            planned.replaces,
        )
        if step.stage.HOLDS:
            self.held[step.name] = product
        return entry

    def _part(self, kept: list[Entry], *asked: Any) -> Path:
        kept.append(self.making.part(*asked))
        return kept[-1].product

    def _context(self, planned: Planned, draft: Draft) -> Context:
        name, recipe = planned.step.name, self.plan.recipe

        def note(text: str) -> None:
            self.tell(Noted(name, text))

        def progress(done: float, total: float, unit: str, **figures: Any) -> None:
            self.tell(Progressed(name, done, total, unit, figures))

        measured = Metrics(draft.metrics)
        for row in measured.earlier:
            self.tell(Measured(name, row))
        return Context(
            draft=draft.work,
            checkpoint=draft.checkpoints(note),
            progress=progress,
            note=note,
            metrics=lambda row: self.tell(Measured(name, measured.add(row))),
            measured=tuple(measured.earlier),
            about=About(
                recipe=recipe.name,
                step=name,
                key=planned.key,
                plain=recipe.plain,
                folder=self.beside,
                place=recipe.path,
                lineage=lineage.of_step(self.plan, self.outcomes, name),
                sources=lineage.sources(self.plan),
            ),
            unmet=tuple(map(str, lineage.unmet(self.outcomes.values()))),
            stop_signal=self.stop_signal,
        )

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

    def _let_go(self, after: Planned) -> list[str]:
        """Drop the products that no later step will ask for, and give their steps' names."""
        later = self.plan.steps[self.plan.steps.index(after) + 1 :]
        wanted = {
            name
            for planned in later
            if planned.verdict is not Verdict.REUSE
            for names in planned.step.inputs.values()
            for name in names
        }
        gone = [name for name in self.held if name not in wanted]
        for name in gone:
            del self.held[name]
        return gone

    def _drop_files(self, after: Planned) -> None:
        """Let go of large results that the recipe does not keep and nothing needs any more."""
        for name, gone in dropping.spare(self.plan, self.store, self.outcomes, after):
            self.read.pop(name, None)
            for entry in gone:
                self.store.drop(entry)
            self.tell(Dropped(name, sum(map(upkeep.size_of, gone))))

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
