"""Runs killed at random times, and runs stopped by signals: they end as undisturbed ones."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from fakes import carry_out, end, lines, script, three_steps
from measure import first, row, size
from test_run import Place, without_save

from runner import upkeep
from runner.plan import plan
from runner.store import Store

pytestmark = pytest.mark.timeout(7200)

WORKER = str(Path(__file__).with_name("worker.py"))


def committed(store: Store) -> list[str]:
    return [p.step.name for p in plan(three_steps(), store).steps if store.entry(p.key)]


def kill_until(total: int, seed: int, place: Path, right: dict[str, str]) -> dict[str, object]:
    """Runs killed at random times, each again and again until it ends, `total` kills in all."""
    clock, kills, runs, wrong, redone = random.Random(seed), 0, 0, [], 0
    while kills < total:
        runs += 1
        root, log, done = place / str(runs) / "store", place / str(runs) / "log", []
        root.parent.mkdir(parents=True)
        while True:
            process = script("run", root, log, 0.03)
            try:
                out, _ = process.communicate(timeout=clock.uniform(0.05, 1.0))
            except subprocess.TimeoutExpired:
                end(process)
                kills += 1
                done.append((committed(Store(root)), len(lines(log))))
                continue
            end(process)
            if process.returncode:
                wrong.append(f"seed {seed}, run {runs}: exit code {process.returncode}: {out}")
            elif json.loads(out.splitlines()[-1])["digests"] != right:
                wrong.append(f"seed {seed}, run {runs}: other digests")
            break
        said = lines(log)
        redone += sum(f"{name} run" in said[at:] for names, at in done for name in names)
        wrong += [f"{key}: {fault}" for key, fault in upkeep.verify(Store(root)) if fault]
    return {"kills": kills, "runs": runs, "wrong": wrong, "redone": redone}


def test_kills_of_a_fake_recipe(tmp_path):
    begun, total, lanes = time.monotonic(), size("KILLS", 1000), 4
    right = carry_out(three_steps(), Store(tmp_path / "undisturbed")).digests
    found: list[dict[str, object]] = []

    def lane(seed: int) -> None:
        found.append(kill_until(total // lanes, seed, tmp_path / str(seed), right))

    threads = [threading.Thread(target=lane, args=(seed,)) for seed in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == lanes
    wrong = [text for each in found for text in each["wrong"]]
    redone = sum(each["redone"] for each in found)
    row(
        "SIGKILL of three fake steps at random times",
        f"{sum(e['kills'] for e in found)} kills, {sum(e['runs'] for e in found)} runs",
        f"0 repairs by hand, {len(wrong)} wrong products, {redone} finished steps done again",
        begun,
    )
    assert not wrong, first(wrong)
    assert redone == 0


def test_kills_of_the_tiny_recipe(tiny_model, tmp_path):
    begun, total = time.monotonic(), size("TINY_KILLS", 100)
    whole = Place(tmp_path / "whole", tiny_model)
    started = time.monotonic()
    whole.run()
    longest = 1.2 * (time.monotonic() - started)
    expected = without_save(whole.digests())
    clock, kills, runs, wrong, lost = random.Random(7), 0, 0, [], 0
    while kills < total:
        runs += 1
        place, made = Place(tmp_path / str(runs), tiny_model), set()
        while True:
            process = place.start("run")
            try:
                out, err = process.communicate(timeout=clock.uniform(0.3, longest))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
            else:
                if process.returncode:
                    wrong.append(f"run {runs}: {out}{err}")
                break
            now = {key for key, fault in upkeep.verify(Store(place.store)) if not fault}
            lost += len(made - now)
            made = now
        if without_save(place.digests()) != expected:
            wrong.append(f"run {runs}: other digests")
        wrong += [f"{key}: {fault}" for key, fault in upkeep.verify(Store(place.store)) if fault]
    row(
        "SIGKILL of a tiny model's recipe over all stages at random times",
        f"{kills} kills, {runs} runs",
        f"0 repairs by hand, {len(wrong)} wrong products, {lost} finished steps lost",
        begun,
    )
    assert not wrong, first(wrong)
    assert lost == 0


def test_signals_then_kills(tmp_path):
    begun, total = time.monotonic(), size("SIGNALS", 150)
    right = carry_out(three_steps(), Store(tmp_path / "undisturbed")).digests
    clock, codes, wrong, place, runs = random.Random(3), Counter(), [], tmp_path / "0", 0
    expected = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
    sent = 0
    while sent < total:
        root, log = place / "store", place / "log"
        command = [sys.executable, WORKER, "signalled", root, log, place / "runs", "0.03"]
        before = len(lines(log))
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while len(lines(log)) == before and process.poll() is None:
            time.sleep(0.002)  # the handlers stand before the first line
        time.sleep(clock.uniform(0, 0.3))
        number = clock.choice([*expected])
        gone = process.poll() is not None
        process.send_signal(number)
        sent += not gone
        try:
            out, err = process.communicate(timeout=clock.choice([0.01, 0.03, 5.0, 5.0]))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        code = process.returncode
        name = {0: "finished", -9: "killed", -number: "late"}.get(code, str(code))
        codes[name] += 1
        if code not in (0, -9, expected[number], -number):
            wrong.append(f"{signal.Signals(number).name}: exit code {code}: {err}")
        if "Traceback" in err and code != -number:
            wrong.append(err)
        if code == 0 or (code == -number and len(committed(Store(root))) == 3):
            if code == 0 and json.loads(out.splitlines()[-1]) != right:
                wrong.append(f"run {runs}: other digests")
            runs += 1
            place = tmp_path / str(runs)
            place.mkdir()
        elif code == -number:
            wrong.append(f"{signal.Signals(number).name} ended a run that was not done")
    final = carry_out(three_steps(), Store(place / "store")).digests
    if final != right:
        wrong.append("the last run: other digests")
    row(
        "SIGTERM, SIGINT, SIGUSR1 at random points, then SIGKILL after a grace time",
        f"{sent} signals, {runs} finished runs",
        f"exit codes {dict(sorted(codes.items()))}, {len(wrong)} wrong codes or digests",
        begun,
    )
    assert not wrong, first(wrong)
