"""Stages, recipes and runs for tests of the engine; nothing here imports a heavy library.

As a script it is a process of its own: `python fakes.py run STORE LOG PAUSE` carries the
three-step recipe out, and the other commands at the end hold a lease or die at every store call.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner import files
from runner.events import Event, Noted, Outcome
from runner.execute import execute
from runner.options import build, option
from runner.plan import Plan, Verdict, plan
from runner.recipe import Recipe, Step
from runner.resources import Resources
from runner.stage import (
    Need,
    checks_nothing,
    never_stale,
    pins_nothing,
    resolves_nothing,
    takes_little_room,
)
from runner.store import Store

WORDS = "words.txt"
RESOURCES = Resources(gpus=0, cpus=1, minutes=5)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every fake stage takes."""

    rank: int = option(8, "A whole number that changes the result")
    rate: float = option(1.0, "A number that changes the result")
    rounds: int = option(0, "Rounds of work, each with a checkpoint")
    workers: int = option(1, "Changes nothing", keyed=False)
    pause: float = option(0.0, "Seconds that a round takes", keyed=False)
    log: str | None = option(None, "A file that gets a line whenever the stage acts", keyed=False)


@dataclass
class Words:
    """A product; mutable, so that a stage can consume it in place."""

    words: list[str]


@dataclass
class FakeStage:
    """A stage that adds its label to the words that it is given.

    `fault` is raised by `run`, `save_fault` by `save` after the first half of its bytes; both are
    called with the context or the folder, and may act as they like.
    """

    label: str
    NEEDS: Mapping[str, Need] = field(default_factory=dict)
    GIVES: str = "text"
    VERSION: int = 1
    PARTS: bool = False
    HOLDS: bool = True
    RESOURCES: Resources = RESOURCES
    Options: Any = Options
    fault: Callable[[Any], None] = lambda context: None
    save_fault: Callable[[Path], None] = lambda folder: None
    given: list[dict[str, Any]] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)
    resolve: Any = resolves_nothing
    pins: Any = pins_nothing
    check: Any = checks_nothing
    stale: Any = never_stale
    room: Any = takes_little_room

    def run(self, options: Any, inputs: Mapping[str, Any], context: Any) -> Words:
        self._act("run", options)
        given = {role: inputs[role] for role in inputs if role in self.NEEDS}
        self.given.append({role: _spoken(value) for role, value in given.items()})
        product = self._begin(given)
        product.words.append(f"{self.label}:{options.rank}:{options.rate}")
        self.fault(context)
        begun = 0
        if found := context.checkpoint.newest():
            begun, folder = found
            product.words = (folder / WORDS).read_text().split()
            self._act(f"from {begun}", options)
        for number in range(begun + 1, options.rounds + 1):
            time.sleep(options.pause)
            self._act(f"round {number}", options)
            product.words.append(f"{self.label}.{number}")
            filled = context.draft / "filled"
            files.remove(filled)
            filled.mkdir()
            (filled / WORDS).write_text(" ".join(product.words))
            context.checkpoint.save(number, filled)
            context.progress(number, options.rounds, "rounds")
            context.stop_here()
        context.facts["words"] = len(product.words)
        context.metrics({"words": len(product.words)})
        return product

    def save(self, product: Words, folder: Path) -> None:
        self.count["save"] += 1
        (folder / "about").mkdir()
        (folder / "about" / "count.txt").write_text(str(len(product.words)))
        self.save_fault(folder)
        (folder / WORDS).write_text(" ".join(product.words))

    def restore(self, folder: Path, inputs: Mapping[str, Any]) -> Words:
        self.count["restore"] += 1
        return Words((folder / WORDS).read_text().split())

    def _begin(self, given: Mapping[str, Any]) -> Words:
        """A consumed input is changed in place; the others are copied."""
        for role, value in given.items():
            if self.NEEDS[role].consumes:
                return value
        product = Words([])
        for role in sorted(given):
            value = given[role]
            for each in value.values() if isinstance(value, dict) else [value]:
                product.words += each.words
        return product

    def _act(self, what: str, options: Any) -> None:
        self.count[what.split()[0]] += 1
        if options.log:
            with open(options.log, "a", encoding="utf-8") as log:
                log.write(f"{self.label} {what}\n")


