"""A sweep on this machine: shared steps once, whatever goes wrong, and what is left of it."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from sweeping import (
    begin,
    digests,
    disturbed,
    folder_of,
    made,
    manifest_of,
    rows,
    status,
    sweep,
    write,
)

from runner import cli
from runner.store import Store, default_root
from runner.sweep import manifest as manifests
from runner.sweep import standing, start

WORDS = ["grow.rank=1,2", "tell.rank=1,2,3"]
DISTINCT = 15
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def kept():
    """The store that commands of a test use."""
    return Store(default_root())


def all_done(manifest):
    store = standing.store_of(manifest)
    assert None not in digests(store, manifest).values()


@pytest.mark.parametrize("workers", [1, 3])
def test_every_distinct_step_is_made_exactly_once(here, kept, workers):
    write("grow: {log: LOG, rounds: 1, pause: 0.05}".replace("LOG", str(here / "log")))
    manifest = manifest_of(*WORDS)
    code, out = sweep("r", *WORDS, f"sweep.workers={workers}")
    assert code == 0, out
    assert made() == dict.fromkeys(manifest.keys, 1)
    assert len(manifest.keys) == DISTINCT
    assert len(list(kept.entries.iterdir())) == DISTINCT
    all_done(manifest)


def test_two_sweeps_at_once_make_every_step_once_between_them(here):
    write("grow: {log: LOG, rounds: 3, pause: 0.05}".replace("LOG", str(here / "log")))
    more = ["grow.rank=2,3", "tell.rank=2,3,4"]
    processes = [
        begin("sweep", "r", *words, "sweep.workers=3", "--sweeps", f"sweeps{number}")
        for number, words in enumerate([WORDS, WORDS, more])
    ]
    for process in processes:
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 0, out
    both = {**manifest_of(*WORDS).keys, **manifest_of(*more).keys}
    assert made() == dict.fromkeys(both, 1)


def test_results_are_those_of_single_runs(here, monkeypatch, tmp_path):
    write()
    manifest = manifest_of(*WORDS)
    assert sweep("r", *WORDS, "sweep.workers=2")[0] == 0
    found = digests(standing.store_of(manifest), manifest)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "other"))
    for job in manifest.jobs:
        assert cli.main(["run", "r", *job.overrides]) == 0
    assert digests(Store(tmp_path / "other"), manifest) == found


def test_a_sweep_that_is_done_runs_nothing_and_starts_no_process(here):
    write()
    assert sweep("r", *WORDS)[0] == 0
    logs = sorted((folder_of() / "logs").iterdir())
    before = made()
    code, out = sweep("r", *WORDS)
    assert code == 0
    assert "15 of them done" in out.replace("\n ", "")
    assert made() == before
    assert sorted((folder_of() / "logs").iterdir()) == logs


def test_models_stay_in_memory_for_all_that_need_them(here):
    write()
    words = ["grow.rank=1,2", "tell.rank=1,2,3,4,5,6,7,8"]
    assert sweep("r", *words)[0] == 0
    log = (here / "log").read_text().split("\n")
    assert log.count("grow run") == 2
    order = [line.split()[0] for line in (here / "log.keys").read_text().splitlines()]
    assert order[:2] == ["begin", "grow"]
    assert order.index("grow", 2) > 8  # all that read the first come before the second is made


def test_edits_after_the_start_change_nothing(here):
    write("grow: {log: LOG, rounds: 2, pause: 0.1}".replace("LOG", str(here / "log")))
    manifest = manifest_of(*WORDS)
    process = begin("sweep", "r", *WORDS)
    while not list(Path("sweeps").glob("r/*/manifest.json")):
        time.sleep(0.01)
    write("grow: {rank: 99, rate: 7.0}\ntell: {rate: 3.0}\nscore: {rate: 2.0}")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert {row["job"] for row in rows(folder_of())} == {job.id for job in manifest.jobs}
    all_done(manifest)
    code, out = sweep(manifest.id)
    assert code == 0, out
    assert made() == dict.fromkeys(manifest.keys, 1)


WRONG = {
    "exit": ("exit", "it called exit(3)."),
    "os._exit": ("exit", "its process ended with exit code 3."),
    "kill": ("killed", "its process was ended by SIGKILL."),
    "segfault": ("killed", "its process was ended by SIGSEGV."),
    "memory": ("out of memory", "MemoryError"),
    "raise": ("error", "ValueError: there is a mistake"),
    "refuse": ("refused", "these data are no good."),
}


def test_jobs_that_go_wrong_in_every_way_touch_no_other(here):
    write()
    ways = ",".join(WRONG)
    code, out = sweep("r", f"grow.does=null,{ways}", "tell.rank=1,2", "sweep.workers=2")
    assert code == 1
    found = rows(folder_of())
    states = {(row["grow.does"], row["state"]) for row in found}
    assert states == {("null", "done"), *((way, "failed") for way in WRONG)}
    for way, (cause, fact) in WRONG.items():
        assert f"grow: {cause}: " in out
        told = {row["cause"] for row in found if row["grow.does"] == way}
        assert len(told) == 1, told
        assert told.pop().startswith(f"grow: {cause}: ")
        assert fact in out
        assert f"grow.does={way}" in out
    assert "some last words" in out
    assert "Traceback" not in out.replace("    Traceback", "")


@pytest.mark.parametrize("way", ["kill", "os._exit", "memory"])
def test_a_step_whose_process_died_is_tried_again(here, way):
    write(f"grow: {{does: {way}, once: {here / 'mark'}, log: {here / 'log'}}}")
    code, out = sweep("r", "tell.rank=1,2")
    assert code == 0, out
    assert "trying again" in out
    rows_of = manifest_of("tell.rank=1,2").keys.values()
    assert made()[next(row.key for row in rows_of if row.name == "grow")] == 2
    assert not list((folder_of() / "failures").glob("*"))


def test_a_step_is_tried_as_often_as_asked_for(here):
    write(f"grow: {{does: kill, log: {here / 'log'}}}")
    code, out = sweep("r", "tell.rank=1,2", "sweep.retries=2")
    assert code == 1
    assert "(tried 3 times)" in out
    assert sorted(made().values()) == [1, 3]


@pytest.mark.parametrize("way", ["refuse", "raise", "exit"])
def test_what_would_fail_again_is_not_tried_again(here, way):
    write(f"grow: {{does: {way}, log: {here / 'log'}}}")
    assert sweep("r", "tell.rank=1,2", "sweep.retries=2")[0] == 1
    assert sorted(made().values()) == [1, 1]


def test_a_failed_step_is_made_by_the_same_command_once_it_can_be(here):
    write(f"grow: {{does: refuse, once: {here / 'mark'}, log: {here / 'log'}}}")
    assert sweep("r", "tell.rank=1,2")[0] == 1
    assert {row["state"] for row in status()} == {"failed"}
    assert sweep("r", "tell.rank=1,2")[0] == 0
    assert {row["state"] for row in status()} == {"done"}
    assert {row["cause"] for row in status()} == {""}


@pytest.mark.parametrize(("policy", "failed"), [("stop", 1), ("{stop_after: 2}", 2)])
def test_a_sweep_stops_after_as_many_failures_as_it_says(here, policy, failed):
    write(f"sweep: {{on_failure: {policy}}}")
    assert sweep("r", "grow.does=refuse", "grow.rank=1,2,3,4,5")[0] == 1
    states = [row["state"] for row in rows(folder_of())]
    assert states.count("failed") == failed
    assert states.count("waiting") == 5 - failed


def test_a_step_over_its_time_is_ended_and_its_work_kept(here, kept):
    write(f"grow: {{rounds: 100, log: {here / 'log'}}}")
    begun = time.monotonic()
    code, out = sweep("r", "grow.pause=0.05", "tell.rank=1,2", "sweep.timeout={grow: 1}")
    assert code == 1
    assert time.monotonic() - begun < 20
    assert "grow: timeout: it took longer than 1 s (sweep.timeout); its work is kept." in out
    reached = sum(line.startswith("grow round") for line in (here / "log").read_text().splitlines())
    assert 5 < reached < 40
    code, out = sweep("r", "grow.pause=0.001", "tell.rank=1,2")
    assert code == 0, out
    assert f"grow from {reached}" in (here / "log").read_text()


def test_a_step_that_never_looks_at_its_time_is_killed(here):
    write(f"grow: {{does: hang, log: {here / 'log'}}}")
    code, out = sweep("r", "tell.rank=1,2", "sweep.timeout=0.5", "sweep.grace=0.5")
    assert code == 1
    assert "grow: timeout" in out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)]
)
def test_a_signal_ends_the_sweep_with_checkpoints_and_the_command_goes_on(here, number, code):
    write(f"grow: {{rounds: 50, pause: 0.1, log: {here / 'log'}}}")
    words = ["grow.rank=1,2", "sweep.workers=2"]
    process = begin("sweep", "r", *words)
    while not (here / "log").exists() or (here / "log").read_text().count("grow round 1\n") < 2:
        time.sleep(0.02)
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code, out
    assert "the same command goes on from here" in out
    code, out = sweep("r", *words)
    assert code == 0, out
    said = (here / "log").read_text()
    assert said.count("grow from") == 2
    assert said.count("grow round") == 100


def test_values_that_are_added_make_only_what_is_new(here):
    write()
    assert sweep("r", *WORDS)[0] == 0
    before = made()
    code, out = sweep("r", "grow.rank=5", "--extend")
    assert code == 0, out
    assert len(rows(folder_of())) == 9
    assert {key: made()[key] for key in before} == before
    assert len(made()) == DISTINCT + 7
    assert sweep("r", "tell.rank=9", "--extend")[0] == 0
    assert len(rows(folder_of())) == 12
    assert sweep("r", *WORDS)[0] == 0
    assert len(rows(folder_of())) == 12


def test_the_best_job_and_the_command_that_saves_it(here, capsys):
    write("sweep: {objective: score.match}")
    assert sweep("r", "score.rank=3,9,5")[0] == 0
    assert cli.main(["best", "r"]) == 0
    said = capsys.readouterr().out
    assert "score.match 0.9\n  score.rank=9\n" in said
    assert said.endswith("  runner run r score.rank=9\n")
    assert cli.main(["best", "r", "--direction", "minimize"]) == 0
    assert "score.match 0.3" in capsys.readouterr().out
    assert cli.main(["best", "r", "--objective", "score.mtch"]) == 1
    assert 'no job has a score "score.mtch" yet.' in capsys.readouterr().err


def test_the_table_has_a_row_for_each_job_as_csv_and_parquet(here):
    from pyarrow import parquet

    write()
    assert sweep("r", *WORDS)[0] == 0
    table = parquet.read_table(folder_of() / "jobs.parquet").to_pylist()
    found = rows(folder_of())
    assert [row["job"] for row in table] == [row["job"] for row in found]
    for one, other in zip(table, found, strict=True):
        assert one["score.size"] == int(other["score.size"]) == 4
        assert one["seconds"] == float(other["seconds"]) >= 0
        assert one["peak_memory"] > 1_000_000
        assert (one["grow.rank"], one["tell.rank"]) == (other["grow.rank"], other["tell.rank"])


def test_run_with_m_is_the_same_sweep(here):
    import subprocess

    from sweeping import command

    write()
    done = subprocess.run(command("run", "-m", "r", *WORDS), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sweep("r", *WORDS)[0] == 0
    assert len(rows(folder_of())) == 6


def test_what_a_sweep_has_made_stays_as_long_as_its_folder(here, kept):
    write()
    assert sweep("r", *WORDS)[0] == 0
    assert cli.main(["store", "gc", "--keep", "0", "--delete"]) == 0
    all_done(manifest_of(*WORDS))
    shutil.rmtree("sweeps")
    assert cli.main(["store", "gc", "--keep", "0", "--delete"]) == 0
    assert not list(kept.entries.iterdir())


def test_a_sweep_that_is_not_there_is_told_with_a_guess(here, capsys):
    write()
    assert sweep("r", *WORDS)[0] == 0
    assert cli.main(["status", "rr"]) == 1
    assert 'there is no sweep "rr" in sweeps. ' in capsys.readouterr().err


def test_kills_at_random_change_no_result_and_nothing_is_done_twice(here, monkeypatch, tmp_path):
    slow = f"rounds: 3, pause: 0.03, log: {here / 'log'}"
    write(f"begin: {{{slow}}}\ngrow: {{{slow}}}")
    manifest = manifest_of(*WORDS)
    killed, redone = disturbed(WORDS, total=6, seed=1)
    assert killed == 6
    assert redone == []
    found = digests(standing.store_of(manifest), manifest)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "undisturbed"))
    assert sweep("r", *WORDS)[0] == 0
    assert digests(Store(tmp_path / "undisturbed"), manifest) == found


def test_a_file_that_is_edited_before_it_is_fetched_is_a_failure_that_says_so(here):
    Path("rows.jsonl").write_text('{"a": 1}\n')
    Path("f.yaml").write_text(
        "steps: [fetch, begin]\nfetch: {data: {path: rows.jsonl}}\nbegin: {rank: 1}\n"
    )
    sweeping = start.prepare("f", ["begin.rank=1,2"], Path("sweeps"))
    manifests.save(sweeping.manifest, sweeping.folder)
    Path("rows.jsonl").write_text('{"a": 2}\n')
    code, out = sweep(sweeping.manifest.id)
    assert code == 1
    assert f"fetch.data: refused: {here / 'rows.jsonl'} changed while it was read" in out


def test_workers_that_cannot_start_end_the_sweep_at_once(here):
    write()
    broken = "import os, sys\nif 'runner.launch.worker' in sys.orig_argv:\n    os._exit(7)\n"
    (here.parent / "site" / "sitecustomize.py").write_text(broken)
    code, out = sweep("r", *WORDS)
    assert code == 1
    assert "a worker's process cannot start: exit code 7." in out
    assert out.count("exit code 7") == 1
