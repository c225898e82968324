"""What the doctor finds: on this machine, on a broken one, and what it never says."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import hub

from runner import abilities, cli, doctor, extras, places, selftest
from runner.secrets import HIDDEN

ROOT = Path(__file__).parent.parent
TOKEN = "hf_" + "abcdefghij" * 3


def examined(folder, *words, **environment):
    """What `runner doctor` prints in a process of its own, and its exit code."""
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home"), **environment}
    command = [sys.executable, "-m", "runner", "doctor", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=500)
    assert done.stderr == ""
    return done.stdout, done.returncode


def test_every_area_is_told_and_nothing_heavy_is_loaded(tmp_path):
    code = (
        "import sys; from runner.cli import main; code = main(['doctor'])\n"
        "print({'torch', 'transformers', 'datasets', 'hydra'} & set(sys.modules)); sys.exit(code)"
    )
    env = {**os.environ, "RUNNER_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "set()"
    areas = list(dict.fromkeys(line[3:12].strip() for line in lines[:-1] if line[:2].strip()))
    assert areas == "Python libraries machine GPU extras Hub disk files".split()
    assert "not asked, for the network may not be used; no token" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_the_hub_is_told_to_be_reached_and_as_whom(tmp_path):
    with hub.serve(tokens={TOKEN: hub.Token(user="ada")}) as server:
        said, code = examined(tmp_path, HF_ENDPOINT=server.endpoint, HF_TOKEN=TOKEN)
    assert f"ok Hub        {server.endpoint} is reached, logged in as ada\n" in said
    assert TOKEN not in said
    assert code == 0


def test_a_token_that_the_hub_does_not_know_is_a_fault(tmp_path):
    with hub.serve() as server:
        said, code = examined(tmp_path, "--json", HF_ENDPOINT=server.endpoint, HF_TOKEN=TOKEN)
    (found,) = [each for each in json.loads(said) if each["area"] == "Hub"]
    assert found["fact"] == f"{server.endpoint} does not accept your token"
    assert found["cure"] == "hf auth login"
    assert code == 1


def test_a_hub_that_is_not_reached_is_no_fault_of_this_machine(tmp_path):
    said, code = examined(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "!  Hub        http://127.0.0.1:9 cannot be reached." in said
    assert code == 0


def test_a_store_that_cannot_be_written_is_a_fault(tmp_path):
    if os.geteuid() == 0:
        place = Path("/proc")  # where not even root may write
    else:
        place = tmp_path / "store"
        place.mkdir(mode=0o500)
    said, code = examined(tmp_path, RUNNER_STORE=str(place), RUNNER_OFFLINE="1")
    assert f"!! files      {place} cannot be written: " in said
    assert "Set RUNNER_STORE to a folder that you may write to." in said
    assert code == 1


def test_a_secret_in_a_finding_is_hidden(monkeypatch, capsys):
    def look():
        yield doctor.Finding("disk", f"in /tmp/{TOKEN}", f"try {TOKEN}")

    monkeypatch.setattr(doctor, "AREAS", (look,))
    for words in ([], ["--json"]):
        assert cli.main(["doctor", *words]) == 0
        shown = capsys.readouterr().out
        assert TOKEN not in shown
        assert shown.count(HIDDEN) == 2


def test_other_versions_than_the_tested_ones_are_told(monkeypatch):
    tested = {"blake3": "0.0.1", "nothing-of-the-kind": "1.0"}
    monkeypatch.setattr(doctor, "_tested", lambda: tested)
    found = [each for each in doctor.of_libraries() if not each.fault]
    assert found[0].fact == "0 of 1 as in the tested set"
    assert re.fullmatch(r"others: blake3 0\.0\.1 -> \S+", found[1].fact)


def test_a_library_that_is_missing_is_a_fault(monkeypatch):
    monkeypatch.setattr(doctor, "_required", lambda: ["blake3", "nothing-of-the-kind"])
    first = next(doctor.of_libraries())
    assert (first.fact, first.fault) == ("missing: nothing-of-the-kind", True)
    assert first.cure == "python -m pip install nothing-of-the-kind"


def test_the_tested_set_is_read_whole():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(doctor._tested()) == sum("==" in line for line in lines if line[0] != "#") > 50
    assert places.shipped("constraints.txt").is_file()


def test_every_extra_of_the_package_is_known_with_what_it_enables():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {*declared["optional-dependencies"]} - {"test"}
    assert names == {*extras.EXTRAS} == {*extras.ENABLES}
    assert all(extras.ENABLES.values())


def test_a_good_file_system_can_do_what_is_needed(tmp_path):
    found = abilities.abilities(tmp_path)
    assert [*found] == [*abilities.ABILITIES]
    assert all(found[name] for name in ("renaming", "locks", "hard links", "symbolic links"))
    assert [*tmp_path.iterdir()] == []


def test_what_a_file_system_refuses_is_told_with_what_it_means(monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, refuse)
    found = {each.fact: each for each in doctor.of_file_system()}
    assert "the store's file system has locks, symbolic links" in next(iter(found))
    assert found["no hard links"].cure == "files are copied, which takes room and time"
    assert not found["no hard links"].fault
    assert found["no renaming"].fault


def test_the_self_test_carries_a_whole_run_out(tmp_path):
    said, code = examined(tmp_path, "--self-test", RUNNER_OFFLINE="1")
    lines = [line for line in said.splitlines() if "self-test" in line]
    assert len(lines) == 3, said
    assert all(line.startswith("ok self-test  ") for line in lines)
    assert code == 0
    assert [*tmp_path.iterdir()] == []


def test_a_self_test_that_fails_is_a_fault_and_says_why(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "AREAS", ())
    monkeypatch.setattr(selftest, "MAKE", "raise SystemExit('no bread')")
    assert cli.main(["doctor", "--self-test"]) == 1
    assert capsys.readouterr().out == (
        "!! self-test  not so: a random model is written\n              no bread\n"
    )
