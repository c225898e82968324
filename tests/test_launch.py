"""Where the jobs of a sweep run: what is said of it, what a step asks for, and what is lacking."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from fakes import RESOURCES
from hypothesis import given
from hypothesis import strategies as st
from sweeping import digests, folder_of, made, manifest_of, status, sweep, write

from runner import cli, files
from runner.errors import RecipeError
from runner.launch import Begun, Broke, Failure, Made, Order, local, seat, single
from runner.launch.arrays import MOST, Wish, arrays
from runner.launch.following import Following
from runner.resources import Resources
from runner.stages import known
from runner.sweep import manifest as manifests
from runner.sweep import standing, where
from runner.sweep.graph import Graph
from runner.sweep.where import Launch

WORDS = ["grow.rank=1,2", "tell.rank=1,2,3"]
pytestmark = pytest.mark.timeout(120)


def ordered(*words, done=()):
    """A sweep that is written down, as a launcher is given it, and what is told of it."""
    manifest, folder, told = manifest_of(*words), Path("sweeps/r/1"), []
    manifests.save(manifest, folder)
    stages = known()
    order = Order(
        manifest=manifest,
        folder=folder,
        graph=Graph(manifest, stages, done),
        store=standing.store_of(manifest),
        stages=stages,
        tell=told.append,
        stop_signal=lambda: None,
        workers=1,
    )
    return order, told


def key_of(manifest, name):
    return next(key for key, row in manifest.keys.items() if row.name == name)


def test_a_place_is_chosen_by_its_name_and_no_job_depends_on_it(here):
    write()
    here_, there = (manifest_of(*WORDS, *more) for more in ([], ["launch=slurm"]))
    assert (here_.launch.kind, there.launch.kind) == ("local", "slurm")
    assert here_.jobs == there.jobs
    assert here_.id == there.id


def test_what_is_said_of_a_place_is_written_down_and_read_again(here):
    write("launch: {kind: slurm, partition: gpu, resources: {grow: {gpus: 2}}}")
    manifest = manifest_of(*WORDS, "launch.sbatch.account=me")
    manifests.save(manifest, Path("there"))
    assert manifests.load(Path("there")) == manifest
    assert manifest.launch.resources == {"grow": Resources(gpus=2)}
    assert manifest.launch.sbatch == {"account": "me"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["launch=slurmm"], 'launch has no preset "slurmm". Did you mean "slurm"?'),
        (
            ["launch.partition=gpu"],
            "launch.partition is of launch=slurm, and the jobs run by local.",
        ),
        (["launch=slurm", "launch.address=a:1"], "launch.address is of launch=ray"),
        (["launch.resources.grwo.gpus=1"], 'there is no step "grwo". Did you mean "grow"?'),
        (["launch.resources.grow.gpu=1"], 'no option "gpu". Did you mean "gpus"?'),
        (["launch.resources.grow.minutes=0"], "minutes must be at least 1, got 0."),
        (["launch=slurm,ray"], "the sweep's own settings take one value."),
    ],
)
def test_mistakes_are_told_before_anything_starts(here, words, said):
    write()
    with pytest.raises(RecipeError) as caught:
        manifest_of(*words)
    assert said in str(caught.value)


def test_a_step_asks_for_what_the_recipe_says_else_what_its_stage_does():
    stage = Resources(gpus=1, cpus=4, memory=32, minutes=60)
    launch = Launch(resources={"fetch": Resources(minutes=5), "fetch.data": Resources(cpus=1)})
    assert where.resources(launch, "adapt", stage) == stage
    asked = where.resources(launch, "fetch.data", stage)
    assert asked == Resources(gpus=1, cpus=1, memory=32, minutes=5)


@pytest.mark.parametrize(("gpus", "expected"), [(0, 0), (1, 1), (4, 4)])
def test_the_gpus_of_a_stage_that_uses_any_are_those_of_a_process(here, gpus, expected):
    write("launch: {resources: {grow: {gpus: 1}, tell: {cpus: 2}}}")
    order, _ = ordered(*WORDS, f"sweep.gpus={gpus}")
    rows = {row.name: row for row in order.graph.rows.values()}
    assert single.asked(order, rows["begin"]) == RESOURCES
    assert single.asked(order, rows["grow"]).gpus == 1  # the recipe's word
    assert single.asked(order, rows["tell"]).cpus == 2
    adapt = known()["adapt"].RESOURCES
    assert (adapt.gpus or 0) * gpus == expected


def test_every_stage_says_what_it_asks_for():
    for name, stage in known().items():
        assert None not in vars(stage.RESOURCES).values(), name
        assert bool(stage.RESOURCES.gpus) == ("model" in {stage.GIVES} | kinds(stage)), name


def test_what_a_stage_asks_for_and_what_can_be_said_of_a_place_are_shown(capsys):
    assert cli.main(["show", "adapt"]) == 0
    assert "asks a cluster for gpus 1, cpus 4, memory 32, minutes 240\n" in capsys.readouterr().out
    assert cli.main(["show", "launch"]) == 0
    assert '  kind: "local" or "slurm" or "ray" = "local"\n' in capsys.readouterr().out


def kinds(stage):
    return {need.kind for need in stage.NEEDS.values()}


def test_without_gpus_a_process_sees_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert seat.environments(1, 0, tmp_path)[0]["CUDA_VISIBLE_DEVICES"] == ""
    assert seat.places(0) == 1


@pytest.mark.parametrize(("kind", "library"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_library_that_is_missing_is_told_with_its_pip_line(here, kind, library, capsys):
    if find_spec(library):
        pytest.skip(f"{library} is installed")
    write()
    assert cli.main(["sweep", "r", *WORDS, f"launch={kind}"]) == 1
    assert f'python -m pip install "recipe-runner[{kind}]"' in capsys.readouterr().err
    assert not list(Path("sweeps").glob("r/*/manifest.json"))


def test_jobs_that_would_end_with_the_program_are_not_left_alone(here, capsys):
    write()
    assert cli.main(["sweep", "r", *WORDS, "--detach"]) == 1
    said = capsys.readouterr().err
    assert "jobs of launch=local end with the program that gives them out." in said
    assert not made()


def test_what_is_done_is_collected_and_nothing_started(here, capsys):
    write(f"tell: {{does: refuse, once: {here / 'mark'}, log: {here / 'log'}}}")
    assert cli.main(["sweep", "r", *WORDS, "--collect"]) == 1
    assert "this sweep has not been started." in capsys.readouterr().err
    assert sweep("r", *WORDS)[0] == 1
    before = made()
    assert cli.main(["sweep", "r", *WORDS, "--collect"]) == 1
    assert "tell: refused: these data are no good." in capsys.readouterr().out
    assert made() == before
    assert sweep("r", *WORDS)[0] == 0
    assert cli.main(["sweep", "r", *WORDS, "--collect"]) == 0
    assert capsys.readouterr().out.startswith("6 jobs: 6 done\n")
    first = next((standing.store_of(manifest_of(*WORDS)).entries).iterdir())
    files.remove(first)
    assert cli.main(["sweep", "r", *WORDS, "--collect"]) == 75


# Arrays of Slurm

ASKED = Resources(cpus=1)
afters = st.lists(
    st.sampled_from(["1", "2", "5_0", "5_1", "5_2", "6_0", "6_1", "6_2"]), max_size=3, unique=True
)


def waits_for(array, number):
    """The jobs that Slurm has an element of an array wait for."""
    found = set()
    for part in filter(None, array.dependency.split(",")):
        kind, *jobs = part.split(":")
        found |= {f"{job}_{number}" if kind == "aftercorr" else job for job in jobs}
    return found


@given(st.lists(afters, min_size=1, max_size=8))
def test_each_element_of_an_array_waits_for_what_it_builds_on_and_nothing_else(lists):
    wishes = [Wish(f"k{n}", "tell", ASKED, tuple(after)) for n, after in enumerate(lists)]
    found = [*arrays(wishes)]
    assert sorted(key for array in found for key in array.keys) == sorted(w.key for w in wishes)
    for array in found:
        for number, key in enumerate(array.keys):
            assert waits_for(array, number) == {*lists[int(key[1:])]}


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ([[], []], [""]),
        ([["1"], ["1"], ["2"]], ["afterok:1", "afterok:2"]),
        ([["5_0"], ["5_1"], ["5_2"]], ["aftercorr:5"]),
        ([["5_1"], ["5_0"]], ["aftercorr:5"]),
        ([["1", "5_0"], ["1", "5_1"]], ["afterok:1,aftercorr:5"]),
        ([["5_0", "6_0"], ["5_1", "6_1"]], ["aftercorr:5:6"]),
        ([["5_0", "6_1"], ["5_1", "6_0"]], ["afterok:5_0:6_1", "afterok:5_1:6_0"]),
        ([["5_1"], ["5_2"]], ["afterok:5_1", "afterok:5_2"]),
    ],
)
def test_steps_that_wait_alike_are_one_array(lists, said):
    wishes = [Wish(f"k{n}", "tell", ASKED, tuple(after)) for n, after in enumerate(lists)]
    assert sorted(array.dependency for array in arrays(wishes)) == said


def test_steps_that_ask_for_other_things_are_arrays_of_their_own():
    wishes = [Wish(f"k{n}", "tell", Resources(cpus=n % 2 + 1), ()) for n in range(4)]
    assert [array.keys for array in arrays(wishes)] == [("k0", "k2"), ("k1", "k3")]
    many = [Wish(f"k{n}", "tell", ASKED, ()) for n in range(MOST + 1)]
    assert [len(array.keys) for array in arrays(many)] == [MOST, 1]


# One step on a machine of a cluster


def test_each_step_made_alone_gives_what_the_whole_sweep_gives(here, monkeypatch, tmp_path):
    write()
    order, _ = ordered("tell.rank=1,2")
    for key in order.graph.rows:
        assert single.of(order, key).make(lambda: None)
    found = digests(order.store, order.manifest)
    assert made() == dict.fromkeys(order.manifest.keys, 1)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "whole"))
    assert sweep("r", "tell.rank=1,2")[0] == 0
    whole = standing.store_of(order.manifest)
    assert whole.root != order.store.root
    assert digests(whole, order.manifest) == found


def test_a_step_that_fails_alone_leaves_why(here):
    write("begin: {does: refuse}")
    order, _ = ordered(*WORDS)
    key = key_of(order.manifest, "begin")
    assert not single.of(order, key).make(lambda: None)
    [failure] = local.failures(order.folder)
    assert (failure.key, failure.cause) == (key, "refused")


def test_a_machine_that_does_not_find_the_inputs_makes_nothing(here, monkeypatch):
    monkeypatch.setattr(single, "PATIENCE", 0.0)
    write()
    order, _ = ordered(*WORDS)
    assert not single.of(order, key_of(order.manifest, "grow")).make(lambda: None)
    [failure] = local.failures(order.folder)
    assert failure.fact == f"this machine does not find begin in {order.store.root}."
    assert not made()


# Following what others make


def test_what_others_make_is_told_as_it_comes(here):
    write()
    order, told = ordered(*WORDS)
    following = Following(order)
    key = key_of(order.manifest, "begin")
    with order.store.lease(key, print):
        following.look()
        following.look()
    assert [type(event) for event in told] == [Begun]
    assert single.of(order, key).make(lambda: None)
    following.look()
    assert isinstance(told[-1], Made)
    assert key not in order.graph.open
    assert {order.graph.rows[each].name for each in order.graph.ready} == {"grow"}


def test_a_failure_that_is_left_takes_along_what_builds_on_it(here):
    write()
    order, told = ordered(*WORDS)
    following = Following(order)
    begin = key_of(order.manifest, "begin")
    local.write_failure(order.folder, Failure(begin, "begin", "refused", "no."))
    following.look()
    assert not order.graph.open
    assert [failure.key for failure in order.failures] == [begin]
    assert isinstance(told[-1], Broke)


def test_a_result_that_no_longer_counts_is_not_taken_for_the_new_one(here):
    write()
    order, _ = ordered(*WORDS)
    key = key_of(order.manifest, "begin")
    assert single.of(order, key).make(lambda: None)
    again, told = ordered(*WORDS)  # the plan says that nothing is done
    following = Following(again)
    following.look()
    assert key in again.graph.open
    assert told == []


def test_what_is_lost_is_tried_as_often_as_asked_for_and_then_failed(here):
    write()
    order, told = ordered(*WORDS, "sweep.retries=2")
    following = Following(order)
    key = key_of(order.manifest, "begin")
    failure = Failure(key, "begin", "lost machine", "gone.")
    assert [following.lose(failure, again=True) for _ in range(3)] == [True, True, False]
    assert [event.again for event in told] == [True, True, False]
    assert order.failures[0].attempts == 3
    assert [each.key for each in local.failures(order.folder)] == [key]


def test_old_failures_are_forgotten_when_their_steps_are_tried_anew(here):
    write()
    order, _ = ordered(*WORDS)
    key = key_of(order.manifest, "begin")
    local.write_failure(order.folder, Failure(key, "begin", "refused", "no."))
    Following(order).forget_failures([key, "another"])
    assert not [*local.failures(order.folder)]


def test_the_launch_of_a_sweep_is_that_of_its_last_start(here):
    write()
    assert sweep("r", *WORDS)[0] == 0
    folder = folder_of()
    assert sweep("r", *WORDS, "launch.resources.grow.cpus=3")[0] == 0
    assert folder_of() == folder
    found = manifests.load(folder)
    assert found is not None
    assert found.launch.resources == {"grow": Resources(cpus=3)}
    assert {row["state"] for row in status()} == {"done"}
