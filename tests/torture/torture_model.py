"""Edits, runs, kills, collections and damage in any order, against a simple model."""

import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import fakes
import pytest
from fakes import WORDS, FakeStage, carry_out, recipe, step
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from measure import files_below, first, row, size, spoil

from runner import files, upkeep
from runner import lease as leases
from runner.options import option
from runner.plan import Verdict, plan
from runner.store import Store

pytestmark = [pytest.mark.timeout(7200), pytest.mark.filterwarnings("default")]

NAMES = ("first", "second", "third")


@dataclass(frozen=True, kw_only=True)
class FromFile(fakes.Options):
    """A step that reads a file of the user's."""

    path: Path = option(Path("none"), "The file", keyed=False)
    digest: str | None = option(None, "Its digest")


class Reader(FakeStage):
    """Gives the words of a file."""

    def _begin(self, given: Any) -> fakes.Words:
        return fakes.Words(self.file.read_text().split())


def trial(file: Path, ranks: dict[str, int], workers: dict[str, int]) -> Any:
    def resolve(options: FromFile, locked: Any) -> FromFile:
        return replace(options, digest=files.digest(options.path))

    reader = Reader("first", Options=FromFile, resolve=resolve)
    reader.file = file
    made = fakes.three_steps(rounds=(1, 2, 0))
    options = {n: {"rank": ranks[n], "workers": workers[n]} for n in NAMES}
    first = step("first", reader, rounds=1, **options["first"])
    return recipe(
        replace(first, options=replace(first.options, path=file)),
        step("second", made.steps[1].stage, {"text": "first"}, rounds=2, **options["second"]),
        step("third", made.steps[2].stage, {"texts": NAMES[:2]}, **options["third"]),
    )


def expected(text: str, ranks: dict[str, int]) -> dict[str, list[str]]:
    """What each step must give."""
    first = [*text.split(), f"first:{ranks['first']}:1.0", "first.1"]
    second = [*first, f"second:{ranks['second']}:1.0", "second.1", "second.2"]
    return {
        "first": first,
        "second": second,
        "third": [*first, *second, f"third:{ranks['third']}:1.0"],
    }


COUNT: Counter[str] = Counter()
PLACE: list[Path] = []
WRONG: list[Any] = []


