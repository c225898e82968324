"""A saved folder on the Hub's double: what appears there, when, and who may bring it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub as double
import huggingface_hub
import pytest
from hub import Hub, Repo, Token
from huggingface_hub import constants
from test_stages import context

from runner.errors import StepError, Stopped
from runner.saving import push
from runner.saving.target import Push, asked
from runner.sources.hub import errors as hub_errors

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""huggingface_hub 1.33 sends files in a way that httpx 0.28 would have otherwise."""

WRITER, READER = "hf_" + "w" * 30, "hf_" + "r" * 30
WEIGHTS = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub cache of the test's own, somebody who may write logged in, and little patience."""
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(hub_errors, "PAUSE", 0.001)
    yield
    huggingface_hub.close_session()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub where someone may write and another one may read."""
    tokens = {WRITER: Token("write"), READER: Token("read")}
    with double.serve(Repo("acme/theirs"), tokens=tokens) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        template = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as save leaves it, and a file that it does not list."""
    return made(tmp_path / "saved", {"model.safetensors": WEIGHTS, "config.json": b"{}"})


def made(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    content = {**content, "README.md": b"---\nlicense: mit\n---\n# It\n"}
    for name, data in content.items():
        (folder / name).write_bytes(data)
    (folder / "runner.json").write_text(json.dumps({"files": {key: {} for key in content}}))
    (folder / "secret.txt").write_text("of the user's own")
    return folder


def names(folder: Path) -> list[str]:
    return sorted([*json.loads((folder / "runner.json").read_text())["files"], "runner.json"])


def upload(folder: Path, where: str | Push = "someone/new", **more: Any) -> dict[str, Any]:
    place = context(folder.parent / "c", **more)
    return push.upload(asked(where), folder, names(folder), place)


def repo(server: Hub, name: str = "someone/new") -> Repo:
    return server.repos["model", name]


# --- what appears


def test_a_push_is_one_commit_in_a_private_repository_with_the_listed_files_alone(server, folder):
    done = upload(folder)
    there = repo(server)
    assert there.private
    assert len(there.commits) == 2  # the initial one, and ours
    assert {name: kept.read() for name, kept in there.branches["main"].files.items()} == {
        name: (folder / name).read_bytes() for name in names(folder)
    }
    assert done["commit"] == there.branches["main"].sha
    assert done["url"] == f"{server.endpoint}/someone/new/tree/main"


def test_a_push_again_sends_nothing_and_makes_no_commit(server, folder):
    upload(folder)
    before = len(server.asked("PUT /lfs/"))
    assert before == 1
    upload(folder)
    assert len(server.asked("PUT /lfs/")) == before
    assert len(repo(server).commits) == 2


def test_a_push_to_a_branch_with_a_tag_leaves_main_alone(server, folder):
    done = upload(folder, Push(repo="someone/new", branch="next", tag="v1", private=False))
    there = repo(server)
    assert not there.private
    assert there.branches["next"].sha == there.tags["v1"].sha == done["commit"]
    assert dict(there.branches["main"].files) == {}
    upload(folder, Push(repo="someone/new", branch="next", tag="v1"))
    (folder / "config.json").write_text("{} ")
    with pytest.raises(StepError, match="has a tag v1 on another commit"):
        upload(folder, Push(repo="someone/new", branch="next", tag="v1"))


def test_a_pull_request_changes_no_branch(server, folder):
    done = upload(folder, Push(repo="someone/new", pull_request=True))
    there = repo(server)
    assert dict(there.branches["main"].files) == {}
    assert sorted(there.branches["refs/pr/1"].files) == names(folder)
    assert done["url"] == f"{server.endpoint}/someone/new/discussions/1"


def test_what_an_earlier_push_brought_goes_and_what_others_did_stays(server, folder, tmp_path):
    upload(folder)
    repo(server).commit({"notes.md": b"by hand"})
    parts = {f"model-0000{n}-of-00002.safetensors": WEIGHTS[:n] for n in (1, 2)}
    later = made(tmp_path / "later", parts)
    upload(later)
    assert sorted(repo(server).branches["main"].files) == sorted([*names(later), "notes.md"])


# --- what goes wrong on the way


DRIVER = """
import sys
from pathlib import Path
from runner.checkpoint import Checkpoints
from runner.saving import push
from runner.saving.target import Push
from runner.stage import Context
folder = Path(sys.argv[1])
context = Context(Path(sys.argv[2]), Checkpoints(Path(sys.argv[2]) / "c", print))
push.upload(Push(repo="someone/new", tag="v1"), folder, sys.argv[3:], context)
"""


def start(server: Hub, folder: Path) -> "subprocess.Popen[str]":
    env = os.environ | {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(folder.parent / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    work = folder.parent / "w"
    work.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), str(work), *names(folder)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("moment", ["POST .*/commit/main", "PUT /lfs/", "POST .*/tag/"])
def test_a_kill_leaves_nothing_half_visible_and_the_next_push_goes_on(moment, server, folder):
    server.fault(moment, delay=3600)
    process = start(server, folder)
    while not server.asked(moment) and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    there = repo(server)
    seen = sorted(there.branches["main"].files)
    assert seen == (names(folder) if "tag" in moment else [])
    sent = len([each for each in server.asked("PUT /lfs/") if each.status == 200])
    again = start(server, folder)
    out, _ = again.communicate()
    assert again.returncode == 0, out
    assert sorted(there.branches["main"].files) == names(folder)
    assert there.tags["v1"].sha == there.branches["main"].sha
    assert len(there.commits) == 2
    all_sent = [each for each in server.asked("PUT /lfs/") if each.status == 200]
    assert len(all_sent) == 1 >= sent  # what was there whole was not sent again


def test_trouble_that_passes_is_outlasted(server, folder):
    server.fault("POST .*/preupload/", status=503, times=2)
    server.fault("POST .*/commit/", hang_up=True)
    upload(folder)
    assert sorted(repo(server).branches["main"].files) == names(folder)


def test_a_signal_stops_a_push_between_files(server, folder):
    with pytest.raises(Stopped):
        upload(folder, stop_signal=lambda: "SIGTERM")
    assert dict(repo(server).branches["main"].files) == {}


# --- who may


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        (WRITER, "someone/new", None),
        (WRITER, "acme/theirs", "your token may not write there"),
        (WRITER, "acme/new", "you are someone, and may make no repository for acme"),
        (READER, "someone/new", "your token may only read"),
        ("hf_" + "x" * 30, "someone/new", "does not accept your token"),
        ("", "someone/new", "needs a token, and you are not logged in"),
    ],
)
def test_a_missing_permission_is_found_before_anything_is_sent(
    token, name, message, server, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", token)
    if message is None:
        push.ask_leave(asked(name))
    else:
        with pytest.raises(StepError, match=message) as caught:
            push.ask_leave(asked(name))
        assert not token or token not in str(caught.value)
    assert not server.asked("POST|PUT")


def test_a_hub_that_cannot_be_reached_may_be_there_later(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    push.ask_leave(asked("someone/new"))


def test_offline_a_push_is_refused_and_nobody_is_asked(server, monkeypatch):
    monkeypatch.setenv("RUNNER_OFFLINE", "1")
    with pytest.raises(StepError, match="needs the network, which may not be used"):
        push.ask_leave(asked("someone/new"))
    assert not server.asked()


def test_a_token_that_loses_its_right_while_the_run_goes_on_is_said_without_it(
    server, folder, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(StepError, match="your token may not write there") as caught:
        upload(folder)
    assert READER not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "fact"),
    [
        (Push(repo="new"), '"new" does not say whose it is.'),
        (Push(repo="a b/c"), '"a b/c" is no name of a repository.'),
        (Push(repo="a/b", tag="v1", pull_request=True), "a pull request has no tag before"),
    ],
)
def test_what_is_no_name_is_found_without_asking(where, fact):
    assert fact in next(push.faults(where)).fact
