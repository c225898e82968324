"""A sweep before it starts: its jobs, the values side by side, seeds, and what is written down."""

from pathlib import Path

import pytest
from sweeping import manifest_of, write

from runner import cli, places
from runner.errors import RecipeError
from runner.running import prepare as prepare_run
from runner.stages import known
from runner.sweep import manifest as manifests
from runner.sweep import standing, start


def overrides(*words):
    return [" ".join(job.overrides) for job in manifest_of(*words).jobs]


def test_values_are_taken_each_with_each_in_the_order_of_the_words(here):
    write()
    assert overrides("grow.rank=1,2", "seed=5", "tell.rank=3,4") == [
        "grow.rank=1 seed=5 tell.rank=3",
        "grow.rank=1 seed=5 tell.rank=4",
        "grow.rank=2 seed=5 tell.rank=3",
        "grow.rank=2 seed=5 tell.rank=4",
    ]


def test_values_side_by_side_are_taken_one_with_one(here):
    write()
    together = "sweep.zip=[grow.rank,score.rank]"
    assert overrides("grow.rank=1,2", "tell.rank=3,4", "score.rank=5,6", together) == [
        "grow.rank=1 tell.rank=3 score.rank=5",
        "grow.rank=1 tell.rank=4 score.rank=5",
        "grow.rank=2 tell.rank=3 score.rank=6",
        "grow.rank=2 tell.rank=4 score.rank=6",
    ]


def test_two_groups_go_side_by_side_each_for_itself(here):
    write("sweep: {zip: [[begin.rank, grow.rank], [tell.rank, score.rank]]}")
    jobs = overrides("begin.rank=1,2", "grow.rank=1,2", "tell.rank=3,4", "score.rank=3,4")
    assert len(jobs) == 4
    assert jobs[1] == "begin.rank=1 grow.rank=1 tell.rank=4 score.rank=4"


def test_a_repeated_job_has_other_seeds(here):
    write("seed: 7\nsweep: {repeat: 3}")
    made = manifest_of("grow.rank=1,2")
    assert [job.overrides[-1] for job in made.jobs] == ["seed=7", "seed=8", "seed=9"] * 2
    seeds = {row.options["seed"] for row in made.rows if row.name == "grow"}
    assert seeds == {7, 8, 9}
    assert made.varied == ("grow.rank", "seed")


def test_seeds_are_counted_from_the_one_that_is_asked_for(here):
    write()
    made = manifest_of("grow.rank=1,2", "seed=5", "sweep.repeat=2")
    assert [job.overrides[-1] for job in made.jobs] == ["seed=5", "seed=6"] * 2
    assert {row.options["seed"] for row in made.rows if row.name == "grow"} == {5, 6}


def test_values_of_a_block_in_the_recipe_go_side_by_side_with_those_of_words(here):
    write("sweep: {params: {grow.rank: [1, 2]}, zip: [grow.rank, score.rank]}")
    assert overrides("score.rank=5,6") == [
        "grow.rank=1 score.rank=5",
        "grow.rank=2 score.rank=6",
    ]


def test_jobs_that_are_the_same_are_one(here):
    write("grow: {seed: 1}\nbegin: {seed: 1}\ntell: {seed: 1}\nscore: {seed: 1}")
    assert len(manifest_of("sweep.repeat=3").jobs) == 1
    assert len(manifest_of("grow.rate=1,1.0").jobs) == 1
    assert len(manifest_of("grow.workers=1,2").jobs) == 1