class Machine(RuleBasedStateMachine):
    """A user, a store, and bad luck."""

    def __init__(self) -> None:
        super().__init__()
        COUNT["machines"] += 1
        self.place = PLACE[0] / str(COUNT["machines"])
        self.place.mkdir()
        self.file, self.store = self.place / "in.txt", Store(self.place / "store")
        self.text = "a b"
        self.file.write_text(self.text)
        self.ranks, self.workers = dict.fromkeys(NAMES, 8), dict.fromkeys(NAMES, 1)
        self.spoiled: set[str] = set()
        self.done: dict[str, str] = {}

    def teardown(self) -> None:
        files.remove(self.place)

    def begin_anew(self) -> None:
        """What is wrong has been counted, and would be found again."""
        files.remove(self.store.root)
        self.spoiled, self.done = set(), {}

    def recipe(self) -> Any:
        return trial(self.file, self.ranks, self.workers)

    @invariant()
    def counted(self) -> None:
        COUNT["steps"] += 1

    @rule(name=st.sampled_from(NAMES), rank=st.integers(8, 10))
    def edit_an_option(self, name: str, rank: int) -> None:
        self.ranks[name] = rank

    @rule(name=st.sampled_from(NAMES), workers=st.integers(1, 4))
    def edit_what_changes_nothing(self, name: str, workers: int) -> None:
        verdicts = [p.key for p in plan(self.recipe(), self.store).steps]
        self.workers[name] = workers
        assert [p.key for p in plan(self.recipe(), self.store).steps] == verdicts

    @rule(text=st.sampled_from(["a b", "a c", "b a", "ab"]))
    def change_the_file(self, text: str) -> None:
        self.file.write_text(text)
        self.text = text

    @rule()
    def run(self) -> None:
        planned = plan(self.recipe(), self.store)
        ran = carry_out(self.recipe(), self.store)
        right = expected(self.text, self.ranks)
        self.done = {}
        for outcome in ran.outcomes:
            name, entry = outcome.planned.step.name, self.store.entry(outcome.planned.key)
            assert entry is not None
            if outcome.verdict is not Verdict.REUSE:
                self.spoiled.discard(entry.key)
            if entry.damage():  # only what nobody has read may be so
                assert entry.key in self.spoiled
                assert outcome.verdict is Verdict.REUSE
                continue
            words = (entry.product / WORDS).read_text().split()
            if words != right[name]:
                COUNT["stale" if outcome.verdict is Verdict.REUSE else "wrong"] += 1
                WRONG.append((name, outcome.verdict, words, right[name], ran.notes))
                self.begin_anew()
                return
            self.done[name] = entry.key
        COUNT["runs"] += 1
        COUNT["reused"] += sum(o.verdict is Verdict.REUSE for o in ran.outcomes)
        assert [p.key for p in planned.steps] == [o.planned.key for o in ran.outcomes]

    @rule(call=st.integers(1, 120))
    def killed_run(self, call: int) -> None:
        whole = {key for key, fault in upkeep.verify(self.store) if not fault}
        pid = os.fork()
        if pid == 0:
            try:
                fakes._die_at(call, os.open(os.devnull, os.O_WRONLY))
                carry_out(self.recipe(), self.store)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        COUNT["killed"] += os.waitstatus_to_exitcode(status) == 137
        found = dict(upkeep.verify(self.store))
        assert not {key for key in whole if found.get(key, "gone")}
        self.spoiled &= {key for key, fault in found.items() if fault}

    @rule(keep=st.integers(0, 3), drafts=st.booleans())
    def collect(self, keep: int, drafts: bool) -> None:
        upkeep.delete(self.store, upkeep.garbage(self.store, keep, drafts=drafts))
        found = dict(upkeep.verify(self.store))
        if keep:  # the newest result of every step stays
            for name in NAMES:
                for line in self.store.recent("trial", name)[:1]:
                    if self.done.get(name) == line["key"] and line["key"] not in self.spoiled:
                        assert found.get(line["key"], "gone") is None
        self.spoiled &= set(found)
        self.done = {name: key for name, key in self.done.items() if key in found}

    @rule()
    def verify(self) -> None:
        bad = {key for key, fault in upkeep.verify(self.store) if fault}
        assert bad == self.spoiled & {p.name for p in self.store.entries.glob("*")}

    @rule(
        which=st.integers(0, 100),
        how=st.sampled_from(["flip", "truncate", "delete"]),
    )
    def damage(self, which: int, how: str) -> None:
        found = files_below(self.store.entries) if self.store.entries.is_dir() else []
        if not found:
            return
        path = found[which % len(found)]
        key = path.relative_to(self.store.entries).parts[0]
        if key in self.spoiled:
            return  # a second flip could mend it
        spoil(path, how)
        self.spoiled.add(key)
        self.done = {name: each for name, each in self.done.items() if each != key}
        COUNT["damaged"] += 1


def test_nothing_stale_is_ever_reused(tmp_path):
    begun, steps = time.monotonic(), size("MODEL_STEPS", 10_000)
    PLACE[:] = [tmp_path]
    COUNT.clear()
    WRONG.clear()
    with (
        patch.object(leases, "EXPIRY", 0.05),
        patch.object(leases, "POLL", 0.005),
        patch("os.fsync", lambda fd: None),
    ):
        try:
            while COUNT["steps"] < steps:
                run_state_machine_as_test(
                    Machine,
                    settings=settings(
                        max_examples=100,
                        stateful_step_count=50,
                        deadline=None,
                        database=None,
                        phases=[Phase.generate],
                        suppress_health_check=list(HealthCheck),
                    ),
                )
        finally:
            row(
                "options and files edited, runs, kills, gc, verify and damage in random order",
                f"{COUNT['steps']} steps: {COUNT['runs']} runs, {COUNT['killed']} kills,"
                f" {COUNT['damaged']} files damaged",
                f"{COUNT['stale']} stale reuses among {COUNT['reused']} reuses,"
                f" {COUNT['wrong']} wrong products made",
                begun,
            )
    assert not WRONG, first(WRONG)
