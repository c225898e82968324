"""Pickled weights: refused, or on the user's word read as data alone and kept as safetensors."""

import os
import pickle
import shutil
from pathlib import Path

import pytest

from runner.checkpoint import Checkpoints
from runner.errors import StepError
from runner.stage import Context
from runner.stages import fetch
from runner.stages.fetch import Options


@pytest.fixture
def pickled(tiny_model, tmp_path) -> Path:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    return folder


def fetched(folder: Path, place: Path, **settings: bool) -> Path:
    options = fetch.resolve(Options(path=folder, **settings), {})
    (place / "work").mkdir(exist_ok=True)
    context = Context(draft=place / "work", checkpoint=Checkpoints(place / "c", print))
    return fetch.run(options, {}, context).folder


def test_pickled_weights_are_refused_with_the_option_to_allow_them(pickled, tmp_path):
    with pytest.raises(StepError, match="the only weights are a pickle") as error:
        fetched(pickled, tmp_path)
    assert "allow_pickle=true" in str(error.value)


def test_allowed_they_become_the_same_weights_in_safetensors(pickled, tiny_model, tmp_path):
    from safetensors.torch import load_file

    found = fetched(pickled, tmp_path, allow_pickle=True)
    assert not list(found.glob("*.bin"))
    ours, theirs = (load_file(each / "model.safetensors") for each in (found, tiny_model))
    assert ours.keys() == theirs.keys()
    assert all(bool((ours[name] == theirs[name]).all()) for name in ours)


def test_a_pickle_that_holds_code_is_not_run(pickled, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was-run'}",)

    (pickled / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(StepError, match="cannot be read as data"):
        fetched(pickled, tmp_path, allow_pickle=True)
    assert not (tmp_path / "was-run").exists()


def test_files_that_are_no_model_are_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.pt").write_bytes(b"anything")
    assert [path.name for path in fetched(tmp_path / "data", tmp_path).iterdir()] == ["rows.pt"]
