"""The lock file: written, used, checked, renewed; and runs that refuse to go without it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub import Repo, serve
from test_bundle import NO_SOCKETS
from tiny import make_data

REPO = "acme/tiny"


class Place:
    """A working directory with a recipe that only fetches: a repository and local rows."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.lock = folder, folder / "mine.lock"
        make_data(folder / "rows.jsonl", rows=4)
        self.write({"model": {"repo": REPO}, "data": {"path": "rows.jsonl"}})
        self.env = {
            **os.environ,
            "RUNNER_STORE": str(folder / "store"),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }

    def write(self, fetch: dict[str, Any]) -> None:
        text = json.dumps({"steps": ["fetch"], "fetch": fetch})
        (self.folder / "mine.yaml").write_text(text)

    def call(self, *words: str, code: int = 0, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "runner", *words],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def rows(self) -> dict[str, dict[str, Any]]:
        return yaml.safe_load(self.lock.read_text())["sources"]

    def keys(self, *words: str) -> dict[str, str]:
        rows = json.loads(self.call("plan", "mine.yaml", "--json", *words))
        return {row["step"]: row["key"] for row in rows}


@pytest.fixture
def repo(tiny_model: Path) -> Repo:
    return Repo.of(REPO, tiny_model)


@pytest.fixture
def place(tmp_path, repo):
    with serve(repo) as hub:
        made = Place(tmp_path, hub.endpoint)
        made.hub = hub
        yield made


def test_what_floats_is_pinned_in_a_stable_order(place, repo):
    said = place.call("lock", "mine.yaml")
    assert said.splitlines()[-1] == "mine.lock: 2 sources pinned"
    commit = repo.branches["main"].sha
    model = {"repo": REPO, "type": "model", "revision": "main", "commit": commit}
    rows = place.rows()
    assert rows["fetch.model"] == model
    assert rows["fetch.data"]["path"] == "rows.jsonl"
    assert len(rows["fetch.data"]["digest"]) == 64
    assert "transformers" in yaml.safe_load(place.lock.read_text())["libraries"]
    text = place.lock.read_text()
    place.call("lock", "mine.yaml")
    assert place.lock.read_text() == text
    assert str(place.folder) not in text


def test_a_run_uses_the_locked_commit_though_the_branch_has_moved(place, repo):
    place.call("lock", "mine.yaml")
    locked = repo.branches["main"].sha
    before = place.keys()
    repo.commit({"README.md": b"moved"})
    assert place.keys() == before
    place.call("run", "mine.yaml")
    record = json.loads(next(place.folder.glob("runs/mine/*/record.json")).read_text())
    assert record["sources"]["fetch.model"]["commit"] == locked
    place.lock.unlink()
    assert place.keys() != before


def test_without_a_lock_file_the_record_holds_the_same_facts(place):
    place.call("run", "mine.yaml")
    record = json.loads(next(place.folder.glob("runs/mine/*/record.json")).read_text())
    place.call("lock", "mine.yaml")
    assert record["sources"] == place.rows()


def test_check_says_what_moved_and_from_which_commit_to_which(place, repo):
    place.call("lock", "mine.yaml")
    assert place.call("lock", "mine.yaml", "--check") == "nothing moved\n"
    old = repo.branches["main"].sha
    new = repo.commit({"README.md": b"moved"})
    said = place.call("lock", "mine.yaml", "--check", code=1)
    assert said == f"fetch.model: commit {old} -> {new}\n1 sources moved\n"


def test_update_renews_all_or_the_named_source(place, repo):
    place.call("lock", "mine.yaml")
    new = repo.commit({"README.md": b"moved"})
    place.call("lock", "mine.yaml")
    assert place.rows()["fetch.model"]["commit"] != new
    place.call("lock", "mine.yaml", "--update", "data")
    assert place.rows()["fetch.model"]["commit"] != new
    said = place.call("lock", "mine.yaml", "--update", "model")
    assert "changed: fetch.model: commit " in said
    assert place.rows()["fetch.model"]["commit"] == new
    newer = repo.commit({"README.md": b"moved again"})
    place.call("lock", "mine.yaml", "--update")
    assert place.rows()["fetch.model"]["commit"] == newer
    said = place.call("lock", "mine.yaml", "--update", "modle", code=1)
    assert 'there is no source "modle". Did you mean "model"?' in said


def test_locked_refuses_what_is_not_as_locked(place, repo):
    said = place.call("run", "mine.yaml", "--locked", code=1)
    assert said == "mine.lock: there is no lock file.\n  runner lock mine.yaml\n"
    place.call("lock", "mine.yaml")
    place.call("run", "mine.yaml", "--locked")
    make_data(place.folder / "rows.jsonl", rows=5)
    said = place.call("run", "mine.yaml", "--locked", code=1)
    assert said.startswith("mine.lock: fetch.data: digest ")
    assert "\n  See: runner lock mine.yaml --check\n" in said
    place.call("lock", "mine.yaml")
    place.call("run", "mine.yaml", "--locked")
    place.write({"model": {"repo": REPO, "revision": repo.branches["main"].sha}})
    said = place.call("plan", "mine.yaml", "--locked", code=1)
    assert "fetch.data is in the lock file and not in the recipe" in said
    assert "fetch.model: revision main -> " in said


