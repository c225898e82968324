"""Sweeps as jobs of a real Slurm on this machine: `make test-slurm`."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import slurm_up
from sweeping import begin, digests, folder_of, made, manifest_of, rows, status, sweep, write

from runner import files
from runner.store import Store
from runner.sweep import standing

WORDS = ["grow.rank=1,2", "tell.rank=1,2,3"]
SLURM = ["launch=slurm", "launch.partition=low"]
pytestmark = [
    pytest.mark.timeout(170),
    pytest.mark.skipif(bool(slurm_up.lacking()), reason=slurm_up.lacking()),
]


@pytest.fixture(autouse=True, scope="module")
def slurm():
    with slurm_up.slurm() as conf:
        yield conf


def queue(*more):
    command = ["squeue", "-h", "-r", "-o", "%i %P %C %l %b %E", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def until(what, seconds=60):
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, queue()
        time.sleep(0.2)
    return found


def said(path):
    return path.read_text() if path.exists() else ""


def test_a_sweep_goes_on_without_its_program_and_gives_what_it_gives_here(
    here, monkeypatch, tmp_path
):
    write(f"grow: {{log: {here / 'log'}, rounds: 2, pause: 0.2}}")
    more = ["launch.resources.tell.minutes=7", "launch.resources.tell.cpus=2"]
    more += ["launch.resources.begin.memory=0.5", "launch.cpu_partition=cpu"]
    more += ["launch.resources.grow.gpus=1"]
    manifest = manifest_of(*WORDS)
    code, out = sweep("r", *WORDS, *SLURM, *more, "--detach")
    assert code == 0, out
    assert f"runner status {manifest.id}" in out
    jobs = files.read_json(folder_of() / "slurm" / "jobs.json")
    assert {*jobs} == {*manifest.keys}
    assert len({job.partition("_")[0] for job in jobs.values()}) == 6  # begin, grow, and two each
    waiting = {line.split()[0]: line.split() for line in queue()}
    tells = [jobs[key] for key, row in manifest.keys.items() if row.name == "tell"]
    for job in tells:
        assert re.fullmatch(r"\d+_\d", job)  # three a rank are one array
        assert waiting[job][1:5] == ["cpu", "2", "7:00", "N/A"]
        assert waiting[job][5].startswith("afterok:")
    scores = [jobs[key] for key, row in manifest.keys.items() if row.name == "score"]
    assert all(waiting[job][5].startswith("aftercorr:") for job in scores)
    grows = [jobs[key] for key, row in manifest.keys.items() if row.name == "grow"]
    for job in grows:
        assert waiting[job][1] == "low"
        assert waiting[job][4] == "gres:gpu:1"
    code, out = sweep(manifest.id, "--collect")
    assert code == 75, out
    process = begin("sweep", manifest.id)  # follows the jobs that are there, and may be killed
    until(lambda: [row for row in status(manifest.id) if row["state"] != "waiting"])
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    code, out = sweep("r", *WORDS, *SLURM, *more, timeout=120)
    assert code == 0, out
    assert files.read_json(folder_of() / "slurm" / "jobs.json") == jobs
    assert made() == dict.fromkeys(manifest.keys, 1)
    assert sweep(manifest.id, "--collect")[0] == 0
    assert {row["state"] for row in rows(folder_of())} == {"done"}
    found = digests(standing.store_of(manifest), manifest)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "local"))
    assert sweep("r", *WORDS, "--sweeps", "local", "launch=local")[0] == 0
    assert digests(Store(tmp_path / "local"), manifest) == found
    assert None not in found.values()


def test_a_preempted_job_and_one_out_of_time_go_on_from_their_checkpoints(here):
    log = here / "log"
    write(f"grow: {{log: {log}, rounds: 120, pause: 0.3}}\nbegin: {{log: {log}}}")
    words = ["launch.resources.grow.minutes=1", "launch.notice=58"]
    process = begin("sweep", "r", "tell.rank=1,2", *SLURM, *words)
    until(lambda: "grow round 3\n" in said(log))
    cores = str(slurm_up.CORES)
    subprocess.run(["srun", "-Q", "-p", "high", "-c", cores, "true"], check=True, timeout=60)
    out, _ = process.communicate(timeout=150)
    assert process.returncode == 0, out
    text = said(log)
    assert text.count("grow run") >= 3
    assert text.count("grow from") == text.count("grow run") - 1
    rounds = re.findall(r"^grow round (\d+)$", text, re.MULTILINE)
    assert rounds == [str(number) for number in range(1, 121)]
    printed = "".join(path.read_text() for path in (folder_of() / "slurm").glob("*_log.err"))
    assert "Calling checkpoint method" in printed + said_by_jobs()


def said_by_jobs():
    return "".join(path.read_text() for path in (folder_of() / "slurm").glob("*_log.out"))


def test_jobs_that_go_wrong_are_told_and_what_waits_for_them_never_starts(here):
    write(f"tell: {{log: {here / 'log'}}}")
    ways = ["grow.does=null,refuse,kill,hang", "sweep.retries=1"]
    process = begin("sweep", "r", *ways, *SLURM)
    manifest = manifest_of(*ways)
    until(lambda: list(Path("sweeps").glob("r/*/slurm/jobs.json")))
    place = folder_of() / "slurm" / "jobs.json"
    [hangs] = [
        key
        for key, row in manifest.keys.items()
        if row.name == "grow" and row.options["does"] == "hang"
    ]
    until(lambda: made()[hangs])
    subprocess.run(["scancel", files.read_json(place)[hangs]], check=True)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1, out
    states = {(row["grow.does"], row["state"]) for row in rows(folder_of())}
    assert states == {
        ("null", "done"),
        *((way, "failed") for way in ("refuse", "kill", "hang")),
    }
    assert "grow: refused: these data are no good." in out
    assert "grow: killed: its process was ended by SIGKILL. (tried 2 times)" in out
    assert "grow: cancelled: its job was cancelled" in out
    assert said(here / "log").count("tell run") == 1
    until(lambda: not queue())


def test_what_slurm_refuses_is_told_by_the_step(here):
    write()
    code, out = sweep("r", "tell.rank=1,2", *SLURM, "launch.resources.begin.memory=64")
    assert code == 1
    assert "Slurm refuses begin: " in out
    assert "launch.resources.begin" in out
    code, out = sweep("r", "tell.rank=1,2", "launch=slurm", "launch.partition=lwo")
    assert code == 1
    assert "invalid partition specified: lwo" in out


def test_a_sweep_that_stops_takes_its_jobs_back(here):
    write(f"grow: {{log: {here / 'log'}}}")
    code, out = sweep("r", "grow.does=hang,refuse", "sweep.on_failure=stop", *SLURM)
    assert code == 1, out
    assert "stopping: sweep.on_failure says so" in out
    assert {row["grow.does"] for row in rows(folder_of()) if row["state"] == "failed"} == {"refuse"}
    until(lambda: not queue())
