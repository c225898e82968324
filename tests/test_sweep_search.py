"""Searches: jobs drawn at random, and those that Optuna proposes, gives up and goes on with."""

import importlib.util
import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sweeping import begin, children, folder_of, made, manifest_of, rows, sweep, write
from tiny import make_recipe

from runner import cli, extras
from runner.errors import RecipeError, Stopped
from runner.launch import local
from runner.store import Store, default_root
from runner.sweep import manifest as manifests
from runner.sweep import results, start

needs_optuna = pytest.mark.skipif(
    not importlib.util.find_spec("optuna"), reason=str(extras.missing("optuna"))
)
pytestmark = pytest.mark.timeout(180)


def overrides(*words):
    return [" ".join(job.overrides) for job in manifest_of(*words).jobs]


# At random

RANDOM = ["grow.rate=interval(0,1)", "tell.rank=range(1,5)", "sweep.search=random"]


def test_a_random_search_draws_as_many_jobs_as_asked_for_the_same_for_the_same_seed(here):
    write()
    found = overrides(*RANDOM, "sweep.trials=6")
    assert len({*found}) == 6
    assert overrides(*RANDOM, "sweep.trials=6") == found
    assert overrides(*RANDOM, "sweep.trials=9")[:6] == found
    assert overrides(*RANDOM, "sweep.trials=6", "sweep.seed=1") != found
    rates = [float(each.split("=")[1].split()[0]) for each in found]
    assert all(0 <= rate <= 1 for rate in rates)
    assert {each.split("=")[-1] for each in found} <= {"1", "2", "3", "4"}


def test_a_random_search_draws_no_job_twice_and_ends_where_there_are_no_more(here):
    write()
    words = ["grow.rank=choice(1,2)", "tell.rank=int(interval(1,3))", "sweep.search=random"]
    found = overrides(*words, "sweep.trials=50")
    assert sorted(found) == sorted(overrides(*words[:1], "tell.rank=1,2,3"))


def test_small_values_are_as_likely_as_large_ones_where_an_interval_is_logarithmic(here):
    write()
    words = ["sweep.search=random", "sweep.trials=300"]
    found = overrides("grow.rate=tag(log,interval(1e-6,1e-2))", *words)
    rates = [float(each.split("=")[1]) for each in found]
    assert 1e-6 <= min(rates) < max(rates) <= 1e-2
    assert 120 < sum(rate < 1e-4 for rate in rates) < 180


def test_what_goes_side_by_side_is_drawn_side_by_side_and_each_draw_has_all_seeds(here):
    write()
    words = ["grow.rank=1,2,3", "tell.rank=1,2,3", "sweep.zip=[grow.rank,tell.rank]"]
    found = overrides(*words, "sweep.search=random", "sweep.trials=2", "sweep.repeat=2")
    assert len(found) == 4
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert (one.split()[:2], one[-1], other[-1]) == (other.split()[:2], "0", "1")
        assert one.split()[0][-1] == one.split()[1][-1]


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["grow.rate=interval(0,1)"], "interval() is drawn from by a search"),
        (["grow.rate=interval(1,1)", "sweep.search=random"], "ends where it begins."),
        (["grow.rate=tag(log,interval(0,1))", "sweep.search=random"], "must begin above 0"),
        (
            ["grow.rate=interval(0,1)", "sweep.search=random", "sweep.zip=[grow.rate]"],
            '"grow.rate" is an interval',
        ),
        (["grow.rank=1,2", "sweep.search=gird"], 'Did you mean "grid"?'),
        (
            ["grow.rank=1,2", "sweep.objective=[bytes,score.size]", "sweep.direction=[minimize]"],
            "takes one direction for all objectives, or a list with one for each.",
        ),
        (["grow.rank=1,2", "sweep.objective=[bytes,scor.size]"], 'Did you mean "score"?'),
    ],
)
def test_what_no_search_can_do_is_said_before_any_work(here, words, fact):
    write()
    with pytest.raises(RecipeError) as caught:
        manifest_of(*words)
    assert fact in str(caught.value)


# What is best

POINTS = [(1, 5), (2, 4), (2, 5), (3, 1), (0, 0), (3, 1)]


def test_the_front_is_what_no_other_beats():
    assert results.front(POINTS) == [2, 3, 5]
    assert results.front([]) == []


