"""Sweeps on a real cluster of Ray on this machine, of two machines as Ray sees it: `make test-ray`.

It lives in a network namespace that has a loopback alone, so that nobody else can reach it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from sweeping import begin, digests, folder_of, made, manifest_of, rows, sweep, write

from runner.store import Store
from runner.sweep import standing

WORDS = ["grow.rank=1,2", "tell.rank=1,2,3"]
SPACE = f"runner{os.getpid()}"
INSIDE = ["ip", "netns", "exec", SPACE]
HEAD, SECOND, PORT = "127.0.0.2", "127.0.0.3", "6390"
RAY = ["launch=ray", f"launch.address={HEAD}:{PORT}"]


def lacking():
    """Why there can be no such cluster here; nothing where there can."""
    if shutil.which("ray") is None:
        return "ray is missing: python -m pip install ray"
    if shutil.which("ip") is None:
        return "ip is missing: apt-get install iproute2"
    done = subprocess.run(["ip", "netns", "add", SPACE], capture_output=True, text=True)
    if done.returncode:
        return f"no network of its own can be made: {done.stderr.strip()}"
    return ""


def start(address, *more):
    """A raylet with a core, and at the first address the head."""
    command = ["ray", "start", f"--node-ip-address={address}", "--num-cpus=1", "--num-gpus=0"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats", *more]
    subprocess.run([*INSIDE, *command], check=True, capture_output=True, text=True)


def raylet_of(address):
    """The process of the raylet at this address."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("/raylet") and f"--node_ip_address={address}" in words:
            return int(path.parent.name)
    raise AssertionError(f"no raylet at {address}")


def on_ray(*words):
    """A sweep on the cluster."""
    return begin("sweep", *words, *RAY, inside=INSIDE)


def ended(process, timeout=150):
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, out


def said(path):
    return path.read_text() if path.exists() else ""


def until(what, seconds=60):
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(autouse=True, scope="module")
def ray(tmp_path_factory):
    """A head and a second raylet."""
    if why := lacking():
        pytest.skip(why)
    place = Path("/tmp") / SPACE  # a socket's path must be short
    tests = Path(__file__).parent.parent
    site = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patched:
        import sweepstages

        sweepstages.install(site)
        path = os.pathsep.join(map(str, [site, tests, tests.parent]))
        patched.setenv("PYTHONPATH", path)
        patched.setenv("RAY_AUTH_MODE", "token")
        patched.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex * 2)
        try:
            subprocess.run([*INSIDE, "ip", "link", "set", "lo", "up"], check=True)
            start(
                HEAD, "--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={place}"
            )
            start(SECOND, f"--address={HEAD}:{PORT}")
            yield
        finally:
            end(place)


def end(place):
    """End what lives in the namespace, and nothing else."""
    pids = subprocess.run(["ip", "netns", "pids", SPACE], capture_output=True, text=True)
    for pid in map(int, pids.stdout.split()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", SPACE], check=True)
    shutil.rmtree(place, ignore_errors=True)


def test_a_machine_that_dies_in_the_middle_changes_no_result(here, monkeypatch, tmp_path):
    log = here / "log"
    write(f"grow: {{log: {log}, rounds: 40, pause: 0.2}}")
    manifest = manifest_of(*WORDS)
    process = on_ray("r", *WORDS)
    until(lambda: said(log).count("grow round 3\n") == 2)  # one on each machine
    os.kill(raylet_of(SECOND), signal.SIGKILL)
    code, out = ended(process)
    assert code == 0, out
    grown = [key for key, row in manifest.keys.items() if row.name == "grow"]
    assert sorted(made()[key] for key in grown) == [1, 2]
    assert {made()[key] for key in {*manifest.keys} - {*grown}} == {1}
    assert said(log).count("grow from") == 1
    assert {row["state"] for row in rows(folder_of())} == {"done"}
    found = digests(standing.store_of(manifest), manifest)
    assert None not in found.values()
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "local"))
    write("grow: {rounds: 40}")
    assert sweep("r", *WORDS, "--sweeps", "local")[0] == 0
    assert digests(Store(tmp_path / "local"), manifest) == found


def test_steps_that_go_wrong_are_told_and_touch_no_other(here):
    write()
    code, out = ended(on_ray("r", "grow.does=null,refuse,kill", "sweep.retries=1"))
    assert code == 1, out
    assert "grow: refused: these data are no good." in out
    assert "grow: killed: its process was ended by SIGKILL. (tried 2 times)" in out
    states = [(row["grow.does"], row["state"]) for row in rows(folder_of())]
    assert states == [("null", "done"), ("refuse", "failed"), ("kill", "failed")]


def test_a_signal_ends_the_calls_with_checkpoints_and_the_command_goes_on(here):
    log = here / "log"
    write(f"grow: {{log: {log}, rounds: 50, pause: 0.2}}")
    process = on_ray("r", "tell.rank=1,2")
    until(lambda: "grow round 3\n" in said(log))
    os.killpg(process.pid, signal.SIGTERM)
    code, out = ended(process)
    assert code == 75, out
    reached = said(log).count("grow round")
    assert reached < 50
    code, out = ended(on_ray("r", "tell.rank=1,2"))
    assert code == 0, out
    assert said(log).count("grow round") == 50
    assert f"grow from {reached}" in said(log)


def test_a_cluster_that_is_not_there_is_told(here):
    write()
    code, out = ended(begin("sweep", "r", "launch=ray", "launch.address=127.0.0.9:6390"))
    assert code == 1, out
    assert "launch=ray: cannot reach 127.0.0.9:6390" in out
