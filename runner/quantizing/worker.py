"""The process that works on a model: `python -m runner.quantizing.worker FD`, asked on stdin.

It answers as JSON lines on the file descriptor FD; what libraries print goes into its log.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner import child, hardware
from runner.errors import StepError

Tell = Callable[..., None]


def main() -> None:
    """Do the one thing that is asked for."""
    with open(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as file:

        def tell(kind: str, **event: Any) -> None:
            file.write(json.dumps({"kind": kind, **event}) + "\n")

        asked = json.load(sys.stdin)
        child.serve(asked.pop("parent"))
        hardware.prepare()
        try:
            answer = WORK[asked.pop("what")](asked, tell)
        except StepError as error:
            tell("refused", fact=error.fact, command=error.command)
        except BaseException:
            traceback.print_exc()  # before the file closes, which ends this process at once
            sys.stdout.flush()
            os._exit(1)
        else:
            tell("answer", answer=answer)
        file.flush()
        sys.stdout.flush()
        os._exit(0)  # threads that a library has left behind do not keep it


def quantize(asked: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
    """Make the form that the options name, in the folder `target`."""
    from runner.options import build
    from runner.quantizing import methods
    from runner.quantizing.settings import Options
    from runner.quantizing.work import Work

    options, faults = build(Options, asked["options"])
    assert options, faults
    work = Work(
        **{name: Path(asked[name]) for name in ("whole", "target", "scratch")},
        options=options,
        rows=asked["rows"],
        progress=lambda done, total, unit: tell("progress", done=done, total=total, unit=unit),
        note=lambda text: tell("note", text=text),
    )
    methods.quantize(methods.of(options))(work)
    return {"peak_bytes": hardware.peak_memory()}


def measure(asked: Mapping[str, Any], tell: Tell) -> Any:
    """Both models on the same rows."""
    from runner.quantizing import measuring

    return measuring.compare(
        Path(asked["whole"]),
        Path(asked["made"]),
        asked["rows"],
        lambda done, total: tell("progress", done=done, total=total, unit="rows"),
    )


WORK: Mapping[str, Callable[[dict[str, Any], Tell], Any]] = {
    "quantize": quantize,
    "measure": measure,
}

if __name__ == "__main__":
    main()
