"""A run or a saved model made again from nothing: where from, where to, and what is said of it."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import make_data, make_model, make_recipe

import runner
from runner import cli, files
from runner.compose import compose
from runner.errors import RecipeError
from runner.report import folder as folders
from runner.reproducing import original as originals
from runner.reproducing import place, results, values
from runner.reproducing.results import Verdict
from runner.stages import known

WORDS = ["adapt.max_steps=2", "adapt.checkpoint_every=null", "~before", "~quantize"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A working directory with a run of the tiny recipe, and the model that it saved."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("RUNNER_STORE", str(folder / "store"))
        make_recipe(folder, make_model(folder / "model"))
        runner.run("tiny", *WORDS, quiet=True)
    return folder


@pytest.fixture
def here(made, monkeypatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def run(here) -> folders.Run:
    return folders.read(folders.find("tiny", Path("runs")))


@pytest.fixture
def other(run, tmp_path):
    """The run as it would be with another file in a step's result, whose bytes are there or not."""

    def change(step: str, name: str, write, *, is_here: bool = True) -> folders.Run:
        folder = tmp_path / "runs" / "tiny" / "other"
        shutil.copytree(run.folder, folder, symlinks=True)
        product = folder / "products" / step
        entry = tmp_path / "entry"
        shutil.copytree(product.resolve().parent, entry)
        path = entry / "product" / name
        path.chmod(0o644)
        write(path)
        record = json.loads((entry / "record.json").read_text())
        record["files"] = files.manifest(entry / "product")
        (entry / "record.json").write_text(json.dumps(record))
        product.unlink()
        if is_here:
            product.symlink_to(entry / "product")
        about = json.loads((folder / "record.json").read_text())
        about["steps"][step]["digest"] = files.digest_json(record["files"])
        (folder / "record.json").write_text(json.dumps(about))
        return folders.read(folder)

    return change