class WithPart(FakeStage):
    """A stage that reads its input once, whatever its rank is."""

    def run(self, options: Any, inputs: Mapping[str, Any], context: Any) -> Words:
        def make(folder: Path) -> None:
            self.count["part"] += 1
            for number in range(self.count["kept"], 3):
                (folder / f"{number}.txt").write_text(f"{number}")
                self.count["kept"] += 1
                self.fault(context)
            (folder / "all.txt").write_text(" ".join(inputs["text"].words))

        self.folder = context.part("read", {"rate": options.rate}, ["text"], make)
        return Words([*(self.folder / "all.txt").read_text().split(), str(options.rank)])


def _spoken(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: list(each.words) for name, each in value.items()}
    return list(value.words)


def source(label: str = "source", **settings: Any) -> FakeStage:
    """A stage that needs nothing."""
    return FakeStage(label, **settings)


def borrower(label: str = "borrower", **settings: Any) -> FakeStage:
    """A stage that reads one text."""
    return FakeStage(label, **({"NEEDS": {"text": Need(kind="text")}} | settings))


def consumer(label: str = "consumer", **settings: Any) -> FakeStage:
    """A stage that changes the text it is given in place."""
    return FakeStage(label, **({"NEEDS": {"text": Need(kind="text", consumes=True)}} | settings))


def gatherer(label: str = "gatherer", **settings: Any) -> FakeStage:
    """A stage that reads many texts."""
    return FakeStage(label, **({"NEEDS": {"texts": Need(kind="text", many=True)}} | settings))


def step(
    name: str, stage: FakeStage, inputs: Mapping[str, Any] | None = None, **given: Any
) -> Step:
    """A step whose options are made from plain values, as a recipe's are."""
    options, faults = build(stage.Options, given)
    assert not faults, faults
    named = {
        role: (names,) if isinstance(names, str) else tuple(names)
        for role, names in (inputs or {}).items()
    }
    return Step(name, stage.label, stage, options, named)


def recipe(*steps: Step, name: str = "trial", **settings: Any) -> Recipe:
    """A recipe of those steps."""
    return Recipe(name, Path("trial.yaml"), steps, {"name": name}, **settings)


@dataclass
class Ran:
    """What a run did."""

    plan: Plan
    outcomes: list[Outcome]
    events: list[Event]

    @property
    def verdicts(self) -> dict[str, Verdict]:
        return {outcome.planned.step.name: outcome.verdict for outcome in self.outcomes}

    @property
    def digests(self) -> dict[str, str]:
        return {outcome.planned.step.name: outcome.entry.digest for outcome in self.outcomes}

    @property
    def notes(self) -> list[str]:
        return notes(self.events)


def notes(events: Collection[Event]) -> list[str]:
    """The text of every note among the events."""
    return [event.text for event in events if isinstance(event, Noted)]


def carry_out(
    what: Recipe,
    store: Store,
    fresh: Collection[str] = (),
    stop_signal: Callable[[], str | None] = lambda: None,
    events: list[Event] | None = None,
) -> Ran:
    """Plan and execute a recipe; `events` fills up even where it ends by an exception."""
    heard: list[Event] = [] if events is None else events
    planned = plan(what, store, fresh)
    return Ran(planned, execute(planned, store, heard.append, stop_signal), heard)


def words(store: Store, planned: Plan, name: str) -> list[str]:
    """The words that the store holds for a step."""
    entry = store.entry(planned.step(name).key)
    assert entry is not None
    return (entry.product / WORDS).read_text().split()