def test_a_recipe_says_its_values_itself_and_words_win(here):
    write("sweep:\n  params: {grow.rank: '1,2', tell.rank: [3, 4]}")
    assert len(overrides()) == 4
    assert overrides("grow.rank=9") == ["tell.rank=3 grow.rank=9", "tell.rank=4 grow.rank=9"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grow.rank=1,2", "sweep.zip=[grow.rank,tel.rank]"], '"tel.rank" has no values.'),
        (
            ["grow.rank=1,2", "tell.rank=1,2,3", "sweep.zip=[grow.rank,tell.rank]"],
            "grow.rank has 2, tell.rank has 3",
        ),
        (["grow.rank=1,2", "sweep.zip=[grow.rank,grow.rank]"], "stands there twice"),
        (["seed=1,2", "sweep.repeat=2"], "seed has many values already"),
        (["sweep.retries=1,2"], "the sweep's own settings take one value"),
        (["sweep.objective=scroe.size"], 'Did you mean "score"?'),
        (["sweep.objective=score"], "Write STEP.FIGURE"),
        (["sweep.timeout={grwo: 4}"], 'there is no step "grwo". Did you mean "grow"?'),
        (["sweep.retrys=1"], 'Did you mean "retries"?'),
        (["sweep.on_failure={stop_after: 0}"], "must be at least 1"),
        (["grow.rnk=1,2"], 'grow has no option "rnk". Did you mean "rank"?'),
        (["grow.rank=1,two"], 'override "grow.rank=two": grow.rank must be a whole number'),
        (["grow.seed=-1,-2"], 'override "grow.seed=-2"'),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(here, words, said):
    write()
    with pytest.raises(RecipeError) as caught:
        manifest_of(*words)
    assert said in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("word", ["tell.rnk=1", "tell=nothing"])
def test_what_is_wrong_with_every_job_is_said_without_composing_all(here, word):
    write()
    with pytest.raises(RecipeError) as caught:
        manifest_of("grow.rank=range(1,100000)", word)
    assert len(caught.value.problems) == 1


def test_a_recipe_with_a_sweep_runs_once_as_it_stands(here):
    write("sweep: {params: {grow.rank: '1,2'}, repeat: 3}")
    planned, _ = prepare_run("r", [])
    plain = manifest_of("sweep.repeat=1", "grow.rank=8")
    assert [each.key for each in planned.steps] == [row.key for row in plain.steps(plain.jobs[0])]


def test_keys_are_those_of_single_runs(here, store):
    write()
    made = manifest_of("grow.rank=1,2", "seed=3,4")
    for job in made.jobs:
        planned, _ = prepare_run("r", job.overrides)
        assert [each.key for each in planned.steps] == [row.key for row in made.steps(job)]


def test_steps_that_jobs_share_are_there_once(here):
    write()
    made = manifest_of("grow.rank=1,2", "tell.rank=1,2,3")
    named = standing.names(made, made.keys)
    assert named == {"begin": 1, "grow": 2, "tell": 6, "score": 6}
    assert len(made.rows) == 15


def test_a_sweep_is_found_by_its_folder_its_id_and_its_recipe(here):
    write()
    made = manifest_of("grow.rank=1,2")
    root, newest = Path("sweeps"), Path("sweeps", "r", f"2026-02-01T00-00-00-{made.id}")
    for folder in (Path("sweeps", "r", f"2026-01-01T00-00-00-{made.id}"), newest):
        manifests.save(made, folder)
    other = manifest_of("grow.rank=1,2,3")
    manifests.save(other, Path("sweeps", "r", f"2026-01-15T00-00-00-{other.id}"))
    for name in (made.id, made.id[:6], str(newest), "r", "r.yaml"):
        assert start.find(name, root) == newest
    assert start.find("r", root, also_recipes=False) is None
    assert start.find(other.id, root).name.endswith(other.id)
    assert start.find("zzzz", root) is None
    assert start.prepare("r", ["grow.rank=1,2"], root).folder == newest
    assert start.prepare(made.id, [], root).manifest == made
    with pytest.raises(RecipeError, match="is a sweep, and its jobs are written down"):
        start.prepare(made.id, ["grow.rank=5"], root)


def test_a_manifest_is_read_as_it_was_written(here, tmp_path):
    write()
    made = manifest_of("grow.rank=1,2", "tell.rank=1,2,3")
    manifests.save(made, tmp_path / "kept")
    kept = manifests.load(tmp_path / "kept")
    assert kept == made
    stages = known()
    for job in kept.jobs:
        keys = {}
        for row in kept.steps(job):
            parts = manifests.key_parts(row.step(stages), keys)
            keys[row.name] = manifests.files.digest_json(parts)[:32]
            assert keys[row.name] == row.key


def test_a_job_is_named_by_what_it_is(here):
    write()
    one = {" ".join(job.overrides): job.id for job in manifest_of("grow.rank=1,2").jobs}
    other = {" ".join(job.overrides): job.id for job in manifest_of("grow.rank=2,3").jobs}
    assert one["grow.rank=2"] == other["grow.rank=2"]
    assert len({*one.values(), *other.values()}) == 3


def test_steps_that_would_write_over_one_another_are_left_out(here):
    (here / "weights").mkdir()
    (here / "weights" / "model.txt").write_text("w")
    Path("s.yaml").write_text(
        "steps: [fetch, load, save]\nfetch: {model: {path: weights}}\nsave: {to: out}\n"
    )
    made = start._planned("s", ["load.dtype=float32,bfloat16"])
    assert made.left_out == ("save",)
    assert {row.name for row in made.rows} == {"fetch.model", "load"}
    apart = start._planned("s", ["load.dtype=float32,bfloat16", "save.to=out-${load.dtype}"])
    assert apart.left_out == ()
    assert len(apart.jobs) == 2


def test_a_folder_that_jobs_would_write_over_is_refused_where_a_step_reads_it(here):
    (here / "weights").mkdir()
    (here / "weights" / "model.txt").write_text("w")
    Path("s.yaml").write_text(
        "steps: [fetch, load, save, again]\nfetch: {model: {path: weights}}\nsave: {to: out}\n"
        "again: {stage: load, files: save}\n"
    )
    with pytest.raises(RecipeError) as caught:
        start._planned("s", ["load.dtype=float32,bfloat16"])
    assert "save: jobs would write over one another, and again reads it." in str(caught.value)
    made = start._planned("s", ["load.dtype=float32,bfloat16", "save.to=out-${load.dtype}"])
    assert len(made.jobs) == 2


def test_dry_run_prints_jobs_distinct_steps_and_what_sharing_saves(here, capsys):
    write()
    assert cli.main(["sweep", "r", "grow.rank=1,2", "tell.rank=1,2,3", "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.endswith("(4 steps to run)")]) == 6
    assert said[7:] == [
        "begin  1 distinct, 0 done",
        "grow   2 distinct, 0 done",
        "tell   6 distinct, 0 done",
        "score  6 distinct, 0 done",
        "6 jobs of 24 steps, 15 of them distinct:",
        "  0 are done, 15 to run",
        "  sharing saves 9 steps",
    ]
    assert not Path("sweeps").exists()


def test_the_time_that_sharing_saves_is_known_from_earlier_runs(here, capsys):
    write("grow: {rounds: 2, pause: 0.1}")
    assert cli.main(["run", "r"]) == 0
    capsys.readouterr()
    made = manifest_of("tell.rank=1,2,3")
    store = standing.store_of(made)
    entries = standing.done(made, store, known())
    found = standing.work(made, entries, store)
    assert (found.steps, found.distinct, found.shared) == (12, 8, 4)
    assert {made.keys[key].name for key in entries} == {"begin", "grow"}
    assert found.is_whole
    assert found.seconds - found.distinct_seconds == pytest.approx(0.4, abs=0.15)
    assert found.seconds_left < 0.2


def planned_from_docs(number):
    """The quickstart with one of the sweeps that the docs show."""
    text_of_docs = (places.PACKAGE.parent / "docs/how-to/sweeps.md").read_text()
    block = text_of_docs.split("```yaml\nsweep:")[number].split("```")[0]
    shipped = places.shipped("recipes") / "quickstart.yaml"
    text = shipped.read_text().replace("data/dates", str(shipped.parent / "data" / "dates"))
    Path("mine.yaml").write_text(f"{text}\nsweep:{block}")
    return start._planned("mine", [])


def test_the_sweep_that_the_docs_show_is_planned(here):
    made = planned_from_docs(1)
    assert len(made.jobs) == 3 * 2 * 3
    assert made.settings.timeout == {"adapt": 3600.0}


def test_the_search_that_the_docs_show_is_planned(here):
    pytest.importorskip("optuna")
    made = planned_from_docs(2)
    assert made.varied == ("adapt.learning_rate", "adapt.rank")
    assert made.frozen
    assert made.jobs == ()
    assert made.left_out == ("save",)


def test_a_locked_sweep_fetches_only_what_the_lock_file_says(here, capsys):
    Path("rows.jsonl").write_text('{"a": 1}\n')
    Path("more.jsonl").write_text('{"a": 2}\n')
    text = "steps: [fetch, begin]\nfetch: {data: {path: rows.jsonl}}\nbegin: {rank: 1}\n"
    Path("f.yaml").write_text(text)
    words = ["sweep", "f", "begin.rank=1,2", "--dry-run", "--locked"]
    assert cli.main(words) == 1
    assert "there is no lock file." in capsys.readouterr().err
    assert cli.main(["lock", "f"]) == 0
    assert cli.main(words) == 0
    capsys.readouterr()
    assert cli.main([*words, "fetch.data.path=rows.jsonl,more.jsonl"]) == 1
    assert "fetch.data: path rows.jsonl -> more.jsonl" in capsys.readouterr().err
    Path("rows.jsonl").write_text('{"a": 3}\n')
    assert cli.main(words) == 1
    assert "fetch.data: " in capsys.readouterr().err
