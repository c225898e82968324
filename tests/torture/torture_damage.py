"""Every bit of every file: damage is found by verify and on use, and the result made again."""

import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from fakes import carry_out, recipe, step, three_steps
from measure import files_below, first, row, size, spoil
from test_run import Place, without_save

from runner import upkeep
from runner.plan import Verdict, plan
from runner.store import Store

pytestmark = pytest.mark.timeout(7200)


def test_every_bit_of_every_file_is_looked_at(tmp_path):
    begun, store, missed, bits = time.monotonic(), Store(tmp_path / "store"), [], 0
    carry_out(three_steps(), store)
    for path in files_below(store.entries):
        key = path.relative_to(store.entries).parts[0]
        path.chmod(0o644)
        data = path.read_bytes()
        for bit in range(0, len(data) * 8, size("BITS_EVERY", 1)):
            torn = bytearray(data)
            torn[bit // 8] ^= 1 << bit % 8
            path.write_bytes(torn)
            found, bits = store.look(key), bits + 1
            if not isinstance(found, str) and found.damage() is None:
                missed.append((path.name, bit))
        path.write_bytes(data)
    row(
        "each bit of each file of three results flipped, looked at by verify",
        f"{bits} flips",
        f"{len(missed)} not found",
        begun,
    )
    assert not missed, first(missed)


def asking(rank: int) -> object:
    """The last step is another one, so that both of its inputs are read."""
    made = three_steps()
    last = step("third", made.steps[2].stage, {"texts": ("first", "second")}, rank=rank)
    return recipe(*made.steps[:2], last)


def test_damage_is_found_on_use_and_made_again(tmp_path):
    begun, whole = time.monotonic(), Store(tmp_path / "whole")
    carry_out(three_steps(), whole)
    carry_out(asking(9), whole)
    right = carry_out(asking(10), Store(tmp_path / "undisturbed")).digests
    keys = {p.step.name: p.key for p in plan(asking(10), whole).steps}
    names = [path.relative_to(whole.root) for path in files_below(whole.entries)]
    wrong, cases = [], 0
    for name in names:
        for how in ("flip", "truncate", "delete"):
            cases += 1
            store = Store(tmp_path / f"{cases}")
            shutil.copytree(whole.root, store.root)
            spoil(store.root / name, how)
            case = f"{how} {name}"
            if [key for key, fault in upkeep.verify(store) if fault] != [name.parts[1]]:
                wrong.append(f"{case}: not found by verify")
            ran = carry_out(asking(10), store)
            if ran.digests != right:
                wrong.append(f"{case}: other digests")
            used = [step for step in ("first", "second") if keys[step] == name.parts[1]]
            if used and ran.verdicts[used[0]] is Verdict.REUSE:
                wrong.append(f"{case}: used as it was")
            bad = {key for key, fault in upkeep.verify(store) if fault} & set(keys.values())
            if bad:
                wrong.append(f"{case}: not made again")
            shutil.rmtree(store.root)
    row(
        "each file of each result flipped, truncated, deleted, then used",
        f"{cases} cases",
        f"{len(wrong)} not found or not made again",
        begun,
    )
    assert not wrong, first(wrong)


def test_damage_to_the_results_of_the_built_in_stages(tiny_model, tmp_path, monkeypatch):
    """Planning reads the reference files of fetch and save: damage there must not end it."""
    from runner import cli
    from runner.errors import RunnerError
    from runner.running import prepare

    begun = time.monotonic()
    place = Place(tmp_path / "place", tiny_model)
    place.run()
    monkeypatch.chdir(place.folder)
    store, wrong, cases = Store(place.store), Counter(), 0
    monkeypatch.setenv("RUNNER_STORE", str(place.store))
    steps = {entry.key: entry.record["step"] for entry in upkeep.entries(store)}
    assert cli.main(["plan", "tiny.yaml"]) == 0
    expected = without_save(place.digests())
    for path in files_below(store.entries):
        key = path.relative_to(store.entries).parts[0]
        data = path.read_bytes()
        case = f"{steps[key]}: {path.name}"
        for how in ("flip", "truncate", "delete"):
            cases += 1
            mode = path.stat().st_mode
            spoil(path, how)
            if [k for k, fault in upkeep.verify(store) if fault] != [key]:
                wrong[f"{how} {case}: not found by verify"] += 1
            try:
                planned, _ = prepare("tiny.yaml", [])
            except RunnerError:
                wrong[f"{how} {case}: the plan ends"] += 1
            except Exception as error:
                wrong[f"{how} {case}: the plan ends by {error!r}"] += 1
            else:
                found = [p.verdict for p in planned.steps if p.step.name == steps[key]]
                verdict = found[0] if found else None  # a part of a step: read, then found
                if verdict is Verdict.REUSE and how != "flip":
                    wrong[f"{how} {case}: planned as whole"] += 1
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            path.chmod(mode)
    again = 0
    for path in files_below(store.entries):
        key = path.relative_to(store.entries).parts[0]
        if not (store.entries / key).is_dir() or path.name == "record.json":
            continue
        if steps[key] in ("adapt", "quantize") or again >= size("TINY_DAMAGE", 6):
            continue
        again += 1
        spoil(path, "truncate")
        place.run()
        if without_save(place.digests()) != expected:
            wrong[f"{steps[key]}: {path.name}: other digests"] += 1
    row(
        "each file of each result of the tiny recipe flipped, truncated, deleted, then planned",
        f"{cases} cases, {again} of them run",
        f"{sum(wrong.values())} not found, or an exception",
        begun,
    )
    assert not wrong, first(f"{n} x {text}" for text, n in wrong.most_common(8))
    assert isinstance(place.folder, Path)