def shifted(by: float):
    """Add to every number of a file of tensors a share of the largest."""

    def write(path: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(path)
        save_file({n: t + by * t.abs().max() for n, t in tensors.items()}, path)

    return write


def said(original: folders.Run, again: folders.Run, step: str) -> tuple[Verdict, str]:
    rows = results.repeated(originals.find(str(original.folder), Path()), again)
    (found,) = [row for row in rows if row.step == step]
    return found.verdict, found.said


# The whole


def test_a_saved_folder_is_enough_to_make_the_model_again(here, tmp_path, capfd):
    """The store that made it is not looked at, and what it was made from lies beside the folder."""
    folder = tmp_path / "elsewhere" / "model"
    shutil.copytree(here / "saved", folder)
    assert not (folder / "rows.jsonl").exists()
    words = ["reproduce", str(folder / "lineage.json"), "--to", str(tmp_path / "again")]
    code = cli.main(words)
    out = capfd.readouterr().out
    assert code == 0, out
    assert out.endswith("equal, byte for byte\n")
    assert "8 steps run, 0 reused" in out
    table = out.split("lineage")[-1].split("again/runs")[-1]
    assert table.count("  equal\n") == 8
    digests = {path.name: files.digest(path) for path in (here / "saved").glob("*.safetensors")}
    again = {path.name: files.digest(path) for path in tmp_path.glob("again/saved/save/*.saf*")}
    assert digests == again
    assert len(digests) == 1


def test_what_was_changed_since_is_refused_before_any_work(here, tmp_path, capfd):
    changed = tmp_path / "rows.jsonl"
    changed.write_text((here / "rows.jsonl").read_text() + '{"messages": []}\n')
    words = ["saved", f"fetch.data.path={changed}", "--to", str(tmp_path / "again")]
    assert cli.main(["reproduce", *words]) == 1
    found = capfd.readouterr()
    assert "fetch.data: digest" in found.err
    assert "to go on: runner reproduce saved" in found.out
    assert not (tmp_path / "again" / "runs").exists()


def test_a_run_is_made_again_twice_and_both_are_compared(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    data = make_data(tmp_path / "r.jsonl")
    text = {"steps": ["fetch"], "fetch": {"data": {"path": str(data)}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(text))
    runner.run("mine", quiet=True)
    assert cli.main(["reproduce", "mine", "--verify", "--to", "again"]) == 0
    out = capfd.readouterr().out
    assert out.count("\nequal, byte for byte\n") == 2
    assert out.endswith("twice on this machine\n  equal, byte for byte\n")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"1", "2"}
    assert cli.main(["reproduce", "mine", "--to", "again/1"]) == 0, "it goes on, and compares"
    assert "0 steps run, 1 reused" in capfd.readouterr().out


def test_a_signal_is_handed_on_to_the_process_that_does_the_work():
    child = "import signal, time; print('there', flush=True); time.sleep(60)"
    call = f"surroundings.call({[sys.executable, '-c', child]})"
    code = f"import sys; from runner import surroundings; sys.exit({call} + 100)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 100 - signal.SIGTERM


# What is made again


def test_a_file_that_is_found_nowhere_is_named(here, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(here / "saved", folder)
    monkeypatch.chdir(tmp_path)
    recipe = place.lay_out(originals.find(str(folder), Path()), tmp_path / "again")
    with pytest.raises(RecipeError, match=r"rows\.jsonl does not exist"):
        compose(str(recipe), [], known())


def test_functions_that_come_with_a_model_are_not_taken_from_its_folder(here, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(here / "saved", folder)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["evaluate"]["judges"] = [{"path": "judge.py:polite"}]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "judge.py").write_text("def polite(rows): return []\n")
    laid = place.lay_out(originals.find(str(folder), Path()), tmp_path / "again")
    assert yaml.safe_load(laid.read_text())["evaluate"]["judges"] == [{"path": "judge.py:polite"}]


def test_nothing_is_pushed_tracked_or_written_elsewhere(here, run, tmp_path):
    original = originals.find(str(run.folder), Path())
    recipe = dict(original.recipe)
    recipe["save"] = {**recipe["save"], "push": "user/name", "to": None}
    recipe["adapt"] = {**recipe["adapt"], "track": ["wandb"]}
    recipe["sweep"] = {"params": {"seed": [1, 2]}}
    told = originals.Original(original.place, recipe, original.sources, run)
    made = yaml.safe_load(place.lay_out(told, tmp_path / "again").read_text())
    assert made["save"]["push"] is None
    assert made["save"]["to"] == str(tmp_path / "again" / "saved" / "save")
    assert made["adapt"]["track"] == []
    assert made["store"]["path"] == str(tmp_path / "again" / "store")
    assert "sweep" not in made


def test_a_folder_with_something_else_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is not empty"):
        place.lay_out(originals.find(str(run.folder), Path()), tmp_path / "again")


@pytest.mark.parametrize("name", ["recipe.yaml", "recipe.lock"])
def test_papers_that_are_missing_are_named(here, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(here / "saved", folder)
    (folder / name).unlink()
    with pytest.raises(RecipeError, match=f"{name}: is not there"):
        originals.find(str(folder / "lineage.json"), Path())


def test_a_lineage_that_is_none_is_refused(here, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(here / "saved", folder)
    (folder / "lineage.json").write_text("[]")
    with pytest.raises(RecipeError, match="is no lineage of ours"):
        originals.find(str(folder), Path())


# What is said of it


def test_a_run_beside_itself_is_equal(run):
    original = originals.find(str(run.folder), Path())
    rows = results.repeated(original, run)
    assert [row.verdict for row in rows] == [Verdict.EQUAL] * 8
    assert [*results.explained(original, run, rows)] == ["equal, byte for byte"]


def test_weights_with_other_bytes_are_compared_number_by_number(run, other):
    near = other("adapt", "adapter_model.safetensors", shifted(1e-4))
    verdict, text = said(run, near, "adapt")
    assert verdict is Verdict.CLOSE
    assert "numbers differ by 0.0001 at most" in text


def test_weights_that_are_far_apart_differ_and_are_the_first_step_that_does(run, other):
    far = other("adapt", "adapter_model.safetensors", shifted(0.5))
    original = originals.find(str(run.folder), Path())
    rows = results.repeated(original, far)
    lines = [*results.explained(original, far, rows)]
    assert lines[0].startswith("adapt is the first step that differs: other bytes in adapter_model")
    assert "numbers differ by up to 0.5, and 0.01 may be" in lines[0]
    assert lines[1] == "  versions and machine are the same, as far as they are recorded"


def test_versions_and_hardware_that_differ_are_said(run, other):
    far = other("adapt", "adapter_model.safetensors", shifted(0.5))
    record = json.loads((far.folder / "record.json").read_text())
    record |= {"libraries": {**record["libraries"], "torch": "9.9"}, "gpus": ["H100"]}
    (far.folder / "record.json").write_text(json.dumps(record))
    again, original = folders.read(far.folder), originals.find(str(run.folder), Path())
    lines = [*results.explained(original, again, results.repeated(original, again))]
    assert any(line.startswith("  torch ") and line.endswith("-> 9.9") for line in lines)
    assert "  gpus null -> H100" not in lines  # none is as good as not recorded


def test_answers_that_differ_are_counted(run, other):
    def write(path: Path) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[2]["answer"] = "another"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    again = other("after", "rows.jsonl", write)
    assert said(run, again, "after") == (Verdict.DIFFERS, "1 of 8 rows are others")


def test_without_the_bytes_of_the_original_only_scores_are_compared(run, other):
    gone = other("adapt", "adapter_model.safetensors", shifted(1e-4), is_here=False)
    verdict, text = said(gone, run, "adapt")
    assert verdict is Verdict.DIFFERS
    assert "bytes are not here" in text
    shutil.rmtree(gone.folder)
    shutil.rmtree(gone.folder.parents[2] / "entry")
    gone = other("evaluate", "scores.json", lambda path: path.write_text("{}"), is_here=False)
    assert said(gone, run, "evaluate")[0] is Verdict.CLOSE


def test_a_second_time_that_differs_says_what_makes_it_the_same(run, other, capsys):
    from runner import cli_reproduce

    far = other("adapt", "adapter_model.safetensors", shifted(0.5))
    faults = cli_reproduce._twice([run, far], results.TOLERANCE)
    assert [row.step for row in faults] == ["adapt"]
    assert "deterministic: true" in capsys.readouterr().out
    assert cli_reproduce._twice([run, run], results.TOLERANCE) == []


# Numbers


@pytest.mark.parametrize(
    ("before", "after", "apart"),
    [
        (1, 1.0, 0.0),
        (100.0, 101.0, 1 / 101),
        (0.0, 0.01, 0.01),
        ({"a": [1, 2]}, {"a": [1, 2.5]}, 0.2),
        ({"a": 1}, {"b": 1}, values.OTHER),
        ([1], [1, 1], values.OTHER),
        ("a", "b", values.OTHER),
        (True, 1.0, 0.0),
        (True, False, values.OTHER),
        (float("nan"), float("nan"), 0.0),
        (float("nan"), 1.0, values.OTHER),
        (1.0, None, values.OTHER),
    ],
)
def test_values_are_as_far_apart_as_their_farthest_numbers(before, after, apart):
    assert values.of_values(before, after) == pytest.approx(apart)


def test_tensors_of_another_form_are_never_near(tmp_path):
    import torch
    from safetensors.torch import save_file

    def distance(before, after):
        for name, tensor in (("a", before), ("b", after)):
            save_file({"w": tensor}, tmp_path / f"{name}.safetensors")
        return values.of_files(tmp_path / "a.safetensors", tmp_path / "b.safetensors")

    one = torch.tensor([1.0, -4.0])
    assert distance(one, torch.tensor([1.0, -4.0 + 0.04])) == pytest.approx(0.01)
    assert distance(one, one.reshape(2, 1)) == values.OTHER
    assert distance(one, one.to(torch.bfloat16)) == values.OTHER
    assert distance(torch.tensor([1]), torch.tensor([2])) == values.OTHER
    assert distance(one, torch.tensor([float("nan"), 1.0])) == values.OTHER
    assert distance(torch.zeros(0), torch.zeros(0)) == 0
    assert values.of_files(tmp_path / "x.bin", tmp_path / "y.bin") == values.OTHER


# Deterministic algorithms


def test_a_recipe_says_for_every_training_that_only_deterministic_algorithms_count(here):
    recipe = compose("tiny", ["deterministic=true", *WORDS], known())
    assert recipe.step("adapt").options.deterministic is True
    assert recipe.plain["deterministic"] is True
    own = compose("tiny", ["deterministic=true", "adapt.deterministic=false"], known())
    assert own.step("adapt").options.deterministic is False
    with pytest.raises(RecipeError) as error:
        compose("tiny", ["deterministic=1"], known())
    assert len(error.value.problems) == 1


def test_a_deterministic_training_takes_no_other_algorithms_and_leaves_none_forbidden():
    import torch

    from runner.training import loop
    from runner.training.settings import Options

    with loop._deterministic(Options(deterministic=True)):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
