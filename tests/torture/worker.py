"""Processes of the long checks: `python worker.py COMMAND ...`."""

import errno
import fcntl
import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fakes import borrower, carry_out, recipe, source, step, three_steps

from runner import lease as leases
from runner import running
from runner.errors import RunnerError
from runner.plan import plan
from runner.store import Store


def race(root: str, log: str, mode: str, go: str) -> None:
    """Make one key, together with many others, with leases as `mode` says."""
    if mode == "no lease":
        Store.lease = lambda self, key, on_wait, stop_here=None: nullcontext()
    if mode == "ENOLCK":

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        fcntl.flock = refuse
    what = recipe(step("only", source("only"), rounds=3, pause=0.05, log=log))
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.002)
    print(json.dumps(carry_out(what, Store(Path(root))).digests))


def host(path: str, name: str, expiry: str) -> None:
    """Take a lease as another host would, say when, and hold it until the input ends."""
    leases.EXPIRY, leases.POLL = float(expiry), 0.01
    place = {"host": name, "boot": f"boot of {name}", "space": name}
    leases._place = lambda: place
    with leases.lease(Path(path), lambda text: None):
        print(time.monotonic(), flush=True)
        sys.stdin.read()
        print(time.monotonic(), flush=True)


def signalled(root: str, log: str, runs: str, pause: str) -> None:
    """The three steps under the real signal handlers; the exit code is the command line's."""
    store = Store(Path(root))
    planned = plan(three_steps(Path(log), float(pause)), store)
    try:
        outcomes = running.carry_out(planned, store, lambda event: None, Path(runs))
    except RunnerError as error:
        sys.exit(error.exit_code)
    print(json.dumps({o.planned.step.name: o.entry.digest for o in outcomes}))


def chain(root: str, runs: str, rank: str, count: str) -> None:
    """Runs that share their first step, one after the other; says every run's digests."""
    for number in range(int(count)):
        store, mine = Store(Path(root)), int(rank) + number % 2
        what = recipe(
            step("first", source("first"), rounds=2, pause=0.01),
            step("second", borrower("second"), {"text": "first"}, rounds=2, rank=mine, pause=0.01),
            step("third", borrower("third"), {"text": "second"}, rank=mine, rounds=1, pause=0.01),
            step("fourth", borrower("fourth"), {"text": "first"}, rank=number % 3),
            name=f"chain{rank}",
        )
        planned = plan(what, store)
        outcomes = running.carry_out(planned, store, lambda event: None, Path(runs))
        for outcome in outcomes if planned.work else ():
            print(json.dumps([outcome.planned.key, outcome.entry.digest]), flush=True)


if __name__ == "__main__":
    {"race": race, "host": host, "signalled": signalled, "chain": chain}[sys.argv[1]](*sys.argv[2:])