def spoil(file: Path, how: str) -> None:
    """Damage a file that may be read-only: `truncate`, `flip` a bit, or `delete` it."""
    file.chmod(0o644)
    if how == "delete":
        file.unlink()
        return
    data = bytearray(file.read_bytes())
    if how == "truncate":
        data = data[:-1]
    else:
        data[len(data) // 2] ^= 1
    file.write_bytes(data)


def three_steps(
    log: Path | None = None, pause: float = 0.0, rounds: tuple[int, int, int] = (3, 3, 3)
) -> Recipe:
    """first -> second (consumes first) -> third (reads first and second), with checkpoints."""
    common = {"log": str(log) if log else None, "pause": pause}
    texts = ("first", "second")
    return recipe(
        step("first", source("first"), rounds=rounds[0], **common),
        step("second", consumer("second"), {"text": "first"}, rounds=rounds[1], **common),
        step("third", gatherer("third"), {"texts": texts}, rounds=rounds[2], **common),
    )


def script(*words: Any, **settings: Any) -> "subprocess.Popen[str]":
    """Start this file as a process, the leader of its own group."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **settings,
    )


def finish(process: "subprocess.Popen[str]", timeout: float = 30) -> Any:
    """What a process started by `script` says with its last line."""
    try:
        out, _ = process.communicate(timeout=timeout)
    finally:
        end(process)
    assert process.returncode == 0, out
    return json.loads(out.splitlines()[-1])


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process started by `script` with its group, wait for it, close its pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            pipe.close()


def lines(log: Path) -> list[str]:
    """What the stages have logged so far, in order."""
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def _command_run(root: str, log: str, pause: str) -> None:
    ran = carry_out(three_steps(Path(log), float(pause)), Store(Path(root)))
    heavy = {"torch", "transformers", "datasets", "peft", "accelerate", "hydra"}
    said = {
        "digests": ran.digests,
        "verdicts": ran.verdicts,
        "notes": ran.notes,
        "heavy": sorted(heavy & set(sys.modules)),
    }
    print(json.dumps(said))


def _command_hold(path: str) -> None:
    """Hold a lease until the standard input ends."""
    from runner.lease import lease

    with lease(Path(path), print):
        print("held", flush=True)
        sys.stdin.read()


def _command_hold_by_child(path: str) -> None:
    """Hold a lease in a child that is killed and not waited for, until the input ends."""
    child = script("hold", path)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table
    print(child.pid, flush=True)
    sys.stdin.read()
    end(child)


def _command_die_everywhere(root: str, begin: str, stride: str) -> None:
    """Die at the `begin`th store call of a run and rerun, then `stride` calls later, and so on.

    Says at how many places it died, and what went wrong after which of them.
    """
    from runner import lease

    lease.EXPIRY, lease.POLL = 0.3, 0.01
    os.fsync = lambda fd: None  # a process that dies loses nothing that it wrote: only power does
    right = _in_child(Path(root) / f"undisturbed-{begin}", 0)
    calls, wrong, number = [], [], int(begin)
    while True:
        where = Path(root) / str(number)
        first = _in_child(where, number)
        if first["ended"]:
            break
        done, before = _committed(Store(where)), len(lines(where / "log"))
        then = _in_child(where, 0)
        again = [name for name in done if f"{name} run" in lines(where / "log")[before:]]
        if not then["ended"] or then["digests"] != right["digests"] or again:
            wrong.append({"number": number, "at": first, "then": then, "again": again})
        calls.append(first["call"])
        number += int(stride)
    print(json.dumps({"calls": calls, "wrong": wrong, "right": right["digests"]}))


def _store_calls() -> tuple[tuple[Any, str], ...]:
    names = (files, "sync"), (files, "write_json"), (files, "remove"), (files, "manifest")
    return (*names, (os, "rename"), (os, "replace"), (os, "mkdir"), (os, "write"), (os, "link"))


def _in_child(where: Path, number: int) -> dict[str, Any]:
    """Carry the three steps out in a forked child that dies at its `number`th store call."""
    where.mkdir(parents=True, exist_ok=True)

    def work(tell: Callable[[Any], None]) -> None:
        try:
            _die_at(number, tell)
            ran = carry_out(three_steps(where / "log", rounds=(0, 2, 0)), Store(where))
            tell({"ended": True, "digests": ran.digests})
        except BaseException as error:
            tell({"ended": False, "digests": None, "error": repr(error)})

    return in_child(work)


def in_child(work: Callable[[Callable[[Any], None]], None]) -> Any:
    """What `work(tell)` tells, in a forked child that ends with whatever it holds."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(lambda value: _tell(writer, value))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as said:
        text = said.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def _die_at(number: int, tell: Callable[[Any], None]) -> None:
    seen = 0

    def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                tell({"ended": False, "digests": None, "call": name})
                os._exit(137)
            return real(*arguments, **keywords)

        return call

    for module, name in _store_calls():
        setattr(module, name, dying(f"{module.__name__}.{name}", getattr(module, name)))


def _tell(writer: int, value: Any) -> None:
    """A hooked `os.write` must not see this one: the file object writes past it."""
    with open(writer, "w", encoding="utf-8", closefd=False) as file:
        json.dump(value, file)


def _committed(store: Store) -> list[str]:
    if not store.entries.is_dir():
        return []
    found = [store.entry(path.name) for path in store.entries.iterdir()]
    return [str(entry.record["step"]) for entry in found if entry]


COMMANDS = {
    "run": _command_run,
    "hold": _command_hold,
    "hold-by-child": _command_hold_by_child,
    "die-everywhere": _command_die_everywhere,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
