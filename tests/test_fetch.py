"""Fetching: a wheel by pip, a Hub repository over loopback, local files."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import hub
import pytest

from runner import files
from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.stage import Context
from runner.stages import fetch
from runner.stages.fetch import Options


def context(folder: Path) -> Context:
    (folder / "work").mkdir(parents=True)
    return Context(draft=folder / "work", checkpoint=Checkpoints(folder / "c", print))


def fetched(options: Options, folder: Path) -> Any:
    """What a later step gets: run, kept, restored."""
    made = fetch.run(fetch.resolve(options, {}), {}, context(folder))
    (folder / "kept").mkdir()
    fetch.save(made, folder / "kept")
    return fetch.restore(folder / "kept", {})


# --- wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with data, a setup hook that must not run, and a name that leads out."""
    path = tmp_path / "index" / "somedata-1.0-py3-none-any.whl"
    path.parent.mkdir()
    about = "Metadata-Version: 2.1\nName: somedata\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("somedata/__init__.py", "raise SystemExit('code was run')")
        archive.writestr("somedata/rows.jsonl", '{"a": 1}\n')
        archive.writestr("somedata/../../escaped.jsonl", '{"a": 2}\n')
        archive.writestr("somedata-1.0.dist-info/METADATA", about)
        archive.writestr("somedata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("somedata-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def test_the_named_files_of_a_wheel_are_unpacked_and_nothing_else(wheel, tmp_path):
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    options = Options(wheel="somedata==1.0", sha256=digest, members=("*/rows.jsonl",))
    found = fetched(options, tmp_path / "f")
    assert [path.name for path in files.walk(found.folder)] == ["rows.jsonl"]
    assert (found.folder / "rows.jsonl").read_text() == '{"a": 1}\n'


def test_a_name_that_leads_out_of_the_folder_is_refused(wheel, tmp_path):
    options = Options(wheel="somedata==1.0", members=("*escaped.jsonl",))
    with pytest.raises(StepError, match="a name that leads out of it"):
        fetched(options, tmp_path / "f")
    assert not list(tmp_path.rglob("escaped.jsonl"))


def test_a_wheel_with_other_bytes_is_refused(wheel, tmp_path):
    options = Options(wheel="somedata==1.0", sha256="0" * 64, members=("*",))
    with pytest.raises(StepError, match=r"has sha256 [0-9a-f]{64} instead of 0{64}"):
        fetch.run(options, {}, context(tmp_path / "f"))


def test_a_wheel_that_is_not_there_is_said_in_one_line(wheel, tmp_path):
    options = Options(wheel="somedata==2.0", members=("*",))
    with pytest.raises(StepError, match=r"pip cannot download somedata==2\.0: ERROR"):
        fetch.run(options, {}, context(tmp_path / "f"))


def test_patterns_that_fit_nothing_are_refused(wheel, tmp_path):
    options = Options(wheel="somedata==1.0", members=("*.gguf",))
    with pytest.raises(StepError, match="has no file that fits"):
        fetch.run(options, {}, context(tmp_path / "f"))


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (Options(), "a source is exactly one of repo, path, url and wheel; here is none."),
        (Options(repo="a/b", wheel="c==1"), "here are repo and wheel."),
        (Options(wheel="somedata", members=("*",)), "must be pinned as name==version"),
        (Options(wheel="-r evil==1", members=("*",)), "must be pinned as name==version"),
        (Options(wheel="somedata==1.0"), "members must name"),
    ],
)
def test_a_source_is_one_thing_and_pinned(options, fact):
    assert [fact in fault.fact for fault in fetch.check(options, {})] == [True]


# --- local files


def test_a_local_file_is_known_by_its_bytes_not_by_its_path(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text("same\n")
    one, two = (
        fetch.resolve(Options(path=tmp_path / name / "rows.jsonl"), {}).digest
        for name in ("a", "b")
    )
    assert one == two
    (tmp_path / "b" / "rows.jsonl").write_text("other\n")
    assert fetch.resolve(Options(path=tmp_path / "b" / "rows.jsonl"), {}).digest != one


def test_a_file_that_changes_after_its_key_was_made_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text("before\n")
    options = fetch.resolve(Options(path=tmp_path / "rows.jsonl"), {})
    (tmp_path / "rows.jsonl").write_text("after\n")
    with pytest.raises(StepError, match="changed while it was read"):
        fetch.run(options, {}, context(tmp_path / "f"))


def test_a_local_folder_is_copied(tmp_path):
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.txt").write_text("a")
    found = fetched(Options(path=source), tmp_path / "f")
    assert (found.folder / "deep" / "a.txt").read_text() == "a"


# --- the Hub


DRIVER = """
import json, sys
from pathlib import Path
from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.stage import Context
from runner.stages import fetch
folder = Path(sys.argv[1])
options = fetch.Options(**json.loads(sys.argv[2]))
try:
    options = fetch.resolve(options, {})
    if len(sys.argv) == 3:
        (folder / "work").mkdir(parents=True)
        made = fetch.run(options, {}, Context(folder / "work", Checkpoints(folder / "c", print)))
        (folder / "kept").mkdir()
        fetch.save(made, folder / "kept")
    print(json.dumps({
        "commit": options.commit,
        "folder": str(fetch.restore(folder / "kept", {}).folder),
        "stale": fetch.stale(options, folder / "kept", {}),
    }))
except StepError as error:
    print(json.dumps({"error": str(error)}))
"""


REPO = "acme/tiny"


def ask(folder: Path, endpoint: str, *more: str, **options: Any) -> dict[str, Any]:
    """Fetch in a process of its own: the Hub's address is read when the library is imported."""
    given = json.dumps({"repo": REPO, **options})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), given, *more],
        env={
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder.parent / "hf"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_repository_is_pinned_to_a_commit_and_stays_in_the_hub_cache(tiny_model, tmp_path):
    import transformers

    with hub.serve(hub.Repo.of(REPO, tiny_model)) as server:
        found = ask(tmp_path / "f", server.endpoint, include=["*.json", "*.safetensors"])
        assert len(found["commit"]) == 40
        assert found["stale"] is None
        folder = Path(found["folder"])
        weights = (folder / "model.safetensors").resolve()
        assert weights.is_relative_to(tmp_path / "hf")
        assert (folder / "model.safetensors").read_bytes() == (
            tiny_model / "model.safetensors"
        ).read_bytes()
        assert not (folder / "chat_template.jinja").exists()  # it was not included
        assert sum(path.stat().st_size for path in (tmp_path / "f" / "kept").iterdir()) < 5000
    transformers.AutoModelForCausalLM.from_pretrained(folder)
    without_network = ask(tmp_path / "f", "http://127.0.0.1:9", "again")
    assert without_network["commit"] == found["commit"]
    (folder / "config.json").resolve().unlink()
    assert "config.json is missing" in ask(tmp_path / "f", "http://127.0.0.1:9", "again")["stale"]


def test_a_repository_or_revision_that_is_not_there_is_said_in_one_line(tiny_model, tmp_path):
    with hub.serve(hub.Repo.of(REPO, tiny_model)) as server:
        missing = ask(tmp_path / "f", server.endpoint, repo="acme/other")["error"]
        moved = ask(tmp_path / "f", server.endpoint, revision="v2")["error"]
    assert "has no model acme/other, or it is private and you are not logged in" in missing
    assert "v2" in moved