def test_the_best_by_several_scores_are_all_that_no_other_beats():
    table = [
        {"job": f"{n}", "state": "done", "score.a": a, "bytes": b}
        for n, (a, b) in enumerate(POINTS)
    ]
    table += [{"job": "x", "state": "pruned", "score.a": 9, "bytes": 0}]
    found = results.best(table, {"score.a": "maximize", "bytes": "minimize"})
    assert [(row["job"], scores) for row, scores in found] == [
        ("3", [3, 1]),
        ("5", [3, 1]),
        ("4", [0, 0]),
    ]
    [(row, scores)] = results.best(table, {"bytes": "maximize"})
    assert (row["job"], scores) == ("0", [5])


# Optuna

LEARN = """\
steps: [begin, learn]
begin: {{log: {log}}}
learn: {{rounds: {rounds}, pause: {pause}, log: {log}}}
sweep:
  search: optuna
  objective: learn.held_out_loss
  direction: minimize
  report: learn.held_out_loss
  params: {{learn.rate: "interval(0, 1)"}}
"""
PRUNER = "sweep.pruner={name: median, n_startup_trials: 2}"


def learning(rounds=3, pause=0.0, more=""):
    """A recipe whose loss depends on a rate."""
    text = LEARN.format(log=Path.cwd() / "log", rounds=rounds, pause=pause)
    Path("r.yaml").write_text(text + more)


def trials(folder=None):
    """What became of every trial, in their order."""
    found = sorted(rows(folder or folder_of()), key=lambda row: int(row["trial"]))
    return [(row["learn.rate"], row["state"], row["learn.held_out_loss"]) for row in found]


@needs_optuna
def test_twenty_trials_with_kills_in_between_are_those_of_an_undisturbed_search(here, monkeypatch):
    learning(pause=0.01)
    words = ["r", PRUNER]
    draw, killed, due, log = random.Random(3), 0, 10, here / "log"
    while True:
        process = begin("sweep", *words, "sweep.retries=100", "--sweeps", "killed")
        while process.poll() is None and killed < 2:
            time.sleep(0.01)
            if log.exists() and len(log.read_text().splitlines()) >= due:
                victims = [process.pid, *children(process.pid)]
                os.kill(victims[0 if killed else -1], signal.SIGKILL)
                killed, due = killed + 1, due + draw.randint(5, 10)
        out, _ = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, out
            break
    assert killed == 2
    [folder] = Path("killed", "r").glob("*")
    found = trials(folder)
    assert len(found) == 20
    assert {state for _, state, _ in found} == {"done", "pruned"}
    monkeypatch.setenv("RUNNER_STORE", str(here / "other"))
    code, out = sweep(*words, "--sweeps", "undisturbed", timeout=120)
    assert code == 0, out
    [folder] = Path("undisturbed", "r").glob("*")
    assert trials(folder) == found
    assert "20 trials" in out


@needs_optuna
def test_a_job_that_is_given_up_is_neither_failed_nor_done_and_what_it_shares_stays(here):
    learning(rounds=6)
    pruner = "sweep.pruner={name: threshold, upper: 0.9, n_warmup_steps: 2}"
    code, out = sweep("r", "learn.rate=0.3,2.0", "sweep.trials=6", pruner)
    assert code == 0, out
    found = {row["learn.rate"]: row for row in rows(folder_of())}
    assert {rate: row["state"] for rate, row in found.items()} == {"0.3": "done", "2.0": "pruned"}
    assert found["2.0"]["cause"] == "given up at step 2: learn.held_out_loss 2.2"
    said = (here / "log").read_text().splitlines()
    assert [line for line in said if "learnt 2.0" in line] == [
        "learn learnt 2.0 1",
        "learn learnt 2.0 2",
    ]
    store = Store(default_root())
    assert len(list(store.entries.iterdir())) == 2  # begin, and learn of 0.3
    assert not list(store.drafts.iterdir())
    assert len(json.loads(next(folder_of().glob("manifest.json")).read_text())["trials"]) == 6
    before = made()
    assert set(before.values()) == {1}  # a trial that proposes the same again makes nothing
    code, out = sweep("r", "learn.rate=0.3,2.0", "sweep.trials=6", pruner)
    assert code == 0
    assert made() == before


@needs_optuna
def test_what_an_earlier_job_has_measured_is_reported_of_one_that_shares_its_step(here):
    learning(rounds=4, more="score: {rank: 1}\n")
    Path("r.yaml").write_text(
        Path("r.yaml").read_text().replace("begin, learn]", "begin, learn, score]")
    )
    words = ["r", "learn.rate=0.3,0.9", "score.rank=range(1,9)", "sweep.trials=8"]
    assert sweep(*words)[0] == 0
    before = len([line for line in (here / "log").read_text().splitlines() if "learnt" in line])
    assert before == 8
    code, out = sweep(*words, "sweep.pruner={name: threshold, upper: 0.8, n_warmup_steps: 3}")
    assert code == 0, out
    after = len([line for line in (here / "log").read_text().splitlines() if "learnt" in line])
    assert after == before
    newest = max(Path("sweeps/r").glob("*"), key=lambda each: each.stat().st_mtime)
    states = {(row["learn.rate"], row["state"]) for row in rows(newest)}
    assert states == {("0.3", "done"), ("0.9", "pruned")}


