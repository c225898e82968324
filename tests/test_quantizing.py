"""What holds for every method: options, rows to calibrate with, processes, and the gate."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from tiny import make_data

from runner.checkpoint import Checkpoints
from runner.errors import StepError, Stopped
from runner.options import keyed
from runner.products import IGNORED, Dataset
from runner.quantizing import calibration, gate, measuring, methods, processes, source
from runner.quantizing.settings import Calibration, Gate, Options
from runner.stage import Context
from runner.stages import quantize

FOUND = {
    "perplexity_before": 20.0,
    "perplexity": 21.0,
    "perplexity_increase": 0.05,
    "largest_errors": [[3, 0.2], [7, 0.1]],
}


def context(folder: Path, **settings: Any) -> Context:
    return Context(
        draft=folder, checkpoint=Checkpoints(folder / "checkpoints", lambda _: None), **settings
    )


def facts(recipe: Path, *overrides: str) -> dict[str, Any]:
    """What the record of a run says of its step quantize."""
    command = [sys.executable, "-m", "runner", "run", recipe.name, *overrides]
    done = subprocess.run(command, cwd=recipe.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    newest = max((recipe.parent / "runs" / "q").iterdir(), key=lambda path: path.name)
    return dict(json.loads((newest / "record.json").read_text())["steps"]["quantize"]["facts"])


def dataset(lengths: list[int], held_out: int = 0) -> Dataset:
    rows = [
        {"input_ids": [number % 200] * length, "labels": [IGNORED] + [number % 200] * (length - 1)}
        for number, length in enumerate(lengths)
    ]
    made = datasets.Dataset.from_list(rows)
    return Dataset(made, made.select(range(held_out)))


# --- options


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"method": "int8", "bits": 4}, "bits"),
        ({"method": "none", "bits": 4}, "bits"),
        ({"method": "nf4", "group_size": 64}, "group_size"),
        ({"method": "gptq", "group_size": 48}, "group_size"),
        ({"method": "fp8", "symmetric": True}, "symmetric"),
        ({"method": "int8", "double_quantization": True}, "double_quantization"),
    ],
)
def test_what_a_method_does_not_know_is_a_fault(given, where):
    assert where in [fault.where[0] for fault in methods.check(Options(**given)) if fault.where]


def test_what_is_left_out_is_said_in_the_key_as_the_method_decides_it():
    key = keyed(quantize.resolve(Options(method="gptq"), {}))
    assert (key["bits"], key["group_size"], key["symmetric"]) == (4, 128, True)
    assert keyed(quantize.resolve(Options(method="nf4"), {}))["group_size"] is None


def test_auto_gptq_is_another_name_of_gptq():
    options = quantize.resolve(Options(method="auto-gptq"), {})
    assert options == quantize.resolve(Options(method="gptq"), {})


def test_a_method_that_looks_at_rows_is_refused_where_no_step_gives_any():
    (fault,) = [f for f in quantize.check(Options(method="w8a8"), {}) if "rows" in f.fact]
    assert fault.fact == "w8a8 looks at rows, and no step before gives a dataset."


def test_every_name_of_a_method_is_in_the_table_or_an_alias():
    from typing import get_args

    from runner.quantizing.settings import Name

    assert {*get_args(Name)} == {*methods.METHODS, *methods.ALIASES}


# --- rows to calibrate with


def test_rows_are_drawn_by_the_seed_and_cut():
    notes: list[str] = []
    given = dataset([10 + number for number in range(40)])
    wanted = Calibration(rows=8, max_length=12, seed=1)
    first = calibration.rows(given, wanted, notes.append)
    assert first == calibration.rows(given, wanted, notes.append)
    assert first != calibration.rows(given, Calibration(rows=8, max_length=12), notes.append)
    assert len(first) == 8
    assert max(map(len, first)) == 12
    assert notes[0].startswith("calibrated with 8 rows of ")


def test_enough_rows_are_used_without_a_word():
    notes: list[str] = []
    calibration.rows(dataset([300] * 200), Calibration(rows=128), notes.append)
    assert notes == []


def test_preferences_are_calibrated_with_the_wanted_answers():
    row = {"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6]}
    given = datasets.Dataset.from_list([row])
    found = calibration.rows(Dataset(given, given), Calibration(), lambda _: None)
    assert found == [[1, 2, 3, 4]]


def test_no_row_to_calibrate_with_is_an_error():
    with pytest.raises(StepError, match="no row to calibrate with"):
        calibration.rows(dataset([1, 1]), Calibration(), lambda _: None)


# --- the gate


def test_a_small_rise_is_let_through_and_one_of_a_tenth_is_said():
    notes: list[str] = []
    gate.judge(FOUND, Gate(), notes.append)
    assert notes == []
    gate.judge({**FOUND, "perplexity": 24.0, "perplexity_increase": 0.2}, Gate(), notes.append)
    assert notes == ["perplexity rose by 20%, 20.00 to 24.00; the layers that err most: 3, 7"]


@pytest.mark.parametrize(
    ("after", "rise", "shown"), [(40.0, 1.0, "40.00"), (None, None, "no number")]
)
def test_garbage_is_refused_with_the_layers_that_err_most(after, rise, shown):
    found = {**FOUND, "perplexity": after, "perplexity_increase": rise}
    with pytest.raises(StepError, match=f"perplexity is {shown} and was 20.00") as caught:
        gate.judge(found, Gate(), lambda _: None)
    assert "err most: 3, 7" in caught.value.fact
    assert "quantize.skip" in caught.value.command


def test_rows_held_out_count_before_rows_of_training_before_the_documentation(tiny_model):
    wanted = Gate(rows=3, max_length=8)

    def tokenizer() -> Any:
        from runner import products

        return products.open_tokenizer(tiny_model)

    shown, what = gate.rows(dataset([20] * 9, held_out=5), tokenizer, wanted)
    assert what == "rows held out"
    assert [len(row["ids"]) for row in shown] == [8, 8, 8]
    shown, what = gate.rows(dataset([20] * 9), tokenizer, wanted)
    assert what.startswith("rows that are trained on")
    assert len(shown) == 3
    shown, what = gate.rows(None, tokenizer, wanted)
    assert what == "Python's documentation"
    assert [len(row["ids"]) for row in shown] == [8, 8, 8]


def test_a_model_agrees_with_itself_and_a_broken_layer_is_named(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    ids = [[*range(start, start + 30)] for start in range(4)]
    rows = [{"ids": row, "labels": row} for row in ids]
    same = measuring.compare(tiny_model, tiny_model, rows, lambda done, total: None)
    assert same["perplexity"] == same["perplexity_before"]
    assert same["agreement"] == 1
    assert [error for _, error in same["largest_errors"]] == [0, 0]
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"] *= 1000
    weights["lm_head.weight"] *= 1000
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    found = measuring.compare(tiny_model, broken, rows, lambda done, total: None)
    assert (found["agreement"] < 0.5 and found["perplexity"] is None) or found["perplexity"] > 1e3
    assert found["largest_errors"][0][0] == 1


# --- processes


def test_a_process_that_dies_is_named_with_its_last_lines(tmp_path):
    with pytest.raises(StepError, match=r"ended \(exit code 1\)") as caught:
        processes.ask("nothing", {}, context(tmp_path), ())
    assert "KeyError: 'nothing'" in caught.value.fact
    assert (tmp_path / "nothing.log").exists()


def test_what_a_process_refuses_is_refused_here(tmp_path):
    (tmp_path / "whole").mkdir()
    asked = {name: str(tmp_path / name) for name in ("whole", "target", "scratch")}
    options = json.loads(json.dumps({"method": "nf4", "bits": 4}))
    with pytest.raises(StepError, match=r"whole .*config\.json"):
        processes.ask("quantize", {**asked, "options": options, "rows": []}, context(tmp_path), ())


def test_a_run_that_is_to_stop_ends_the_process(tmp_path):
    with pytest.raises(Stopped):
        processes.ask("measure", {}, context(tmp_path, stop_signal=lambda: "SIGTERM"), ())


# --- the model as it was


def test_a_model_that_lies_on_disk_is_linked_and_its_weights_in_memory_are_let_go(
    tiny_model, tmp_path
):
    from runner import products

    model = products.open_model(tiny_model)
    source.write(tmp_path / "whole", lambda: model, lambda _: None)
    assert (tmp_path / "whole" / "model.safetensors").is_symlink()
    assert (
        products.open_weights(tmp_path / "whole").dtype == products.open_weights(tiny_model).dtype
    )
    assert model.model.num_parameters() == 0


def test_a_half_written_model_is_written_again_and_a_whole_one_is_left(tiny_model, tmp_path):
    from runner import products

    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "half").touch()
    source.write(tmp_path / "whole", lambda: products.open_model(tiny_model), lambda _: None)
    assert not (tmp_path / "whole" / "half").exists()
    source.write(tmp_path / "whole", lambda: pytest.fail("it is there"), lambda _: None)


# --- the whole step


def test_another_gate_measures_again_and_quantizes_nothing(tiny_model, tmp_path):
    make_data(tmp_path / "rows.jsonl")
    recipe = {
        "name": "q",
        "steps": "fetch process load quantize".split(),
        "fetch": {"model": {"path": str(tiny_model)}, "data": {"path": "rows.jsonl"}},
        "process": {"held_out": 8},
        "quantize": {"method": "int8", "gate": {"rows": 2}},
    }
    path = tmp_path / "q.yaml"
    path.write_text(json.dumps(recipe), encoding="utf-8")
    first = facts(path)
    assert first["measured_on"] == "rows held out"
    assert first["peak_bytes"] > 0
    assert first["bytes_after"] < first["bytes_before"]
    again = facts(path, "quantize.gate.rows=4")
    assert "peak_bytes" not in again  # of a process that did not run
    assert again["tokens"] > first["tokens"]
