"""`runner doctor`: what this machine has for runs, and what it lacks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from runner.secrets import mask, masked

if TYPE_CHECKING:
    from runner.doctor import Finding


def _doctor(words: Sequence[str]) -> int:
    import json
    from argparse import ArgumentParser

    from runner import doctor

    parser = ArgumentParser(
        "runner doctor", description="What is here for runs; exit 1 where runs would fail."
    )
    parser.add_argument("--self-test", action="store_true", help="carry a small run out, too")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(words)
    found = []
    for finding in (*doctor.findings(), *(_self_test() if given.self_test else ())):
        found.append(finding)
        if not given.json:
            print(mask(_shown(finding)), flush=True)
    if given.json:
        print(json.dumps(masked([asdict(each) for each in found]), indent=1, ensure_ascii=False))
    return 1 if any(each.fault for each in found) else 0


def _self_test() -> "Iterator[Finding]":
    from runner import selftest
    from runner.doctor import Finding

    for tried, wrong in selftest.run():
        if wrong:
            yield Finding("self-test", f"not so: {tried}", wrong, fault=True)
            return
        yield Finding("self-test", tried)


def _shown(finding: "Finding") -> str:
    amiss = "!!" if finding.fault else "! " if finding.cure else "ok"
    mark = "- " if finding.absent else amiss
    text = f"{mark} {finding.area:<9}  {finding.fact}"
    cure = "".join(f"\n{'':<14}{line}" for line in finding.cure.splitlines())
    return text + cure


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"doctor": _doctor}
