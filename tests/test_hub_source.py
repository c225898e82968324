"""Files of a Hub repository: which are chosen, how they come, what stops them, what is said."""

import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hub as double
import huggingface_hub
import pytest
from hub import Hub, Repo, Token
from huggingface_hub import constants

from runner import memo
from runner.checkpoint import Checkpoints
from runner.errors import StepError, Stopped
from runner.sources import hub
from runner.sources.hub import Source
from runner.sources.hub import (
    cache as hub_cache,
)
from runner.sources.hub import (
    errors as hub_errors,
)
from runner.sources.hub import (
    workers as hub_workers,
)
from runner.sources.hub import (
    xet as hub_xet,
)
from runner.sources.hub.repo import File
from runner.stage import Context

MB = 1 << 20
SECRET = "hf_a_token_that_nobody_may_see"
WEIGHTS = random.Random(1).randbytes(3 * MB + 17)
FILES = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "README.md": b"# tiny\n"}


@dataclass
class Said:
    """What a fetch told its run."""

    notes: list[str] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    stop_after: float = math.inf
    """Bytes after which a signal comes."""

    def context(self, folder: Path) -> Context:
        return Context(
            draft=folder,
            checkpoint=Checkpoints(folder / "c", print),
            note=self.notes.append,
            progress=lambda done, total, unit, **_: self.progress.append((done, total)),
            stop_signal=lambda: "SIGTERM" if self.done >= self.stop_after else None,
        )

    @property
    def done(self) -> int:
        return self.progress[-1][0] if self.progress else 0


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Hub cache of the test's own, nobody logged in, and little patience."""
    for name, value in {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DOWNLOAD_TIMEOUT": 5,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hub_errors, "PAUSE", 0.001)
    yield tmp_path / "hub"
    huggingface_hub.close_session()


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an address the Hub's."""

    def point(endpoint: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return point


@pytest.fixture
def served(reach: Any) -> Iterator[Hub]:
    """A Hub with one small model."""
    tokens = {SECRET: Token()}
    with double.serve(tiny(), tokens=tokens) as server:
        reach(server.endpoint)
        yield server


def tiny(name: str = "acme/tiny", **more: Any) -> Repo:
    return Repo(name, files={**FILES, "model.safetensors": WEIGHTS}, **more)


def bring(folder: Path, said: Said | None = None, repo: str = "acme/tiny", **more: Any) -> Path:
    return hub.bring(Source(repo=repo, **more), (said or Said()).context(folder))


def refused(folder: Path, **more: Any) -> StepError:
    """The error of a fetch that must fail; no secret is in it."""
    with pytest.raises(StepError) as caught:
        bring(folder, **more)
    for text in (str(caught.value), repr(caught.value)):
        assert SECRET not in text
        assert "/cdn/" not in text
        assert "\n" not in text.removesuffix(caught.value.command).strip()
    return caught.value


def log_in(monkeypatch: pytest.MonkeyPatch, token: str = SECRET) -> None:
    monkeypatch.setenv("HF_TOKEN", token)


# --- which files


def chosen(*names: str, **more: Any) -> set[str]:
    files = [File(name, 1, "0" * 40) for name in names]
    return {file.path for file in hub.wanted(files, Source(repo="a/b", **more))}


SMALL = {"config.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "LICENSE"}


@pytest.mark.parametrize(
    ("weights", "left_out"),
    [
        ({"model.safetensors"}, {"pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"}),
        ({"model.safetensors"}, {"model.fp16.safetensors", "model.gguf", "onnx/model.onnx"}),
        ({"model.safetensors"}, {"original/consolidated.00.pth", "consolidated.safetensors"}),
        ({"consolidated.safetensors"}, {"consolidated.pth"}),
        ({"model.fp16.safetensors"}, {"rust_model.ot"}),
        (
            {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
            | {"model.safetensors.index.json"},
            {"model.fp16-00001-of-00001.safetensors", "model.safetensors.index.fp16.json"}
            | {"pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"},
        ),
        (
            {"model.safetensors"},
            {"model-00001-of-00001.safetensors", "model.safetensors.index.json"},
        ),
        ({"model.safetensors"}, {"checkpoint-5/model.safetensors", "training_args.bin", ".git"}),
        ({"model.Q4.gguf"}, {"pytorch_model.bin", "mmproj.gguf"}),
        ({"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}, {"tf_model.h5"}),
        (set(), {"training_args.bin", "optimizer.pt"}),
    ],
)
def test_a_model_is_its_weights_in_one_form_and_the_small_files(weights, left_out):
    assert chosen(*SMALL, *weights, *left_out) == SMALL | weights


def test_pickles_are_fetched_where_the_recipe_allows_them():
    weights = {"pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"}
    names = {*SMALL, *weights, "model.pth", "optimizer.pt"}
    with pytest.raises(StepError, match=r"only as pickles .*allow_pickle: true"):
        chosen(*names)
    assert chosen(*names, allow_pickle=True) == SMALL | weights
    with pytest.raises(StepError, match="only as pickles"):
        chosen(*names, include=("*.bin",))
    assert chosen(*names, "a.safetensors", include=("*.bin", "a.*")) >= {"a.safetensors"}


def test_one_of_several_gguf_models_must_be_named():
    with pytest.raises(StepError, match=r"several GGUF models.*a\.Q4\.gguf, a\.Q8\.gguf"):
        chosen("config.json", "a.Q4.gguf", "a.Q8.gguf")
    assert chosen("a.Q4.gguf", "a.Q8.gguf", include=("*Q8*",)) == {"a.Q8.gguf"}


def test_weights_that_torch_does_not_load_are_refused():
    with pytest.raises(StepError, match=r"only as tf_model\.h5"):
        chosen("config.json", "tf_model.h5")


def test_of_a_dataset_everything_is_fetched():
    names = {"data/a.parquet", "x.bin", ".gitattributes"}
    assert chosen(*names, type="dataset") == names
    assert chosen(*names, type="dataset", exclude=("*.bin",)) == names - {"x.bin"}


def test_patterns_that_fit_nothing_are_refused_with_names_that_are_there():
    with pytest.raises(StepError, match=r'Did you mean "config\.json"\? It has config\.json, a'):
        chosen("config.json", "a", include=("confg.json",))


# --- fetching


def test_what_is_fetched_is_found_by_huggingface_hub(served, cache, tmp_path):
    said = Said()
    folder = bring(tmp_path, said)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        **FILES,
        "model.safetensors": WEIGHTS,
    }
    assert all(not os.path.isabs(path.readlink()) for path in folder.iterdir())
    assert {done <= total for done, total in said.progress} == {True}
    size = sum(map(len, FILES.values())) + len(WEIGHTS)
    assert {total for _, total in said.progress} == {size}  # known from the start
    assert said.progress[-1] == (size, size)
    found = huggingface_hub.snapshot_download("acme/tiny", local_files_only=True)
    assert Path(found) == folder
    huggingface_hub.snapshot_download("acme/tiny")
    assert len(served.asked("GET /cdn/")) == 1
    info = huggingface_hub.scan_cache_dir(cache)
    assert not info.warnings
    assert [repo.nb_files for repo in info.repos] == [4]


def test_what_is_fetched_loads_by_the_repositorys_name(reach, request, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    model = request.getfixturevalue("tiny_model")
    with double.serve(Repo.of("acme/tiny", model)) as server:
        reach(server.endpoint)
        bring(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    transformers.AutoModelForCausalLM.from_pretrained("acme/tiny")
    transformers.AutoTokenizer.from_pretrained("acme/tiny")


def test_a_data_set_that_is_fetched_opens_with_datasets(reach, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = tmp_path / "train-00000-of-00001.parquet"
    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(rows)
    files = {"README.md": b"# rows\n", f"data/{rows.name}": rows.read_bytes()}
    with double.serve(Repo("acme/rows", type="dataset", files=files)) as server:
        reach(server.endpoint)
        folder = bring(tmp_path, repo="acme/rows", type="dataset")
    read = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert read["text"][:] == ["a", "b"]


def test_the_librarys_own_check_finds_nothing_wrong(served, cache, tmp_path):
    bring(tmp_path)
    done = subprocess.run(
        [Path(sys.executable).with_name("hf"), "cache", "verify", "acme/tiny"],
        env=environment(served, cache),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_huggingface_hub_has_fetched_is_used(served, tmp_path):
    whole = huggingface_hub.snapshot_download("acme/tiny")
    sent = served.bytes_sent("resolve|cdn")
    said = Said()
    assert bring(tmp_path, said) == Path(whole)
    assert served.bytes_sent("resolve|cdn") == sent
    assert said.notes == []


def test_a_damaged_file_in_the_cache_is_fetched_again_and_said(served, tmp_path):
    folder = bring(tmp_path)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(WEIGHTS[:-1] + b"x")
    said = Said()
    bring(tmp_path, said)
    assert said.notes == ["model.safetensors in the Hub cache has other bytes than acme/tiny lists"]
    assert blob.read_bytes() == WEIGHTS
    (folder / "config.json").resolve().unlink()
    bring(tmp_path)
    assert (folder / "config.json").read_bytes() == b"{}"


def test_a_second_run_reads_no_large_file_again(served, tmp_path, monkeypatch):
    monkeypatch.setattr(memo, "RACY", 0)
    monkeypatch.setattr(memo, "LARGE", MB)
    read = []
    digest = hub_cache._digest

    def noted(path: Path, file: File, halt_here: Any) -> str:
        read.append(file.path)
        return digest(path, file, halt_here)

    monkeypatch.setattr(hub_cache, "_digest", noted)
    for _ in range(3):
        bring(tmp_path)
    assert read.count("model.safetensors") == 1  # the download itself was hashed as it came


def test_equal_files_are_fetched_once(reach, tmp_path):
    files = {"a/data.bin": WEIGHTS, "b/data.bin": WEIGHTS, "empty.txt": b"", "c/empty": b""}
    with double.serve(Repo("acme/d", "dataset", files), page_size=2) as server:
        reach(server.endpoint)
        folder = bring(tmp_path, repo="acme/d", type="dataset")
        assert len(server.asked("GET /cdn/")) == 1
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert folder.parts[-3] == "datasets--acme--d"


def test_a_commit_stays_what_it_is_when_the_branch_moves(reach, cache, tmp_path):
    repo = tiny()
    with double.serve(repo) as server:
        reach(server.endpoint)
        first = hub.pin(Source(repo="acme/tiny"))
        bring(tmp_path, commit=first.commit)
        second = repo.commit({"config.json": b"[]"})
        assert (bring(tmp_path, commit=first.commit) / "config.json").read_bytes() == b"{}"
        main = cache / "models--acme--tiny" / "refs" / "main"
        assert main.read_text() == first.commit
        assert (bring(tmp_path) / "config.json").read_bytes() == b"[]"
        assert main.read_text() == second
        bring(tmp_path, commit=first.commit)
        assert main.read_text() == second  # an old commit does not move the branch back
        assert len(server.asked("GET /cdn/")) == 1


def test_without_links_a_file_is_still_kept_once(served, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    path = bring(tmp_path) / "model.safetensors"
    assert not path.is_symlink()
    assert path.stat().st_nlink == 2


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "a\\b", "a\0b", "a//b"])
def test_a_name_that_leads_out_is_refused(reach, tmp_path, name):
    with double.serve(Repo("acme/evil", files={"config.json": b"{}", name: b"!"})) as server:
        reach(server.endpoint)
        assert "could lead out" in refused(tmp_path, repo="acme/evil").fact
        assert not server.asked("resolve|cdn")
    assert not list(tmp_path.rglob("out"))


# --- broken off


def test_a_connection_that_breaks_off_is_taken_up_where_it_did(served, tmp_path):
    served.fault("GET /cdn/", drop_after=MB // 3, times=8)
    folder = bring(tmp_path)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    asked = served.asked("GET /cdn/")
    assert [record.range for record in asked][:2] == [None, f"bytes={MB // 3}-"]
    assert served.bytes_sent("GET /cdn/") == len(WEIGHTS)


def test_a_server_that_knows_no_ranges_sends_the_whole_file(served, tmp_path):
    served.fault("GET /cdn/", drop_after=MB)
    served.fault("GET /cdn/", ignore_range=True)
    said = Said()
    folder = bring(tmp_path, said)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert said.notes == []
    assert said.progress[-1][0] == said.progress[-1][1]


def test_wrong_bytes_are_noticed_and_fetched_once_more(served, cache, tmp_path):
    served.fault("GET /cdn/", flip=5)
    said = Said()
    folder = bring(tmp_path, said)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert said.notes == [
        "model.safetensors came with other bytes than the repository lists; once more"
    ]


def test_bytes_that_are_wrong_twice_are_refused_and_not_kept(served, cache, tmp_path):
    served.fault("GET /cdn/", flip=5, times=math.inf)
    assert "came twice with other bytes" in refused(tmp_path).fact
    assert not list(cache.rglob(f"{'?' * 64}.incomplete"))  # of the weights; others were stopped
    served.faults.clear()
    bring(tmp_path)


def test_a_partial_file_with_wrong_bytes_is_thrown_away(served, cache, tmp_path):
    commit = hub.pin(Source(repo="acme/tiny")).commit
    bring(tmp_path, include=("*.json",), commit=commit)
    blobs = cache / "models--acme--tiny" / "blobs"
    file = next(file for file in listed(commit) if file.path == "model.safetensors")
    (blobs / f"{file.digest}.incomplete").write_bytes(b"\0" * MB)
    said = Said()
    assert (bring(tmp_path, said) / "model.safetensors").read_bytes() == WEIGHTS
    assert "once more" in said.notes[0]
    (blobs / file.digest).unlink()
    (blobs / f"{file.digest}.incomplete").write_bytes(WEIGHTS + b"too long")
    said = Said()
    assert (bring(tmp_path, said) / "model.safetensors").read_bytes() == WEIGHTS
    assert said.notes == []


def listed(commit: str | None) -> list[File]:
    from runner.sources.hub import repo as hub_repo

    return hub_repo.listing(Source(repo="acme/tiny", commit=commit))


def test_a_signal_ends_the_download_and_leaves_what_is_there(served, cache, tmp_path):
    served.fault("GET /cdn/", rate=2 * MB)
    with pytest.raises(Stopped):
        bring(tmp_path, Said(stop_after=MB // 2))
    (partial,) = cache.rglob("*.incomplete")
    size = partial.stat().st_size
    assert 0 < size < len(WEIGHTS)
    bring(tmp_path)
    assert served.asked("GET /cdn/")[-1].range == f"bytes={size}-"


DRIVER = """
import sys
from pathlib import Path
from runner.checkpoint import Checkpoints
from runner.sources import hub
from runner.stage import Context
folder = Path(sys.argv[1])
context = Context(folder, Checkpoints(folder / "c", print), note=lambda text: print("note:", text))
print(hub.bring(hub.Source(repo=sys.argv[2]), context))
"""


def environment(server: Hub, cache: Path) -> dict[str, str]:
    own = {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(cache.parent),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return {**os.environ, **own}


def start(server: Hub, cache: Path, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), "acme/tiny"],
        env=environment(server, cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_download_goes_on_where_it_was(served, cache, tmp_path):
    served.fault("GET /cdn/", rate=2 * MB)
    process = start(served, cache, tmp_path)
    while not (partials := list(cache.rglob("*.incomplete"))) or not partials[0].stat().st_size:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (partial,) = cache.rglob("*.incomplete")
    size = partial.stat().st_size
    process = start(served, cache, tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert (Path(out.strip()) / "model.safetensors").read_bytes() == WEIGHTS
    assert served.asked("GET /cdn/")[-1].range == f"bytes={size}-"


def test_two_processes_fetch_a_file_once(served, cache, tmp_path):
    served.fault("GET /cdn/", rate=3 * MB)
    both = [start(served, cache, tmp_path) for _ in range(2)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert served.bytes_sent("GET /cdn/") == len(WEIGHTS)


def test_where_locks_do_not_work_two_processes_still_leave_the_right_bytes(
    served, cache, tmp_path, monkeypatch
):
    @contextmanager
    def unlocked(*_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(hub_cache.Cache, "alone", unlocked)
    served.fault("GET /cdn/", rate=4 * MB, times=2)
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: bring(tmp_path), range(2)))
    assert (folders[0] / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(cache.rglob("*.incomplete"))


def test_who_waits_for_another_process_can_be_stopped(served, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_workers, "TICK", 0.01)
    source = hub.pin(Source(repo="acme/tiny"))
    place = hub_cache.Cache.of(source)
    place.prepare()
    file = next(file for file in listed(source.commit) if file.path == "model.safetensors")
    with place.alone(file, lambda: None), pytest.raises(Stopped):
        bring(tmp_path, Said(stop_after=sum(map(len, FILES.values()))))


# --- Xet


def test_a_file_in_xet_comes_by_xet_and_from_any_place_on(reach, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(hub_xet, "PIECE", MB)
    with double.serve(tiny(xet=True)) as server:
        reach(server.endpoint)
        commit = hub.pin(Source(repo="acme/tiny")).commit
        file = next(file for file in listed(commit) if file.path == "model.safetensors")
        blob = cache / "models--acme--tiny" / "blobs" / file.digest
        blob.parent.mkdir(parents=True)
        blob.with_name(f"{file.digest}.incomplete").write_bytes(WEIGHTS[: MB + 3])
        said = Said()
        folder = bring(tmp_path, said)
        assert not server.asked("GET /cdn/")
        assert len(server.asked("xet-read-token")) == 1
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert said.notes == []


def test_where_xet_does_not_answer_plain_http_goes_on(reach, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(hub_xet, "PIECE", MB)
    piece = hub_xet.Xet._piece

    def once(self: hub_xet.Xet, file: File, start: int) -> list[bytes]:
        if start:
            raise ConnectionError(f"https://cas.example/{SECRET}")
        return piece(self, file, start)

    monkeypatch.setattr(hub_xet.Xet, "_piece", once)
    with double.serve(tiny(xet=True)) as server:
        reach(server.endpoint)
        said = Said()
        folder = bring(tmp_path, said)
        assert [record.range for record in server.asked("GET /cdn/")] == [f"bytes={MB}-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert said.notes == ["Xet storage cannot be read; fetching over plain HTTP"]


def test_a_file_that_another_repository_brought_by_xet_is_shared(
    reach, cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with double.serve(tiny(xet=True), tiny("acme/copy", xet=True)) as server:
        reach(server.endpoint)
        huggingface_hub.snapshot_download("acme/copy")
        assert (cache / "blobs").is_dir()
        asked = len(server.asked("xet-read-token"))
        folder = bring(tmp_path)
        assert len(server.asked("xet-read-token")) == asked
    assert not server.asked("GET /cdn/")
    path = (folder / "model.safetensors").resolve()
    assert path.parent.parent == cache / "blobs"
    path.chmod(0o644)
    path.write_bytes(WEIGHTS[:-1])
    with double.serve(tiny(xet=True)) as server:
        reach(server.endpoint)
        assert (bring(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS


# --- what stops it


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(served, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=MB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    error = refused(tmp_path)
    assert error.fact.startswith("acme/tiny needs 3.1 MB on disk, and ")
    assert "has 1.0 MB free" in error.fact
    assert error.command == "HF_HOME=FOLDER runner run RECIPE"
    assert not served.asked("resolve|cdn")


def test_a_repository_that_is_not_there_has_a_likely_name(served, tmp_path):
    bring(tmp_path)
    error = refused(tmp_path, repo="acme/tny")
    assert error.fact == (
        f"{served.endpoint} has no model acme/tny, or it is private and you are not logged in. "
        'Did you mean "acme/tiny"?'
    )
    assert refused(tmp_path, repo="other/thing").command == "hf auth login"


def test_a_revision_that_is_not_there_has_a_likely_name(served, tmp_path):
    served.repos["model", "acme/tiny"].tags["v1.0"] = served.repos["model", "acme/tiny"].at("main")
    assert 'no revision "v1.1". Did you mean "v1.0"?' in refused(tmp_path, revision="v1.1").fact
    assert "It has main, v1.0." in refused(tmp_path, revision="other").fact
    served.fault("/refs", status=500, times=math.inf)
    bring(tmp_path)
    assert 'Did you mean "main"?' in refused(tmp_path, revision="mian").fact


@pytest.mark.parametrize("name", ["../x", "a/b/c", "-x", ""])
def test_a_name_that_no_repository_can_have_is_said(served, tmp_path, name):
    assert "is no name of a repository" in refused(tmp_path, repo=name).fact


def test_a_revision_that_leads_out_is_refused(served, tmp_path):
    assert "is no name of a branch" in refused(tmp_path, revision="../../../etc").fact


def test_a_gated_repository_says_where_to_ask(reach, tmp_path, monkeypatch):
    with double.serve(tiny(gated=True), tokens={SECRET: Token()}) as server:
        reach(server.endpoint)
        error = refused(tmp_path)
        assert "is gated, and you are not logged in" in error.fact
        assert f"{server.endpoint}/acme/tiny" in error.fact
        assert error.command == "hf auth login"
        log_in(monkeypatch)
        error = refused(tmp_path)
        assert "your account is not among those" in error.fact
        assert f"{server.endpoint}/acme/tiny" in error.fact


def test_who_is_let_in_gets_a_private_repository(reach, tmp_path, monkeypatch):
    tokens = {SECRET: Token(repos=("acme/tiny",))}
    with double.serve(tiny(private=True), tokens=tokens) as server:
        reach(server.endpoint)
        assert "or it is private and you are not logged in" in refused(tmp_path).fact
        log_in(monkeypatch)
        bring(tmp_path)
        assert not any(record.has_authorization for record in server.asked("GET /cdn/"))


def test_a_bad_token_is_an_error_or_a_note(served, tmp_path, monkeypatch):
    commit = hub.pin(Source(repo="acme/tiny")).commit
    log_in(monkeypatch, f"{SECRET}_gone")
    assert "does not accept your token (from HF_TOKEN)" in refused(tmp_path).fact
    assert "does not accept your token" in refused(tmp_path, commit=commit).fact
    monkeypatch.delenv("HF_TOKEN")
    folder = bring(tmp_path)
    log_in(monkeypatch, f"{SECRET}_gone")
    error = refused(tmp_path)  # main is not pinned
    assert error.command == "hf auth login"
    said = Said()
    assert bring(tmp_path, said, commit=commit) == folder
    assert said.notes == [
        f"{served.endpoint} does not accept your token (from HF_TOKEN). "
        "acme/tiny is used as it is in the Hub cache."
    ]
    (folder / "config.json").resolve().unlink()
    error = refused(tmp_path, commit=commit)
    assert error.fact.endswith("Not in the Hub cache: config.json (2 B).")


def test_without_network_the_cache_serves(served, reach, tmp_path):
    folder = bring(tmp_path)
    reach("http://127.0.0.1:9")
    said = Said()
    assert bring(tmp_path, said) == folder
    assert said.notes == [
        "http://127.0.0.1:9 cannot be reached. Is there a network, and is HF_ENDPOINT right? "
        "acme/tiny is used as it is in the Hub cache."
    ]
    (folder / "config.json").unlink()
    (folder / "README.md").resolve().unlink()
    assert "Not in the Hub cache: README.md (7 B)." in refused(tmp_path).fact


def test_a_mirrors_password_is_not_said(reach, tmp_path):
    reach("http://someone:secret@127.0.0.1:9")
    fact = refused(tmp_path).fact
    assert fact.startswith("http://127.0.0.1:9 cannot be reached")


def test_a_commit_that_is_none_is_refused(tmp_path):
    assert "is no commit" in refused(tmp_path, commit="../../x").fact


def test_no_network_and_nothing_cached_is_said(reach, tmp_path):
    reach("http://127.0.0.1:9")
    assert "cannot be reached" in refused(tmp_path).fact
    reach("http://no-such-host.invalid")
    assert "cannot be resolved" in refused(tmp_path).fact
    reach("no-address")
    assert "no address of a Hub" in refused(tmp_path).fact


def test_offline_what_is_missing_is_named(served, cache, tmp_path, monkeypatch):
    folder = bring(tmp_path)
    asked = len(served.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = Said()
    assert bring(tmp_path, said) == folder
    assert said.notes == []
    (folder / "model.safetensors").resolve().unlink()
    error = refused(tmp_path)
    assert "offline" in error.fact
    assert "Not in the Hub cache: model.safetensors (3.1 MB)." in error.fact
    assert error.command == "runner run RECIPE"
    assert "offline" in refused(tmp_path, repo="acme/other").fact
    assert len(served.requests) == asked


def test_offline_what_huggingface_hub_fetched_is_used(served, tmp_path, monkeypatch):
    whole = huggingface_hub.snapshot_download("acme/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert bring(tmp_path) == Path(whole)
    shutil.rmtree(Path(whole).parents[1] / "trees", ignore_errors=True)
    shutil.rmtree(hub_cache.default_root() / "listings", ignore_errors=True)
    assert bring(tmp_path) == Path(whole)  # the names of the blobs say what they must hold
    (Path(whole) / "config.json").resolve().write_bytes(b"[]")
    assert "Not in the Hub cache: config.json" in refused(tmp_path).fact


def test_a_server_that_does_not_answer_is_given_the_users_time(served, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    served.fault("GET /api", delay=1.3, times=math.inf)
    monkeypatch.setattr(hub_errors, "TRIES", 2)
    error = refused(tmp_path)
    assert "did not answer within 1 s" in error.fact
    assert error.command == "HF_HUB_DOWNLOAD_TIMEOUT=6 runner run RECIPE"


def test_trouble_that_passes_is_waited_out(served, tmp_path):
    served.fault("/api/.*/revision", status=503, times=4)
    served.fault("/api/.*/tree", hang_up=True, times=2)
    served.fault("GET /cdn/", status=500, times=4)
    served.fault("resolve/.*/config.json", status=429, headers={"Retry-After": "1"})
    begun = time.monotonic()
    assert (bring(tmp_path) / "model.safetensors").read_bytes() == WEIGHTS
    assert time.monotonic() - begun >= 1


def test_trouble_that_does_not_pass_is_said(served, tmp_path):
    served.fault("GET /cdn/", status=503, times=math.inf)
    assert "has trouble of its own (503)" in refused(tmp_path).fact
    assert len(served.asked("GET /cdn/")) == hub_errors.TRIES
    served.faults.clear()
    served.fault("GET /cdn/", hang_up=True, times=math.inf)
    assert "breaks off again and again" in refused(tmp_path).fact
    served.faults.clear()
    served.fault("GET /cdn/", cut=5, times=math.inf)
    assert "breaks off again and again" in refused(tmp_path).fact
    served.faults.clear()
    served.fault("GET .*/tree", status=429, headers={"Retry-After": "4000"}, times=math.inf)
    begun = time.monotonic()
    error = refused(tmp_path)
    assert "asks to wait 4000 s (429). Who is logged in may ask more often." in error.fact
    assert time.monotonic() - begun < 5


def test_an_address_that_is_no_hub_is_said(tmp_path, reach):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reach(f"http://127.0.0.1:{listener.getsockname()[1]}")
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\n<p>hi</p>"
        page = subprocess.Popen(
            [sys.executable, "-c", PAGE, str(listener.fileno()), answer.decode()],
            pass_fds=[listener.fileno()],
        )
        try:
            assert "cannot be read" in refused(tmp_path, commit="0" * 40).fact
            assert "cannot be read" in refused(tmp_path).fact
        finally:
            page.kill()
            page.wait()


PAGE = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(sys.argv[2].encode())
    connection.close()
"""


def test_a_full_disk_or_a_closed_cache_is_said(served, cache, tmp_path, monkeypatch):
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert "is full; what was fetched so far is kept" in refused(tmp_path).fact
    shutil.rmtree(cache)
    cache.write_text("a file where a folder should be")
    assert "May this user write" in refused(tmp_path).fact


def test_a_listing_in_the_librarys_form_is_read(served, cache, tmp_path, monkeypatch):
    huggingface_hub.snapshot_download("acme/tiny")
    (tree,) = cache.rglob("trees/*.json")
    kept = json.loads(tree.read_text())
    bring(tmp_path)
    (ours,) = (hub_cache.default_root() / "listings").rglob("*.json")
    sizes = {name: row["size"] for name, row in json.loads(ours.read_text())["files"].items()}
    assert {name: row["size"] for name, row in kept["files"].items()} == sizes
