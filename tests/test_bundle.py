"""A bundle: made where there is a network, run where there is none, to the same keys and bytes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub import Repo, serve
from tiny import make_recipe

NO_SOCKETS = """
import socket

def refuse(*_, **__):
    raise RuntimeError("a socket was to be opened")

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse
socket.getaddrinfo = refuse
"""


def call(folder: Path, *words: str, code: int = 0, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "runner", *words],
        cwd=folder,
        env={
            **os.environ,
            "RUNNER_STORE": str(folder / "store"),
            "HF_HOME": str(folder / "hf"),
            **env,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def record(folder: Path) -> dict[str, Any]:
    newest = max((folder / "runs" / "tiny").iterdir(), key=lambda path: path.name)
    return json.loads((newest / "record.json").read_text())["steps"]


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A run with a network, and its bundle."""
    here = tmp_path_factory.mktemp("here")
    path = make_recipe(here, tiny_model, max_steps=2)
    values = json.loads(path.read_text())
    values["fetch"]["model"] = {"repo": "acme/tiny"}
    path.write_text(json.dumps(values))
    with serve(Repo.of("acme/tiny", tiny_model)) as hub:
        net = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        said = call(here, "bundle", "tiny.yaml", "--to", "carried", **net)
        assert "carried: 2 sources, " in said
        call(here, "run", "tiny.yaml", **net)
    return here


@pytest.fixture
def there(made, tmp_path):
    """Another machine: no store, no cache, no network; the bundle was copied to it."""
    shutil.copytree(made / "carried", tmp_path / "carried")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_SOCKETS)
    return tmp_path


def test_a_bundle_runs_without_a_socket_to_the_same_keys_and_bytes(made, there):
    path = os.pathsep.join([str(there / "site"), os.environ.get("PYTHONPATH", "")])
    call(there, "run", "--bundle", "carried", "--locked", PYTHONPATH=path, HF_HUB_OFFLINE="0")
    ours, theirs = record(made), record(there)
    assert set(ours) == set(theirs)
    for name in ours:
        if name != "save":  # its folder is part of its key
            assert theirs[name]["key"] == ours[name]["key"]
        if name not in ("save", "fetch.model"):  # here the bytes stay in the Hub cache
            assert theirs[name]["digest"] == ours[name]["digest"]
    assert (there / "saved" / "model.safetensors").read_bytes() == (
        made / "saved" / "model.safetensors"
    ).read_bytes()
    assert call(there, "run", "--bundle", "carried", "adapt.rank=2").count("reused") == 1


def test_the_sockets_of_that_test_are_really_blocked(there):
    path = str(there / "site")
    done = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert "a socket was to be opened" in done.stderr


def test_nothing_of_the_first_machine_is_in_a_bundle(made):
    for path in (made / "carried").rglob("*"):
        assert not path.is_symlink()
        if path.is_file():
            assert str(made).encode() not in path.read_bytes(), path


def test_a_damaged_bundle_is_refused(there):
    weights = next((there / "carried").rglob("model.safetensors"))
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    said = call(there, "run", "--bundle", "carried", code=1)
    assert said.startswith("fetch.model: the bundle is damaged: ")
    assert "model.safetensors has other bytes" in said


def test_a_folder_that_is_no_bundle_is_said_so(tmp_path):
    said = call(tmp_path, "run", "--bundle", "nothing", code=1)
    assert said.startswith("nothing: is no bundle: it has no recipe.yaml.\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    make_recipe(tmp_path, tmp_path / "other")
    said = call(tmp_path, "bundle", "tiny.yaml", "--to", "other", code=1)
    assert "holds something else than a bundle" in said


def test_a_recipe_is_needed_where_there_is_no_bundle(tmp_path):
    assert "the following arguments are required: recipe" in call(tmp_path, "run", code=2)
