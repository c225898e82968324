"""Declarative, resumable and repeatable pipelines for Hugging Face models.

In Python and in notebooks the command line's work is done by three functions:

    import runner

    run = runner.run("quickstart", "adapt.rank=16")     # as `runner run quickstart adapt.rank=16`
    run.step("generate").rows()                         # the answers
    run.scores, run.report                              # what it scored, and the page about it
    runner.plan_of("quickstart").work                   # the steps that a run would do
    runner.open_run("quickstart")                       # the newest run, whoever carried it out

Nothing is loaded before the first of them is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.api import open_run as open_run
    from runner.api import plan_of as plan_of
    from runner.api import run as run

__version__ = "0.1.0"
__all__ = ["__version__", "open_run", "plan_of", "run"]


def __getattr__(name: str) -> Any:
    """What people call from Python, loaded when it is asked for."""
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("runner.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
