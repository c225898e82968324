"""The command line: parse, call one function, print, choose the exit code."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner import __version__, network
from runner.errors import (
    EXIT_OUR_FAULT,
    Problem,
    RunnerError,
    did_you_mean,
    page_of,
)
from runner.secrets import mask

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from runner.plan import Plan
    from runner.store import Store

HELP = """\
usage: runner COMMAND ...

  run RECIPE [OVERRIDE ...]    run a recipe; finished steps are reused; --smoke tries it small
  sweep RECIPE [OVERRIDE ...]  run it with many values: adapt.rank=4,8; --dry-run, --extend
  status SWEEP                 how far a sweep is
  best SWEEP                   its best job, and the command that saves it
  plan RECIPE [OVERRIDE ...]   say what run would do, and why
  check RECIPE [OVERRIDE ...]  all that can be known to be wrong before any work; --json
  show RECIPE [OVERRIDE ...]   the composed recipe
  show STAGE                   a stage's options, defaults and what they mean
  show RECIPE STEP --rows N    what became of the data: figures, and rows with what is trained
  lock RECIPE                  pin what it fetches, in a file beside it; --check, --update
  bundle RECIPE --to FOLDER    all that it fetches, for a machine without network
  why RECIPE STEP              all that differs from the last time a step was done
  runs [RECIPE]                what has been run: when, how it ended, scores; --json
  watch [RUN]                  follow a run from another terminal; --once
  diff RUN RUN                 what explains the difference of two runs, and what came of it
  reproduce RUN                make a run or a saved model again from nothing, and compare
  report RUN                   the report of a run, made again from its folder
  rm RUN                       remove a run's folder; the results stay in the store
  generate RUN PROMPT          have the last model of a run answer
  chat RUN                     talk to the last model of a run
  list                         recipes, stages and presets
  copy RECIPE FILE             a copy of a recipe, to make it your own
  new FILE                     a new recipe, by a few questions or --model, --data, --method
  import FILE FILE             a recipe from what axolotl, LLaMA-Factory or Oumi are given
  schema [STAGE]               the JSON schema of recipes (of a stage's presets), for editors
  doctor                       what this machine has for runs, and what it lacks; --self-test
  completion SHELL             the script by which bash, zsh or fish complete all this
  cache                        what of the Hub cache the kept results use
  store VERB                   what is kept: ls, show, verify, rm, gc, du, pin, unpin

  runner COMMAND --help        more on one command
  runner --version             the version

A recipe is a name from `runner list` or a YAML file. An override is Hydra's:
adapt.rank=16 sets an option, quantize=int8 chooses a preset, ~before leaves a step out.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"runner {__version__}")
        return 0
    command = {**COMMANDS, **HIDDEN}.get(words[0])
    if command is None:
        guess = did_you_mean(words[0], COMMANDS)
        problem = Problem("", f'runner has no command "{words[0]}".', guess, "See: runner --help")
        print(mask(str(problem)), file=sys.stderr)
        return 2
    if network.is_forbidden():  # by RUNNER_OFFLINE: libraries are told too
        network.forbid()
    try:
        return command(words[1:])
    except RunnerError as error:
        print(mask(_explained(error) or str(error)), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except Exception as error:  # whatever reaches this line is our own fault
        print(_explained(error) or _report(words[0], error), file=sys.stderr)
        return EXIT_OUR_FAULT


def _run(words: Sequence[str]) -> int:
    import time

    if {"-m", "--multirun"} & {*words}:
        from runner import cli_sweep

        return cli_sweep.sweep([word for word in words if word not in ("-m", "--multirun")])
    if "--smoke" in words:
        from runner import cli_smoke

        return cli_smoke.run([word for word in words if word != "--smoke"])
    from runner import api, running
    from runner.run_folder import RunFolder

    begun = time.monotonic()
    parser = _parser("run", "Run a recipe; finished steps are reused.")
    parser.add_argument("--runs", default="runs", type=Path, help="where the run's folder goes")
    parser.add_argument("-m", "--multirun", action="store_true", help="the same as runner sweep")
    small = "every step on a random model of 2 layers and 8 rows, on the CPU, in its own store"
    parser.add_argument("--smoke", action="store_true", help=small)
    form = parser.add_mutually_exclusive_group()
    for name, text in (("quiet", "say nothing but errors"), ("json", "a line for every event")):
        form.add_argument(f"--{name}", action="store_const", const=name, dest="form", help=text)
    given, planned, store = _prepared(parser, words)
    running.insist_on_means(planned, store)
    api.carry_out_shown(RunFolder(planned, given.runs, ["run", *words]), store, given.form, begun)
    return 0


def _prepared(parser: "ArgumentParser", words: Sequence[str]) -> "tuple[Namespace, Plan, Store]":
    """Parse the words of `run` or `plan`, and plan."""
    from runner import running

    parser.add_argument("--locked", action="store_true", help="only as the lock file says")
    parser.add_argument("--offline", action="store_true", help="use no network at all")
    parser.add_argument("--bundle", metavar="FOLDER", help="run the recipe of a bundle, offline")
    given = parser.parse_intermixed_args(words)
    if given.bundle:
        from runner import bundle

        if given.recipe:  # it is the first override: the bundle has the recipe
            given.overrides.insert(0, given.recipe)
        given.recipe = bundle.recipe_of(given.bundle)
    elif not given.recipe:
        parser.error("the following arguments are required: recipe")
    if given.offline or given.bundle:
        network.forbid()
    planned, store = running.prepare(
        given.recipe,
        given.overrides,
        given.fresh,
        locked=given.locked,
        bundle=Path(given.bundle) if given.bundle else None,
    )
    return given, planned, store


def _plan(words: Sequence[str]) -> int:
    from runner import room
    from runner.forecast import forecasts
    from runner.report import terminal

    parser = _parser("plan", "Say what run would do, and why.")
    parser.add_argument("--json", action="store_true", help="for programs")
    given, planned, store = _prepared(parser, words)
    outlook, expected = room.outlook(planned, store), forecasts(planned, store)
    if given.json:
        import json

        from runner.report.machine import plan_rows

        print(json.dumps(plan_rows(planned, outlook, expected), indent=1))
    else:
        print("\n".join(terminal.plan_table(planned, outlook.peak, expected)))
    outlook.insist()
    return 0


def _store(words: Sequence[str]) -> int:
    from runner import cli_store

    return cli_store.main(words)


def _of(module: str, command: str) -> Callable[[Sequence[str]], int]:
    """A command of another module, which is loaded when it is called."""

    def call(words: Sequence[str]) -> int:
        from importlib import import_module

        return int(import_module(f"runner.{module}").COMMANDS[command](words))

    return call


def _parser(command: str, description: str) -> "ArgumentParser":
    from argparse import ArgumentParser

    parser = ArgumentParser(f"runner {command}", description=description)
    # --bundle has a recipe, too
    parser.add_argument("recipe", nargs="?", help="a name from `runner list`, or a YAML file")
    parser.add_argument("overrides", nargs="*", help="adapt.rank=16, quantize=int8, ~before")
    parser.add_argument(
        "--fresh",
        action="append",
        default=[],
        metavar="STEP",
        help="run this step even if it is done; `all` for every step",
    )
    return parser


def _explained(error: Exception) -> str:
    """The page of a run that failed; nothing where there is none."""
    page = page_of(error)
    if page is None:
        return ""
    from runner.report import failure

    return failure.for_terminal(page)


def _report(command: str, error: Exception) -> str:
    """Write down what we need to mend this, and say where it is."""
    import platform
    import tempfile
    import time
    import traceback

    folder = Path("runs")
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="runner-"))
    path = folder / f"failure-{time.strftime('%Y-%m-%dT%H-%M-%S')}.txt"
    about = f"runner {__version__} {command}, Python {platform.python_version()}\n\n"
    text = about + "".join(traceback.format_exception(error))
    path.write_text(mask(text), encoding="utf-8")
    fact = f"{type(error).__name__}: {mask(str(error))}"
    return f"{fact}\n  This should not happen. What we need to mend it is in {path}"


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": _run,
    "plan": _plan,
    "check": _of("cli_check", "check"),
    "show": _of("cli_show", "show"),
    "why": _of("cli_show", "why"),
    "lock": _of("cli_sources", "lock"),
    "bundle": _of("cli_sources", "bundle"),
    "cache": _of("cli_sources", "cache"),
    "runs": _of("cli_runs", "runs"),
    "watch": _of("cli_watch", "watch"),
    "diff": _of("cli_runs", "diff"),
    "reproduce": _of("cli_reproduce", "reproduce"),
    "report": _of("cli_runs", "report"),
    "rm": _of("cli_runs", "rm"),
    "generate": _of("cli_answers", "generate"),
    "chat": _of("cli_answers", "chat"),
    "sweep": _of("cli_sweep", "sweep"),
    "status": _of("cli_sweep", "status"),
    "best": _of("cli_sweep", "best"),
    "list": _of("cli_show", "list"),
    "copy": _of("cli_recipes", "copy"),
    "new": _of("cli_recipes", "new"),
    "import": _of("cli_recipes", "import"),
    "schema": _of("cli_recipes", "schema"),
    "doctor": _of("cli_doctor", "doctor"),
    "completion": _of("cli_completion", "completion"),
    "store": _store,
}
HIDDEN: dict[str, Callable[[Sequence[str]], int]] = {
    "complete": _of("cli_completion", "complete"),
}
"""What scripts call, and people do not."""
