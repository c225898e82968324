"""`runner check`: what can be known before a run, on the screen."""

import json
import os
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from runner import network
from runner.errors import Finding, RunnerError, Severity
from runner.secrets import mask


def _check(words: Sequence[str]) -> int:
    parser = ArgumentParser(
        "runner check",
        description="All that can be known before a run: nothing is downloaded or loaded.",
    )
    parser.add_argument("recipe", nargs="?", help="a name from `runner list`, or a YAML file")
    parser.add_argument("overrides", nargs="*", help="adapt.rank=16, quantize=int8, ~before")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--locked", action="store_true", help="only as the lock file says")
    parser.add_argument("--offline", action="store_true", help="use no network at all")
    parser.add_argument("--bundle", metavar="FOLDER", help="check the recipe of a bundle, offline")
    given = parser.parse_intermixed_args(words)
    if given.bundle:
        from runner import bundle

        given.overrides[:0] = [given.recipe] if given.recipe else []
        given.recipe = bundle.recipe_of(given.bundle)
    elif not given.recipe:
        parser.error("the following arguments are required: recipe")
    if given.offline or given.bundle:
        network.forbid()
    from runner import check, surroundings
    from runner.report import terminal

    bundled = Path(given.bundle) if given.bundle else None
    found = check.check(given.recipe, given.overrides, locked=given.locked, bundle=bundled)
    tell = _as_json if given.json else _as_lines
    with (
        terminal.own_stdout() as screen,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        surroundings.output_into(nowhere, active=True),  # what libraries print is no finding
    ):
        counts = tell(found, screen)
    return RunnerError.exit_code if counts[Severity.ERROR] else 0


def _as_lines(found: Iterable[Finding], screen: TextIO) -> Counter[Severity]:
    """Print each finding as soon as it is there, and how many there were."""
    counts: Counter[Severity] = Counter()
    for finding in found:
        counts[finding.severity] += 1
        print("\n".join(_lines(finding)), file=screen, flush=True)
    print(_counted(counts), file=screen)
    return counts


def _counted(counts: Counter[Severity]) -> str:
    wrong = [(counts[each], each) for each in (Severity.ERROR, Severity.WARNING) if counts[each]]
    told = [f"{count} {each}{'s' if count > 1 else ''}" for count, each in wrong]
    return ", ".join(told) or "nothing is wrong"


def _lines(finding: Finding) -> Iterator[str]:
    first, *more = mask(str(finding.problem)).splitlines()
    yield f"{finding.severity:<7}  {first}"
    yield from (f"{'':7}  {line}" for line in more)


def _as_json(found: Iterable[Finding], screen: TextIO) -> Counter[Severity]:
    """Print all findings as one list."""
    listed = [*found]
    rows = [
        {
            "severity": str(each.severity),
            **{name: mask(text) for name, text in vars(each.problem).items()},
        }
        for each in listed
    ]
    print(json.dumps(rows, indent=1, ensure_ascii=False), file=screen)
    return Counter(each.severity for each in listed)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"check": _check}
