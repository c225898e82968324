"""Sweeps of real stages: a tiny model in every run of the tests, SmolLM2-135M in `make long`."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from sweeping import command, digests, rows
from tiny import make_recipe

from runner.store import Store
from runner.sweep import manifest as manifests

SHARED = ["fetch.model", "fetch.data", "process", "load", "before"]


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """A command in a folder, with the store beside it."""
    return subprocess.Popen(
        command(*words),
        cwd=folder,
        env=os.environ | {"RUNNER_STORE": str(folder / "store")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, *words: str) -> str:
    process = start(folder, *words)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    return out


def of_sweep(folder: Path) -> tuple[Path, manifests.Manifest]:
    """The only sweep's folder and manifest."""
    [path] = folder.glob("sweeps/*/*")
    found = manifests.load(path)
    assert found is not None
    return path, found


def made_by(out: str) -> list[str]:
    """The keys, shortened, that a sweep's workers made themselves."""
    return re.findall(r"^\[\d+/\d+\] \S+ (\w+): done in", out, re.MULTILINE)


def test_a_tiny_model_gives_in_a_sweep_what_it_gives_in_single_runs(tiny_model, tmp_path):
    folder, alone = tmp_path / "sweep", tmp_path / "alone"
    for each in (folder, alone):
        each.mkdir()
        make_recipe(each, tiny_model)
    words = ["adapt.rank=2,4", "after.temperature=0.0,0.9", "sweep.workers=2"]
    out = run(folder, "sweep", "tiny.yaml", *words)
    path, manifest = of_sweep(folder)
    names = [row.name for row in manifest.keys.values()]
    assert {name: names.count(name) for name in names} == {
        **dict.fromkeys(SHARED, 1),
        "adapt": 2,
        "after": 4,
        "quantize": 2,
        "evaluate": 4,
    }
    assert sorted(made_by(out)) == sorted(key[:8] for key in manifest.keys)
    assert manifest.left_out == ("save",)
    assert {row["state"] for row in rows(path)} == {"done"}
    assert all(float(row["evaluate.perplexity.model"]) > 1 for row in rows(path))
    job = manifest.jobs[-1]
    run(alone, "run", "tiny.yaml", *job.overrides)
    found, expected = (digests(Store(each / "store"), manifest) for each in (folder, alone))
    for row in manifest.steps(job):
        assert found[row.key] == expected[row.key], row.name


@pytest.mark.real
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_24_jobs_of_the_real_model_by_two_sweeps_at_once_make_every_step_once(tmp_path):
    words = [
        "quickstart",
        "adapt.rank=4,8",
        "quantize=nf4,int8",
        "generate.temperature=0.0,0.2,0.4,0.6,0.8,1.0",
        "adapt.max_steps=8",
        "process.held_out=16",
        "evaluate.perplexity_rows=8",
        "sweep.objective=evaluate.exact_match",
    ]
    sweeps = [
        start(tmp_path, "sweep", *words, f"sweep.workers={n}", "--sweeps", f"sweeps/{n}")
        for n in (1, 3)
    ]
    outs = [process.communicate()[0] for process in sweeps]
    assert [process.returncode for process in sweeps] == [0, 0], outs
    [path] = tmp_path.glob("sweeps/1/quickstart/*")
    manifest = manifests.load(path)
    assert manifest is not None
    assert len(manifest.jobs) == 24
    assert len(manifest.keys) == len(SHARED) + 2 + 12 + 4 + 24
    made = [key for out in outs for key in made_by(out)]
    assert sorted(made) == sorted(key[:8] for key in manifest.keys)
    assert None not in digests(Store(tmp_path / "store"), manifest).values()
    said = run(tmp_path, "best", "quickstart", "--sweeps", "sweeps/1")
    assert "runner run" in said
    print(*outs, said, sep="\n")
