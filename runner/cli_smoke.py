"""`runner run RECIPE --smoke`: every step of a recipe, small, on the CPU, in a store of its own."""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TextIO


def run(words: Sequence[str]) -> int:
    """Make the smoke recipe and run it."""
    begun = time.monotonic()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before the driver is asked for the first time
    from argparse import ArgumentParser

    from runner import api, network, running, surroundings
    from runner.report import terminal
    from runner.run_folder import RunFolder
    from runner.smoke import recipe as smoke

    parser = ArgumentParser(
        "runner run --smoke",
        description="Run every step of a recipe on a random model of 2 layers and 8 rows.",
    )
    parser.add_argument("recipe", help="a name from `runner list`, or a YAML file")
    parser.add_argument("overrides", nargs="*", help="adapt.rank=16, quantize=int8, ~before")
    parser.add_argument("--runs", default="runs", type=Path, help="where the run's folder goes")
    parser.add_argument("--offline", action="store_true", help="use no network at all")
    form = parser.add_mutually_exclusive_group()
    for name in ("quiet", "json"):
        form.add_argument(f"--{name}", action="store_const", const=name, dest="form")
    given = parser.parse_intermixed_args(words)
    if given.offline:
        network.forbid()
    os.environ.update({name: os.environ.get(name, value) for name, value in running.QUIET.items()})
    recipe = smoke.read(given.recipe, given.overrides)
    place = given.runs / f"{recipe.name}-smoke" / "material"
    with (
        terminal.own_stdout() as stream,
        open(os.devnull, "w") as nowhere,
        surroundings.output_into(nowhere, active=True),  # what libraries have to say
    ):
        say = partial(_say, form=given.form, stream=stream)
        written = smoke.lay_out(recipe, place.absolute(), say)
    planned, store = running.prepare(str(written), [])
    running.insist_on_means(planned, store)
    command = ["run", *words, "--smoke"]
    folder = RunFolder(planned, given.runs, command)
    outcomes = api.carry_out_shown(folder, store, given.form or "", begun, summary=False)
    _say(
        f"smoke: {len(outcomes)} steps done in {time.monotonic() - begun:.0f} s on random weights,"
        " whose figures and answers mean nothing",
        given.form,
        sys.stdout,
    )
    return 0


def _say(text: str, form: str | None, stream: TextIO) -> None:
    if not form:
        print(text, file=stream, flush=True)