@needs_optuna
def test_a_search_for_several_scores_ends_with_those_that_no_other_beats(here, capsys):
    learning(rounds=1)
    words = ["learn.rank=int(interval(1,20))", "sweep.trials=8", "sweep.workers=2"]
    objectives = [
        "sweep.objective=[learn.held_out_loss,learn.size]",
        "sweep.direction=[minimize,maximize]",
    ]
    code, out = sweep("r", *words, *objectives, "sweep.sampler={name: nsgaii, population_size: 4}")
    assert code == 0, out
    assert len(rows(folder_of())) == 8
    assert cli.main(["best", "r"]) == 0
    said = capsys.readouterr().out
    points = [
        (-float(row["learn.held_out_loss"]), float(row["learn.size"])) for row in rows(folder_of())
    ]
    count = len(results.front(points))
    assert said.startswith(
        f"{count} jobs that no other beats in all of: learn.held_out_loss, learn.size\n"
    )
    assert said.count("To save it:\n  runner run r ") == count
    assert cli.main(["best", "r", "--objective", "learn.size", "--direction", "maximize"]) == 0
    assert f"learn.size {max(size for _, size in points):g}" in capsys.readouterr().out


@needs_optuna
def test_more_trials_go_on_with_the_same_search_and_a_failed_one_is_tried_again(here):
    learning(rounds=1)
    once = ["learn.does=refuse", f"learn.once={here / 'mark'}"]
    assert sweep("r", *once, "sweep.trials=2")[0] == 1
    assert sorted(row["state"] for row in rows(folder_of())) == ["done", "failed"]
    code, out = sweep("r", *once, "sweep.trials=4")
    assert code == 0, out
    assert [row["state"] for row in rows(folder_of())] == ["done"] * 4
    assert len(list(Path("sweeps/r").iterdir())) == 1


