"""What tests share: a store of their own, one thread, and the tiny model."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.store import Store

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that needs a hub starts one and says so
os.environ["TQDM_DISABLE"] = "1"


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Spare what costs time and is of no use here.

    A collection of garbage does not look through what the libraries have loaded by now. Nothing is
    synced to the disk: what loses bytes that were written is lost power, and not a dying process
    (`tests/torture` cuts the power).
    """
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees another's store, or the user's."""
    root = tmp_path_factory.mktemp("store")
    monkeypatch.setenv("RUNNER_STORE", str(root))
    return root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random chat model."""
    from tiny import make_model

    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, with the stages of `sweepstages` installed."""
    import sweepstages

    site = sweepstages.install(tmp_path / "site")
    monkeypatch.syspath_prepend(site)
    path = [str(site), str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="session")
def real_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct in a folder, fetched once for all; RUNNER_REAL_MODEL names another."""
    if there := os.environ.get("RUNNER_REAL_MODEL"):
        return Path(there)
    folder = tmp_path_factory.mktemp("real_model")
    recipe = "defaults: [{/fetch: smollm2-135m}, _self_]\nname: only\nsteps: [fetch]\n"
    (folder / "only.yaml").write_text(recipe, encoding="utf-8")
    env = {**os.environ, "RUNNER_STORE": str(folder / "store")}
    env.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "runner", "run", "only.yaml"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (config,) = folder.glob("store/entries/*/product/files/config.json")
    return config.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real model first: two processes share the tests by file, and these take longest."""
    items.sort(key=lambda item: item.get_closest_marker("real") is None)
