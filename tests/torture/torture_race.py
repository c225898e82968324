"""Many processes on one key, two hosts on one folder, and a collection while runs go on."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from fakes import carry_out, end, lines, recipe, source, step
from measure import first, row, size

from runner import upkeep
from runner.lease import lease
from runner.plan import plan
from runner.store import Store

pytestmark = pytest.mark.timeout(3600)

WORKER = str(Path(__file__).with_name("worker.py"))


def worker(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, WORKER, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("mode", ["leases", "ENOLCK", "no lease"])
def test_many_processes_one_key(mode, tmp_path):
    begun, count, rounds = time.monotonic(), size("RACERS", 64), size("RACES", 3)
    only = recipe(step("only", source("only"), rounds=3))
    right = carry_out(only, Store(tmp_path / "undisturbed")).digests
    wrong, times = [], []
    for number in range(rounds):
        place = tmp_path / str(number)
        place.mkdir()
        root, log, go = place / "store", place / "log", place / "go"
        if number % 2:  # an owner that died left its lease
            path = root / "leases" / plan(only, Store(root)).step("only").key
            with lease(path, print):
                text = path.read_text()
            owner = json.loads(text.split("\n")[1]) | {"start": "1"}
            path.write_text(f"{0:012d}\n{json.dumps(owner)}\n")
        racers = [worker("race", root, log, mode, go) for _ in range(count)]
        for racer in racers:
            racer.stdout.readline()
        go.touch()
        for racer in racers:
            out, err = racer.communicate(timeout=300)
            if racer.returncode:
                wrong.append(err.strip().splitlines()[-1])
            elif json.loads(out.splitlines()[-1]) != right:
                wrong.append(f"other digests: {out}")
        times.append(lines(log).count("only run"))
        wrong += [f"{key}: {fault}" for key, fault in upkeep.verify(Store(root)) if fault]
    row(
        f"{count} processes, one key: {mode}",
        f"{rounds} rounds",
        f"executed {times} times, {len(wrong)} failed processes or wrong products",
        begun,
    )
    print(Counter(text.split("/")[0] for text in wrong))
    assert not wrong, first(wrong, 5)
    assert mode != "leases" or times == [1] * rounds


def test_two_hosts_one_folder(tmp_path):
    begun, rounds, expiry = time.monotonic(), size("HOSTS", 40), 1.5
    found: list[tuple[str, float]] = []

    def one(number: int) -> None:
        how, path = ("kill", "end", "stop")[number % 3], tmp_path / str(number)
        owner = worker("host", path, f"a{number}", expiry)
        owner.stdout.readline()
        watcher = worker("host", path, f"b{number}", expiry)
        time.sleep(random.Random(number).uniform(2, 3) * expiry)
        if how == "end":
            owner.stdin.close()
        else:
            owner.send_signal(9 if how == "kill" else 19)
        ended = time.monotonic()
        took = float(watcher.stdout.readline()) - ended
        if how == "stop":
            owner.send_signal(18)
            owner.stdin.close()
            owner.wait()
            if not path.exists():
                found.append(("gone", took))
        found.append((how, took))
        end(owner)
        end(watcher)
        owner.stderr.close()
        watcher.stderr.close()

    for start in range(0, rounds, 10):
        threads = [
            threading.Thread(target=one, args=(n,)) for n in range(start, min(start + 10, rounds))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    early = [each for each in found if each[1] < (0 if each[0] == "end" else 0.5 * expiry)]
    late = [each for each in found if each[1] > 3 * expiry]
    lost = [each for each in found if each[0] == "gone"]
    slowest = max(took for _, took in found)
    row(
        "two hosts on one folder, the owner ends, is killed or stands still",
        f"{rounds} rounds, expiry {expiry} s",
        f"{len(early)} declared dead while alive, {len(late)} stuck, {len(lost)} leases of others"
        f" taken; slowest take-over {slowest:.1f} s",
        begun,
    )
    assert len(found) == rounds + len(lost)
    assert not early
    assert not late
    assert not lost


def test_collecting_while_runs_go_on(tmp_path):
    begun, lanes, count = time.monotonic(), 4, size("GC_RUNS", 100)
    root, stop, rounds, wrong = tmp_path / "store", threading.Event(), Counter(), []
    right = {}
    for rank in (8, 10, 12, 14):
        alone = worker("chain", tmp_path / f"alone{rank}", tmp_path / "runs", rank, 6)
        out, err = alone.communicate()
        assert alone.returncode == 0, err
        right |= dict(json.loads(line) for line in out.splitlines())
    runs = [
        worker("chain", root, tmp_path / "runs", 8 + 2 * lane, count // lanes)
        for lane in range(lanes)
    ]

    def collect() -> None:
        store = Store(root)
        while not stop.is_set():
            try:
                found = upkeep.garbage(store, 0, drafts=rounds["gc"] % 2 == 1)
                upkeep.delete(store, found)
                rounds["entries"] += len(found.entries)
            except Exception as error:
                wrong.append(f"gc: {error!r}")
            rounds["gc"] += 1

    thread = threading.Thread(target=collect)
    thread.start()
    digests = 0
    for each in runs:
        out, err = each.communicate()
        if each.returncode:
            wrong.append(f"a run failed: {err.strip().splitlines()[-1]}")
            print(err)
        for line in out.splitlines():
            key, digest = json.loads(line)
            digests += 1
            if right[key] != digest:
                wrong.append(f"other digest of {key}")
    stop.set()
    thread.join()
    row(
        "gc --keep 0 --delete in a loop while runs go on",
        f"{count} runs in {lanes} processes, {rounds['gc']} collections of {rounds['entries']}"
        " results",
        f"{len(wrong)} failures or wrong digests of {digests}",
        begun,
    )
    assert not wrong, "\n".join(f"{n} x {text}" for text, n in Counter(wrong).most_common(6))