@needs_optuna
def test_a_dry_run_says_what_a_search_would_look_for_and_starts_nothing(here, capsys):
    learning()
    assert cli.main(["sweep", "r", "learn.rank=1,2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "Optuna proposes 20 trials: minimize learn.held_out_loss\n" in said
    assert "  learn.rate=interval(0, 1)\n  learn.rank=1,2\n" in said
    assert not Path("sweeps").exists()


@needs_optuna
def test_a_search_stops_at_a_failure_where_that_is_said(here):
    learning(rounds=1)
    assert sweep("r", "learn.does=refuse", "sweep.on_failure=stop", "sweep.trials=5")[0] == 1
    assert [row["state"] for row in rows(folder_of())] == ["failed"]


@needs_optuna
def test_two_processes_that_search_the_same_make_its_trials_once_between_them(here):
    learning(rounds=2)
    both = [begin("sweep", "r", "sweep.trials=4")]
    while not list(Path("sweeps").glob("r/*/manifest.json")):
        time.sleep(0.01)
    both += [begin("sweep", "r", "sweep.trials=4")]
    outs = [process.communicate(timeout=90)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert {*made().values()} == {1}
    assert len(trials()) == 4


class Rounds:
    """The local launcher, as one that knows nothing of searches."""

    KEEPS = False

    def check(self):
        """Nothing is lacking."""

    def launch(self, order):
        self.rounds = getattr(self, "rounds", 0) + 1
        local.launch(replace(order, search=None))


@needs_optuna
def test_a_launcher_that_asks_no_search_is_given_its_trials_in_rounds(here, monkeypatch):
    learning(rounds=1)
    launcher = Rounds()
    monkeypatch.setattr(start, "LAUNCHERS", {"local": launcher})
    sweeping = start.prepare("r", ["sweep.trials=4", "sweep.workers=2"], Path("sweeps"))
    assert start.carry_out(sweeping, {}, lambda event: None, lambda: None) == []
    manifest = start.now(sweeping).manifest
    assert (launcher.rounds, len(manifest.trials)) == (2, 4)
    store = Store(default_root())
    assert all(store.entry(key) for key in manifest.keys)


@needs_optuna
def test_a_proposal_that_is_no_recipe_is_left_out_and_the_others_go_on(here):
    learning(rounds=1)
    code, out = sweep("r", "learn.rate=0.3", "learn.seed=0,-1,2", "sweep.trials=8")
    assert code == 0, out
    assert 'is left out: override "learn.seed=-1": learn.seed must be at least 0, got -1.' in out
    found = {row["learn.seed"]: row for row in rows(folder_of())}
    assert {seed: row["state"] for seed, row in found.items()} == {"0": "done", "2": "done"}
    asked = sum(len(row["trial"].split(", ")) for row in found.values())
    assert asked + out.count("is left out") == 8


@needs_optuna
def test_a_search_refuses_to_go_on_with_a_recipe_that_was_changed(here):
    learning(rounds=1)
    sweeping = start.prepare("r", [], Path("sweeps"))
    manifests.save(sweeping.manifest, sweeping.folder)
    again = start.prepare(sweeping.manifest.id, [], Path("sweeps"))
    learning(rounds=2)
    with pytest.raises(RecipeError) as caught:
        start.carry_out(again, {}, print, lambda: "SIGTERM")
    assert "is not what it was when the search began." in str(caught.value)
    learning(rounds=1)
    with pytest.raises(Stopped):
        start.carry_out(again, {}, print, lambda: "SIGTERM")
    assert len(start.now(again).manifest.trials) == 1


@needs_optuna
@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["sweep.sampler=tpee"], 'sweep.sampler: there is no "tpee". Did you mean "tpe"?'),
        (["sweep.sampler={name: tpe, multivariat: true}"], "multivariat"),
        (["sweep.pruner=medain"], 'sweep.pruner: there is no "medain". Did you mean "median"?'),
        (["sweep.pruner=median", "sweep.report=lern.loss"], 'Did you mean "learn"?'),
        (["sweep.repeat=2"], "sweep.repeat: is for a grid and for a random search."),
        (["sweep.objective=null"], "needs to know which score is looked for"),
        (["learn.rate=0.1"], "nothing has more than one value."),
        (
            ["sweep.pruner=median", "sweep.objective=[bytes,seconds]"],
            "Optuna gives trials up for one objective, not for several.",
        ),
    ],
)
def test_what_optuna_cannot_do_is_said_before_any_work(here, words, fact):
    learning()
    with pytest.raises(RecipeError) as caught:
        manifest_of(*words)
    assert fact in str(caught.value)


def test_a_search_by_optuna_names_the_pip_line_where_it_is_missing(here, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    learning()
    with pytest.raises(RecipeError) as caught:
        manifest_of()
    assert 'python -m pip install "recipe-runner[optuna]"' in str(caught.value)


@needs_optuna
def test_a_figure_that_no_step_gives_ends_the_search_with_those_there_are(here):
    learning(rounds=1)
    code, out = sweep("r", "sweep.objective=learn.xyz", "sweep.trials=2")
    assert code == 1
    assert 'no step has given a score "learn.xyz". Did you mean "learn.size"?' in out


# With a model

NOT_HERE = {"before", "after", "quantize", "save"}
TINY = [
    "adapt.learning_rate=1e-3,30.0",
    "adapt.evaluate_every=2",
    "adapt.max_steps=8",
    "sweep.search=optuna",
    "sweep.trials=4",
    "sweep.objective=evaluate.perplexity.model",
    "sweep.direction=minimize",
    "sweep.pruner={name: threshold, upper: 5.55}",
]


@needs_optuna
def test_a_model_that_learns_badly_is_given_up_in_the_middle_of_its_training(
    here, tiny_model, own_store
):
    make_recipe(here, tiny_model)
    plain = json.loads(Path("tiny.yaml").read_text())
    plain["steps"] = ["fetch", "process", "load", "adapt", "evaluate"]
    plain["evaluate"] = {"perplexity_rows": 4}
    Path("tiny.yaml").write_text(json.dumps({k: v for k, v in plain.items() if k not in NOT_HERE}))
    code, out = sweep("tiny.yaml", *TINY, timeout=150)
    assert code == 0, out
    found = {row["adapt.learning_rate"]: row for row in rows(folder_of("tiny"))}
    assert {rate: row["state"] for rate, row in found.items()} == {
        "0.001": "done",
        "30.0": "pruned",
    }
    assert "given up at step 2: adapt.held_out_loss" in found["30.0"]["cause"]
    steps = [
        Store(own_store).entry(path.name).record["step"]
        for path in (own_store / "entries").iterdir()
    ]
    assert steps.count("adapt") == steps.count("evaluate") == steps.count("load") == 1
