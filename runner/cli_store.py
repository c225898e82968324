"""`runner store`: what is kept, whether it is whole, and what may go."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.store import Entry, Store

COLUMNS = "{key:<12}  {size:>9}  {made:<19}  {recipe:<16}  {step}"


def main(words: Sequence[str]) -> int:
    """Run one of ls, show, verify, rm, gc, du, pin, unpin."""
    from argparse import ArgumentParser

    parser = ArgumentParser("runner store", description=__doc__)
    parser.add_argument("--store", help="the folder; RUNNER_STORE or the default where left out")
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("ls", help="every finished step")
    listing.add_argument("--sort", choices=("size", "age", "recipe"), default="age")
    for verb, text in (
        ("show", "the record of one result"),
        ("rm", "delete one result"),
        ("pin", "keep one result, or all of a run's, whatever happens"),
        ("unpin", "let them go again"),
    ):
        about = "the key, or its beginning" + (", or a run's folder" if "pin" in verb else "")
        verbs.add_parser(verb, help=text).add_argument("key", help=about)
    verbs.add_parser("verify", help="read every byte; exit 1 where anything is damaged")
    verbs.add_parser("du", help="what takes the room")
    collection = verbs.add_parser("gc", help="say what nothing needs; delete it with --delete")
    collection.add_argument("--keep", type=int, default=3, help="last results of each step (3)")
    collection.add_argument("--drafts", action="store_true", help="unfinished work too")
    collection.add_argument("--delete", action="store_true", help="do it")
    collection.add_argument("--dry-run", action="store_true", help="only say it (the default)")
    given = parser.parse_args(words)
    return VERBS[given.verb](_store(given.store), given)


def _store(folder: str | None) -> "Store":
    from pathlib import Path

    from runner.store import Store, default_root

    return Store(Path(folder).expanduser() if folder else default_root())


def _ls(store: "Store", given: Any) -> int:
    from runner import upkeep

    order = {
        "size": lambda entry: -upkeep.size_of(entry),
        "age": lambda entry: entry.record["made"],
        "recipe": lambda entry: (entry.record["recipe"], entry.record["step"]),
    }[given.sort]
    for entry in sorted(upkeep.entries(store), key=order):
        print(_line(entry))
    return 0


def _line(entry: "Entry") -> str:
    from runner.files import human_bytes
    from runner.upkeep import size_of

    record = entry.record
    made = str(record["made"]).replace("T", " ").rstrip("Z")
    size, key = human_bytes(size_of(entry)), entry.key[:12]
    return COLUMNS.format(
        key=key, size=size, made=made, recipe=record["recipe"], step=record["step"]
    )


def _show(store: "Store", given: Any) -> int:
    import json

    from runner import upkeep

    entry = upkeep.find(store, given.key)
    print(json.dumps({**entry.record, "folder": str(entry.product)}, indent=1, ensure_ascii=False))
    return 0


def _verify(store: "Store", _: Any) -> int:
    from runner import upkeep

    whole = damaged = 0
    for key, fault in upkeep.verify(store):
        if fault:
            damaged += 1
            print(f"{key}: {fault}", file=sys.stderr)
        else:
            whole += 1
    print(f"{whole} whole, {damaged} damaged; a damaged result is made again by the next run")
    return 1 if damaged else 0


def _rm(store: "Store", given: Any) -> int:
    from runner import upkeep

    entry = upkeep.find(store, given.key)
    upkeep.remove(store, entry.key)
    print(_line(entry))
    return 0


def _pin(store: "Store", given: Any) -> int:
    from runner import upkeep

    for key in upkeep.keys_of_run(given.key) or [upkeep.find(store, given.key).key]:
        (upkeep.pin if given.verb == "pin" else upkeep.unpin)(store, key)
        entry = store.entry(key)
        print(_line(entry) if entry else f"{key} is no longer in the store")
    return 0


def _gc(store: "Store", given: Any) -> int:
    from runner import upkeep
    from runner.files import human_bytes

    found = upkeep.garbage(store, given.keep, drafts=given.drafts)
    for entry in found.entries:
        print(_line(entry))
    left = [*found.drafts, *found.remains]
    for name in (*found.damaged, *(str(path.relative_to(store.root)) for path in left)):
        print(name)
    delete = given.delete and not given.dry_run
    if delete:
        upkeep.delete(store, found)
    count = len(found.entries) + len(found.damaged) + len(left)
    done = "freed" if delete else "would be freed by --delete"
    print(f"{count} things, {human_bytes(found.size)} {done}")
    return 0


def _du(store: "Store", _: Any) -> int:
    from runner import upkeep
    from runner.files import human_bytes

    totals: dict[str, int] = {}
    for entry in upkeep.entries(store):
        name = f"{entry.record['recipe']} {entry.record['step']}"
        totals[name] = totals.get(name, 0) + upkeep.size_of(entry)
    for name, size in sorted(totals.items(), key=lambda pair: -pair[1]):
        print(f"{human_bytes(size):>9}  {name}")
    print(f"{human_bytes(sum(totals.values())):>9}  in all, in {store.root}")
    return 0


VERBS = {
    "ls": _ls,
    "show": _show,
    "verify": _verify,
    "rm": _rm,
    "pin": _pin,
    "unpin": _pin,
    "gc": _gc,
    "du": _du,
}
