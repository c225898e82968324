"""Stages for tests of sweeps, as a third party brings them: a worker's process finds them too."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fakes
from fakes import FakeStage, Words

from runner import files
from runner.errors import StepError
from runner.options import option
from runner.stage import Need

ENTRY_POINTS = """\
[recipe_runner.stages]
begin = sweepstages:begin
grow = sweepstages:grow
tell = sweepstages:tell
score = sweepstages:score
learn = sweepstages:learn
"""


@dataclass(frozen=True, kw_only=True)
class Options(fakes.Options):
    """What these stages take."""

    seed: int = option(0, "Changes the result", at_least=0)
    does: str | None = option(None, "What goes wrong")
    once: str | None = option(None, "A file that is made when it goes wrong, once", keyed=False)


class Stage(FakeStage):
    """A fake that says who made what, and goes wrong in the ways of real ones."""

    def run(self, options: Any, inputs: Mapping[str, Any], context: Any) -> Words:
        if options.log:
            line = f"{self.label} {context.about.key} {os.getpid()}\n"
            with open(f"{options.log}.keys", "a", encoding="utf-8") as log:
                log.write(line)
        if options.does and not (options.once and Path(options.once).exists()):
            if options.once:
                Path(options.once).touch()
            go_wrong(options.does)
        return super().run(options, inputs, context)


class Scores(Stage):
    """Gives figures."""

    def run(self, options: Any, inputs: Mapping[str, Any], context: Any) -> Words:
        product = super().run(options, inputs, context)
        context.facts |= {"size": len(product.words), "match": {"text": options.rank / 10}}
        return product


class Learner(Stage):
    """Looks at rows held out after each round, as training does: best where `rate` is 0.3."""

    def run(self, options: Any, inputs: Mapping[str, Any], context: Any) -> Words:
        product = super().run(replace(options, rounds=0), inputs, context)
        found = context.checkpoint.newest()
        loss = 0.0
        for number in range(found[0] + 1 if found else 1, options.rounds + 1):
            time.sleep(options.pause)
            loss = abs(options.rate - 0.3) + 1 / number
            context.metrics({"step": number, "loss": loss + 0.1})
            context.metrics({"step": number, "held_out_loss": loss})
            self._act(f"learnt {options.rate} {number}", options)
            filled = context.draft / "filled"
            filled.mkdir(exist_ok=True)
            (filled / "words.txt").write_text(" ".join(product.words))
            context.checkpoint.save(number, filled)
            context.stop_here()
        context.facts |= {"held_out_loss": loss, "size": options.rank}
        return product


def go_wrong(how: str) -> None:
    """End as a real step may."""
    print("some last words", flush=True)
    if how == "exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "hang":
        time.sleep(1000)
    if how == "memory":
        raise MemoryError
    if how == "refuse":
        raise StepError("these data are no good.")
    if how == "raise":
        raise ValueError("there is a mistake")


TEXT = {"text": Need(kind="text")}
begin = Stage("begin", Options=Options)
grow = Stage("grow", NEEDS={"text": Need(kind="text", consumes=True)}, Options=Options)
tell = Stage("tell", NEEDS=TEXT, Options=Options)
learn = Learner("learn", NEEDS={"text": Need(kind="text", consumes=True)}, Options=Options)
score = Scores("score", NEEDS=TEXT, GIVES="scores", Options=Options)


def install(folder: Path) -> Path:
    """Make these stages a package that is installed in a folder; give what goes on the path."""
    about = folder / "sweepstages-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sweepstages\nVersion: 1.0\n")
    files.write_text(about / "entry_points.txt", ENTRY_POINTS)
    return folder
