"""The upkeep of a store: what is there, whether it is whole, and what may go."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import borrower, carry_out, recipe, source, spoil, step, three_steps

from runner import cli, files, upkeep
from runner.errors import StoreError
from runner.recipe import Recipe
from runner.store import Store


@pytest.fixture
def store(own_store: Path) -> Store:
    """The store that the command line uses too."""
    return Store(own_store)


def two(rank: int = 8, name: str = "trial") -> Recipe:
    first = step("load", source(), rank=rank)
    return recipe(first, step("use", borrower(), {"text": ("load",)}), name=name)


def keys(found: upkeep.Garbage) -> set[str]:
    return {entry.key for entry in found.entries}


def made(store: Store, what: Recipe) -> set[str]:
    return {outcome.planned.key for outcome in carry_out(what, store).outcomes}


def test_what_recent_runs_made_stays_and_the_rest_may_go(store):
    old, new = made(store, two(1)), made(store, two(2))
    found = upkeep.garbage(store, 1, drafts=False)
    assert keys(found) == old
    assert found.size == sum(upkeep.size_of(entry) for entry in found.entries) > 0
    assert not keys(upkeep.garbage(store, 2, drafts=False))
    upkeep.delete(store, found)
    assert {entry.key for entry in upkeep.entries(store)} == new


def test_another_recipe_keeps_what_it_shares(store):
    shared = made(store, two(1, name="other"))
    made(store, two(1))
    made(store, two(2))
    assert not keys(upkeep.garbage(store, 1, drafts=False)) & shared


def test_a_pinned_result_stays_until_it_is_unpinned(store):
    old = sorted(made(store, two(1)))
    made(store, two(2))
    upkeep.pin(store, old[0])
    assert keys(upkeep.garbage(store, 1, drafts=False)) == {old[1]}
    upkeep.unpin(store, old[0])
    assert keys(upkeep.garbage(store, 1, drafts=False)) == set(old)


def test_what_a_living_run_needs_stays(store):
    old = made(store, two(1))
    made(store, two(2))
    found = upkeep.garbage(store, 1, drafts=False)
    with upkeep.using(store, old):
        assert not keys(upkeep.garbage(store, 1, drafts=False))
        upkeep.delete(store, found)  # it was found before the run began
        with pytest.raises(StoreError, match="is used by a run"):
            upkeep.remove(store, next(iter(old)))
    assert old <= {entry.key for entry in upkeep.entries(store)}
    assert keys(upkeep.garbage(store, 1, drafts=False)) == old


def test_what_a_killed_run_needed_may_go(store):
    old = made(store, two(1))
    made(store, two(2))
    code = (
        "import os, sys; from pathlib import Path; from runner import upkeep\n"
        "from runner.store import Store\n"
        "with upkeep.using(Store(Path(sys.argv[1])), sys.argv[2:]): os._exit(137)"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root), *old], check=False)
    assert upkeep.in_use(store) == set()
    assert keys(upkeep.garbage(store, 1, drafts=False)) == old


def test_unfinished_work_goes_only_when_asked_for_and_nobody_is_at_it(store):
    left, busy = store.draft("a" * 32), store.draft("b" * 32)
    (left.work / "half.txt").write_text("half")
    with store.lease("b" * 32, lambda _: None):
        assert upkeep.garbage(store, 1, drafts=False).drafts == ()
        found = upkeep.garbage(store, 1, drafts=True)
        assert found.drafts == (left.folder,)
        upkeep.delete(store, found)
    assert not left.folder.exists()
    assert busy.folder.exists()


def test_damage_is_found_and_cured_by_collection(store, capsys):
    ran = carry_out(two(), store)
    assert cli.main(["store", "verify"]) == 0
    spoil(ran.outcomes[0].entry.product / "words.txt", "flip")
    assert cli.main(["store", "verify"]) == 1
    out, err = capsys.readouterr()
    assert "1 whole, 1 damaged" in out
    assert f"{ran.outcomes[0].planned.key}: words.txt has other bytes" in err
    spoil(ran.outcomes[0].entry.product / "words.txt", "delete")
    found = upkeep.garbage(store, 3, drafts=False)
    assert found.damaged == (ran.outcomes[0].planned.key,)


def test_the_commands_list_show_count_and_delete(store, capsys):
    ran = carry_out(two(), store)
    key = ran.outcomes[0].planned.key
    for sort in ("size", "age", "recipe"):
        assert cli.main(["store", "ls", "--sort", sort]) == 0
        listed = capsys.readouterr().out.splitlines()
        assert sorted(line.split()[-1] for line in listed) == ["load", "use"]
    assert cli.main(["store", "show", key[:8]]) == 0
    assert f'"key": "{key}"' in capsys.readouterr().out
    assert cli.main(["store", "du"]) == 0
    assert "in all" in capsys.readouterr().out
    assert cli.main(["store", "pin", key[:8]]) == 0
    assert cli.main(["store", "gc", "--keep", "0"]) == 0
    out = capsys.readouterr().out
    assert "would be freed by --delete" in out
    assert len(list(upkeep.entries(store))) == 2
    assert cli.main(["store", "gc", "--keep", "0", "--delete"]) == 0
    assert [entry.key for entry in upkeep.entries(store)] == [key]
    assert cli.main(["store", "rm", key[:8]]) == 0
    assert not list(upkeep.entries(store))
    capsys.readouterr()
    assert cli.main(["store", "show", "zz"]) == 1
    assert 'no result has a key that begins with "zz"' in capsys.readouterr().err


def test_a_run_that_collection_interrupts_makes_again_what_is_gone(store):
    from runner.execute import execute
    from runner.plan import plan

    carry_out(two(), store)
    planned = plan(two(), store)
    for entry in list(upkeep.entries(store)):
        store.discard(entry.key)
    outcomes = execute(planned, store, lambda event: None, lambda: None)
    assert all(outcome.entry.damage() is None for outcome in outcomes)


def test_why_lists_every_difference(tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "r.yaml").write_text("steps: [fetch]\nfetch: {data: {path: rows.jsonl}}\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["why", "r", "fetch.data"]) == 0
    assert capsys.readouterr().out == "run: not done before\n"
    assert cli.main(["run", "r"]) == 0
    capsys.readouterr()
    (tmp_path / "rows.jsonl").write_text("{}\n{}\n")
    assert cli.main(["why", "r", "fetch.data", "fetch.data.type=dataset"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("run: options changed: digest ")
    assert first.endswith("(and 1 more)")
    assert rest[1] == "  options changed: type model -> dataset"
    assert cli.main(["why", "r", "fetch.dat"]) == 1
    assert 'Did you mean "fetch.data"?' in capsys.readouterr().err


def test_all_results_of_a_run_are_pinned_by_its_folder(store: Store, tmp_path, capsys):
    ran = carry_out(three_steps(rounds=(0, 0, 0)), store)
    steps = {o.planned.step.name: {"key": o.planned.key} for o in ran.outcomes}
    files.write_json(tmp_path / "record.json", {"steps": steps})
    assert cli.main(["store", "pin", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert not upkeep.garbage(store, 0, drafts=True).entries
    assert cli.main(["store", "unpin", str(tmp_path)]) == 0
    assert len(upkeep.garbage(store, 0, drafts=True).entries) == 3


def test_what_killed_runs_have_left_is_collected(store: Store):
    carry_out(three_steps(rounds=(0, 0, 0)), store)
    (store.root / "uses").mkdir()
    (store.root / "uses" / "1-a.json").write_text("[]")
    torn = store.root / "recent" / "trial" / ".first.json.0123"
    torn.touch()
    os.utime(torn, (0, 0))
    young = torn.with_name(".first.json.4567")
    young.touch()
    upkeep.delete(store, upkeep.garbage(store, 3, drafts=False))
    assert not torn.exists()
    assert not list((store.root / "uses").iterdir())
    assert young.exists()
