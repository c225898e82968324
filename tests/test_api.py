"""What Python and notebooks call: the functions of the package, and the run that they give."""

import io
import subprocess
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from tiny import make_recipe

import runner
from runner.errors import RecipeError
from runner.events import Finished
from runner.plan import Verdict

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "numpy", "matplotlib", "jinja2")
WORDS = ["adapt.max_steps=2", "adapt.checkpoint_every=null", "~quantize", "~save"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A working directory with a run of the tiny recipe that was asked for in Python."""
    from tiny import make_model

    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("RUNNER_STORE", str(folder / "store"))
        make_recipe(folder, make_model(folder / "model"))
        said = io.StringIO()
        with redirect_stdout(said):
            runner.run("tiny", *WORDS)
        (folder / "said.txt").write_text(said.getvalue())
    return folder


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("RUNNER_STORE", str(place / "store"))
    return place


def test_to_import_the_package_loads_nothing():
    code = "import sys; before = {*sys.modules}; import runner; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = [name for name in done.stdout.split() if not _is_of_python(name)]
    assert found == ["runner"]


def _is_of_python(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


def test_a_plan_loads_no_heavy_library(here):
    code = f"import sys, runner; runner.plan_of('tiny', *{WORDS}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "runner.api" in done.stdout.split()
    assert {*HEAVY}.isdisjoint(done.stdout.split())


def test_what_people_call_is_listed_and_nothing_else_is_made_up():
    assert {"run", "plan_of", "open_run"} <= {*dir(runner)}
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = runner.runn


def test_a_run_says_the_lines_of_the_command_line_and_sends_the_rest_to_its_log(here):
    said = (here / "said.txt").read_text()
    assert "adapt" in said
    assert "run folder: runs/tiny/" in said
    assert "tiny: 8 steps run, 0 reused" in said


def test_a_run_has_steps_with_record_metrics_product_seconds_and_verdict(here):
    run = runner.open_run("tiny")
    adapt = run.step("adapt")
    assert (adapt.verdict, adapt.stage) == ("run", "adapt")
    assert adapt.seconds > 0
    assert adapt.record["key"] == run.keys["adapt"]
    assert [row["step"] for row in adapt.metrics if "loss" in row] == [1, 2]
    assert adapt.facts["steps"] == 2


def test_rows_are_those_of_answers_scores_and_datasets(here):
    run = runner.open_run("tiny")
    answers = run.step("after").rows()
    assert len(answers) == 8
    assert answers[0]["prompt"].startswith("say ")
    assert {row["of"] for row in run.step("evaluate").rows()} >= {"before", "after"}
    assert run.step("process").rows()[0].keys() >= {"input_ids", "labels"}
    with pytest.raises(RecipeError, match="adapt gives model, which has no rows"):
        run.step("adapt").rows()


def test_a_product_is_the_model_itself(here):
    adapted = runner.open_run("tiny").step("adapt").product
    assert adapted.tokenizer.decode(adapted.tokenizer("say 1").input_ids) == "say 1"
    assert "lora" in str(adapted.model.peft_config["default"].peft_type).lower()


def test_a_run_has_its_scores_and_its_report(here):
    run = runner.open_run("tiny")
    assert run.ending == "finished"
    assert set(run.scores["evaluate"]["exact_match"]) == {"before", "after"}
    page = run.report
    assert page.read_text().startswith("<!doctype html>")
    page.unlink()
    assert "<!doctype html>" in run.report.read_text()


def test_a_second_call_reuses_all_and_tells_whoever_listens(here, capsys):
    events = []
    run = runner.run("tiny", *WORDS, tell=events.append)
    verdicts = [event.outcome.verdict for event in events if isinstance(event, Finished)]
    assert {*verdicts} == {Verdict.REUSE}
    assert len(verdicts) == len(run.steps) == 8
    assert run.record["command"] == ["run", "tiny", *WORDS]
    assert capsys.readouterr().out == ""


def test_another_thread_may_call_it_too(here, capsys):
    found = []
    thread = threading.Thread(target=lambda: found.append(runner.run("tiny", *WORDS, quiet=True)))
    thread.start()
    thread.join()
    assert [run.ending for run in found] == ["finished"]
    assert capsys.readouterr().out == ""


def test_a_plan_has_verdicts_and_reasons(here):
    planned = runner.plan_of("tiny", *WORDS, "adapt.rank=2")
    assert planned.step("adapt").reason == "options changed: rank 4 -> 2"
    assert [p.step.name for p in planned.work] == ["adapt", "after", "evaluate"]
    assert not (here / "runs" / "other").exists()


def test_mistakes_are_recipe_errors_with_a_guess(here):
    with pytest.raises(RecipeError, match='Did you mean "adapt"'):
        runner.open_run("tiny").step("adpt")
    with pytest.raises(RecipeError, match='Write fresh=\\["all"\\]'):
        runner.run("tiny", fresh="all")
    with pytest.raises(RecipeError, match='Did you mean "quickstart"'):
        runner.plan_of("quickstat")
    with pytest.raises(RecipeError, match="no run's folder"):
        runner.open_run("nothing")