def test_without_locked_a_run_says_what_is_not_as_locked_and_goes_on(place):
    place.call("lock", "mine.yaml")
    make_data(place.folder / "rows.jsonl", rows=5)
    assert "not as in the lock file: fetch.data: digest " in place.call("plan", "mine.yaml")
    assert "not as in the lock file: fetch.data: digest " in place.call("run", "mine.yaml")


@pytest.mark.parametrize(
    "text", ["", "- 1", "<<<<<<< HEAD\nsources: {}", "schema: 2\nsources: {}\n"]
)
def test_a_lock_file_that_cannot_be_read_is_said_with_the_way_out(text, place):
    place.lock.write_text(text)
    said = place.call("plan", "mine.yaml", code=1)
    assert said.startswith("mine.lock: is no lock file that can be read.\n  runner lock mine.yaml")
    place.call("lock", "mine.yaml", "--update")
    place.call("plan", "mine.yaml", "--locked")


def test_a_url_needs_a_digest_and_lock_finds_it(place, repo):
    address = f"{place.hub.endpoint}/{REPO}/resolve/main/config.json"
    place.write({"data": {"url": address}})
    said = place.call("plan", "mine.yaml", code=1)
    assert "say its sha256, or have it found and kept.\n  runner lock RECIPE" in said
    place.call("lock", "mine.yaml")
    assert place.rows()["fetch.data"]["url"] == address
    place.call("run", "mine.yaml", "--locked")
    products = next(place.folder.glob("runs/mine/*/products"))
    assert (products / "fetch.data" / "files" / "config.json").exists()
    repo.commit({"config.json": b"{}"})
    assert "sha256" in place.call("lock", "mine.yaml", "--check", code=1)


def test_a_wheel_is_pinned_by_what_the_package_index_says(place, tmp_path):
    import hashlib
    import zipfile

    path = tmp_path / "index" / "somedata-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("somedata/rows.jsonl", '{"a": 1}\n')
        about = "Metadata-Version: 2.1\nName: somedata\nVersion: 1.0\n"
        archive.writestr("somedata-1.0.dist-info/METADATA", about)
        archive.writestr("somedata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("somedata-1.0.dist-info/RECORD", "")
    place.write({"data": {"wheel": "somedata==1.0", "members": ["*/rows.jsonl"]}})
    place.env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(path.parent)}
    keys = place.keys()
    place.call("lock", "mine.yaml")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert place.rows()["fetch.data"] == {"wheel": "somedata==1.0", "sha256": digest}
    assert place.keys() == keys
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("somedata/more.jsonl", "")
    assert f"instead of {digest}" in place.call("run", "mine.yaml", code=1)


def test_a_collection_keeps_what_a_lock_file_stands_for(place):
    place.call("lock", "mine.yaml")
    place.call("run", "mine.yaml")
    assert "0 things" in place.call("store", "gc", "--keep", "0")
    place.lock.unlink()
    assert "2 things" in place.call("store", "gc", "--keep", "0")


def test_what_is_missing_offline_is_named_with_the_way_to_fetch_it(place):
    said = place.call("run", "mine.yaml", "--offline", code=1)
    assert REPO in said
    place.call("run", "mine.yaml")
    asked = len(place.hub.requests)
    (place.folder / "site").mkdir()
    (place.folder / "site" / "sitecustomize.py").write_text(NO_SOCKETS)
    path = os.pathsep.join([str(place.folder / "site"), os.environ.get("PYTHONPATH", "")])
    said = place.call("run", "mine.yaml", "--offline", PYTHONPATH=path)
    assert "0 steps run, 2 reused" in said
    place.call("store", "gc", "--keep", "0", "--delete")
    said = place.call("run", "mine.yaml", "--offline", PYTHONPATH=path)
    assert "2 steps run, 0 reused" in said  # from the Hub cache, every byte checked
    assert len(place.hub.requests) == asked


def test_the_cache_says_which_recipes_use_what(place, repo):
    assert "0 B  used by no recipe" in place.call("cache")
    place.call("run", "mine.yaml")
    first = repo.branches["main"].sha
    said = place.call("cache")
    assert f"model    {REPO}@{first[:12]}  mine\n" in said
    place.call("store", "gc", "--keep", "0", "--delete")
    said = place.call("cache")
    assert f"{REPO}@{first[:12]}  no recipe of this store\n" in said
    assert f"to let it go: hf cache rm {first}" in said


def test_a_file_is_fetched_by_an_hf_address(place):
    place.write({"data": {"url": f"hf://{REPO}/config.json"}})
    place.call("lock", "mine.yaml")
    place.call("run", "mine.yaml", "--locked")
    products = next(place.folder.glob("runs/mine/*/products"))
    config = json.loads((products / "fetch.data" / "files" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
