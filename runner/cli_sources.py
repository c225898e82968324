"""`runner lock`, `runner bundle` and `runner cache`: where a recipe's files come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from runner.lock import Lock
    from runner.recipe import Recipe


def lock(words: Sequence[str]) -> int:
    """Write, check or renew the lock file beside a recipe."""
    from runner import lock as locks
    from runner.compose import compose
    from runner.origins import short
    from runner.stages import known

    parser = _parser("lock", "Pin what a recipe fetches, in a file beside it that belongs in git.")
    parser.add_argument("--check", action="store_true", help="say what moved; exit 1 if anything")
    parser.add_argument(
        "--update", nargs="?", const="", metavar="SOURCE", help="pin anew: one source, or all"
    )
    given = parser.parse_intermixed_args(words)
    recipe = compose(given.recipe, given.overrides, known())
    old = None if given.update == "" else locks.read(recipe.path)
    update = locks.check_names([given.update], recipe) if given.update else set()
    if given.check:
        return _check(recipe, old)
    made = locks.pin(recipe, old, update)
    before = old if given.update != "" else _readable(recipe)
    locks.write(made)
    for step, row in made.sources.items():
        print(f"{step}: {', '.join(f'{name} {value}' for name, value in row.items())}")
    for each in locks.drift(before, made.sources) if before else ():
        print(f"changed: {each}")
    print(f"{short(made.path)}: {len(made.sources)} sources pinned")
    return 0


def _check(recipe: "Recipe", old: "Lock | None") -> int:
    from runner import lock as locks
    from runner.errors import Problem, RecipeError
    from runner.origins import short

    if old is None:
        fact, make = "there is no lock file.", f"runner lock {short(recipe.path)}"
        raise RecipeError([Problem(short(locks.path_of(recipe.path)), fact, command=make)])
    moved = [*locks.drift(old, locks.pin(recipe, None).sources)]
    for each in moved:
        print(each)
    for each in locks.library_drift(old):
        print(f"libraries: {each}")
    print(f"{len(moved)} sources moved" if moved else "nothing moved")
    return 1 if moved else 0


def _readable(recipe: "Recipe") -> "Lock | None":
    """The lock file that is written over, if it can be read."""
    from runner import lock as locks
    from runner.errors import RecipeError

    try:
        return locks.read(recipe.path)
    except RecipeError:
        return None


def bundle(words: Sequence[str]) -> int:
    """Fetch all that a recipe needs and write it into one folder."""
    from runner import bundle as bundles
    from runner import files, running
    from runner.report import terminal

    parser = _parser("bundle", "Write all that a recipe fetches into a folder, for other machines.")
    parser.add_argument("--to", required=True, type=Path, metavar="FOLDER", help="where to")
    given = parser.parse_intermixed_args(words)
    planned, store = running.prepare(given.recipe, given.overrides)
    fetching = bundles.sources(planned)
    with terminal.own_stdout() as stream:
        with terminal.screen(fetching, stream) as tell:
            running.carry_out(fetching, store, tell, Path("runs"))
        bundles.write(planned, store, given.to)
        size = files.human_bytes(files.size_below(given.to))
        print(f"{given.to}: {len(fetching.steps)} sources, {size}. There:", file=stream)
        print(f"  runner run --bundle {given.to}", file=stream)
    return 0


def cache(words: Sequence[str]) -> int:
    """Say what of the user's Hub cache the kept results use, and what they do not."""
    from argparse import ArgumentParser

    from runner.files import human_bytes
    from runner.sources.hub import reference as hub_reference
    from runner.store import Store, default_root

    parser = ArgumentParser("runner cache", description="What is in the Hub cache, and for whom.")
    parser.add_argument("--store", help="the store whose results count; the default where left out")
    given = parser.parse_args(words)
    store = Store(Path(given.store).expanduser() if given.store else default_root())
    used = hub_reference.uses(store)
    free, place = 0, hub_reference.cache_folder()
    for row in hub_reference.cached():
        recipes = used.get(row.commit, ())
        free += 0 if recipes else row.size
        what = ", ".join(sorted(recipes)) or "no recipe of this store"
        print(f"{human_bytes(row.size):>9}  {row.type:<7}  {row.repo}@{row.commit[:12]}  {what}")
        if not recipes:
            print(f"{'':>9}  to let it go: hf cache rm {row.commit}")
    print(f"{human_bytes(free):>9}  used by no recipe of this store, in {place}")
    return 0


def _parser(command: str, description: str) -> "ArgumentParser":
    from argparse import ArgumentParser

    parser = ArgumentParser(f"runner {command}", description=description)
    parser.add_argument("recipe", help="a name from `runner list`, or a YAML file")
    parser.add_argument("overrides", nargs="*", help="fetch.model.revision=v1, fetch=smollm2-135m")
    return parser


COMMANDS: dict[str, Any] = {"lock": lock, "bundle": bundle, "cache": cache}
