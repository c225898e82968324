"""What Optuna proposes: within the space, the same for the same seed, whatever was killed."""

import pytest

from runner.changes import Axis, Change, Span
from runner.sweep import study
from runner.sweep.settings import Sweep
from runner.sweep.space import Space

pytest.importorskip("optuna")


def axis(name, *values, span=None):
    where = tuple(name.split("."))
    return Axis(name, tuple(Change(where, f"{name}={value}", value) for value in values), span)


SPACE = Space(
    [
        axis("a.rate", 1e-5, 1e-1, span=Span(1e-5, 1e-1, is_log=True)),
        axis("a.size", 1, 9, span=Span(1, 9, is_whole=True)),
        axis("a.rank", 4, 8, 12, 16),
        axis("a.share", *(0.1 * n for n in range(5))),
        axis("a.method", "lora", "dora", "vera"),
        axis("b.left", 1, 2),
        axis("b.right", 3, 4),
        axis("b.fixed", 7),
    ],
    [("b.left", "b.right")],
)


def settings(**given):
    return Sweep(search="optuna", objective="s.loss", direction="minimize", **given)


def opened(folder, asked):
    return study.Study(folder, "trial", asked, SPACE)


def loss(changes):
    found = {change.text.partition("=")[0]: change.value for change in changes}
    return abs(found["a.size"] - 3) + found["a.rate"] + (found["a.method"] != "dora")


def carried_out(folder, asked, count, *, again=False):
    """The texts of so many trials; with `again` the study is opened anew before each step."""
    search, found = opened(folder, asked), []
    for _ in range(count):
        trial = search.ask()
        if again:
            search = opened(folder, asked)
            [trial] = search.unfinished()
        changes = search.changes(trial)
        if again:
            search = opened(folder, asked)
            [trial] = search.unfinished()
            assert search.changes(trial) == changes
        scores = [loss(changes), -float(changes[1].value)][: len(asked.objectives)]
        search.complete(trial, scores)
        found.append([change.text for change in changes])
    return found


def check_within(found):
    for texts in found:
        value = dict(text.split("=") for text in texts)
        assert 1e-5 <= float(value["a.rate"]) <= 1e-1
        assert 1 <= int(value["a.size"]) <= 9
        assert value["a.rank"] in ("4", "8", "12", "16")
        assert value["a.share"] in [f"{0.1 * n}" for n in range(5)]
        assert (value["b.left"], value["b.right"]) in [("1", "3"), ("2", "4")]
        assert value["b.fixed"] == "7"


@pytest.mark.parametrize("name", study.SAMPLERS)
def test_every_sampler_proposes_within_the_space_the_same_for_the_same_seed(name, tmp_path):
    made = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        made.append(carried_out(folder, settings(sampler=name, seed=seed), 14))
    check_within(made[0])
    assert made[0] == made[1]
    assert len({*map(tuple, made[0])}) > 7
    assert made[0] != made[2] or name in study.SEQUENCES


@pytest.mark.parametrize("name", ["tpe", "nsgaii"])
def test_a_study_that_is_opened_again_and_again_proposes_what_one_that_stays_open_does(
    name, tmp_path
):
    for each in ("stays", "opened"):
        (tmp_path / each).mkdir()
    asked = settings(sampler=name)
    stays = carried_out(tmp_path / "stays", asked, 14)
    assert carried_out(tmp_path / "opened", asked, 14, again=True) == stays


def test_a_line_that_a_kill_has_torn_counts_as_never_written(tmp_path):
    asked = settings()
    before = carried_out(tmp_path, asked, 3)
    with open(tmp_path / study.NAME, "ab") as journal:
        journal.write(b'{"op_code": 4, "worker')
    search = opened(tmp_path, asked)
    assert len(search) == 3
    assert len(before) == 3
    search.complete(search.ask(), [1.0])
    assert len(opened(tmp_path, asked)) == 4


def test_two_scores_make_a_study_of_two_directions(tmp_path):
    asked = Sweep(objective=("s.loss", "bytes"), direction=("minimize", "maximize"))
    found = carried_out(tmp_path, asked, 5)
    check_within(found)
    search = opened(tmp_path, asked)
    assert [each.name for each in search.study.directions] == ["MINIMIZE", "MAXIMIZE"]


PRUNERS = {
    "median": {"n_startup_trials": 2},
    "percentile": {"percentile": 50.0, "n_startup_trials": 2},
    "successive-halving": {"reduction_factor": 2},
    "hyperband": {"max_resource": 9},
    "threshold": {"upper": 5.0},
    "wilcoxon": {"p_threshold": 0.2},
}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("name", study.PRUNERS)
def test_every_pruner_gives_up_what_loses_whichever_way_the_score_goes(name, direction, tmp_path):
    asked = Sweep(objective="s.x", direction=direction, pruner={"name": name, **PRUNERS[name]})
    if name == "threshold" and direction == "maximize":
        asked = Sweep(objective="s.x", direction=direction, pruner={"name": name, "lower": -5.0})
    search, ends = opened(tmp_path, asked), []
    for number in range(12):
        trial, level = search.ask(), 1.0 if number < 6 else 9.0
        search.changes(trial)
        for step in range(1, 9):
            if search.report(trial, step, level + 1 / step):
                ends.append((number, step))
                search.prune(trial)
                break
        else:
            search.complete(trial, [level if direction == "minimize" else -level])
    assert ends
    assert all(number >= 6 for number, _ in ends)


def test_what_was_reported_is_not_reported_twice_and_scores_that_are_no_numbers_count_as_none(
    tmp_path,
):
    search = opened(tmp_path, settings(pruner={"name": "threshold", "upper": 2.0}))
    trial = search.ask()
    assert not search.report(trial, 1, 1.0)
    assert search.report(trial, 2, 3.0)
    assert not search.report(trial, 1, 9.0)  # taken up again from a checkpoint before it
    assert search.report(trial, 2, 1.0)
    assert search.reported(trial) == {1: 1.0, 2: 3.0}
    search.complete(trial, [float("nan")])
    assert search.unfinished() == []
    assert len(search) == 1
