"""A remembered recipe is believed only while nothing that it was composed of has changed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_shipped import missing

from runner import compose as anew
from runner import composing, places
from runner.errors import RecipeError
from runner.recipe import Recipe
from runner.stages import known

RECIPE = """\
defaults:
  - /adapt: own
  - /quantize: nf4
  - _self_
steps: [fetch, process, load, adapt, quantize]
fetch: {model: {path: model}, data: {path: rows.jsonl}}
process: {held_out: 1}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A recipe with a preset of its own beside it; changes are seen however new they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(composing, "RACY", -(10**18))
    (tmp_path / "model").mkdir()
    Path("rows.jsonl").write_text("{}\n")
    write("r.yaml", RECIPE)
    write("adapt/own.yaml", "rank: 4\n")
    return tmp_path


@pytest.fixture
def composed(monkeypatch):
    """Compose; the list says of each time whether Hydra did it."""
    times: list[bool] = []
    real = anew.compose

    def counted(*words):
        times[-1] = True
        return real(*words)

    monkeypatch.setattr(anew, "compose", counted)

    def call(name="r", *overrides):
        times.append(False)
        return composing.compose(name, overrides, known())

    call.times = times
    return call


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def told(recipe: Recipe):
    """All that a recipe is."""
    steps = [(s.name, s.stage_name, s.options, dict(s.inputs)) for s in recipe.steps]
    return steps, recipe.plain, recipe.path, recipe.name, recipe.keep, recipe.versions, recipe.sweep


def remembered(composed, *overrides):
    """Compose twice; the second time must not ask Hydra."""
    first, second = composed("r", *overrides), composed("r", *overrides)
    assert told(first) == told(second)
    assert composed.times[-2:] == [True, False]
    return second


def test_what_is_remembered_is_what_was_composed(composed):
    remembered(composed)
    remembered(composed, "adapt.rank=16", "quantize=int8", "~process.held_out", "seed=3")


@pytest.mark.parametrize("name", [path.stem for path in places.recipes()])
def test_every_shipped_recipe_is_remembered_as_it_is(name, composed):
    if lacking := missing(name):
        pytest.skip(lacking)
    first, second = composed(name), composed(name)
    assert composed.times == [True, False]
    assert told(first) == told(second)


def test_hydra_is_not_even_imported_a_second_time():
    program = (
        "import sys\nfrom runner.cli import main\ncode = main(sys.argv[1:])\n"
        "print('hydra' in sys.modules, 'omegaconf' in sys.modules, code)"
    )
    aged = f"from runner import composing; composing.RACY = {composing.RACY}\n"

    def loaded(*words):
        command = [sys.executable, "-c", aged + program, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    write("light.yaml", "steps: [fetch]\nfetch: {data: {path: rows.jsonl}}\n")
    assert loaded("plan", "light") == "True True 0"
    assert loaded("plan", "light") == "False False 0"
    assert loaded("run", "light") == "False False 0"
    assert loaded("run", "light") == "False False 0"
    assert loaded("plan", "light", "fetch.data.path=r.yaml") == "True True 0"


# Every way in which it can change


def test_an_edited_recipe_is_composed_anew(composed):
    remembered(composed)
    write("r.yaml", RECIPE.replace("held_out: 1", "held_out: 2"))
    assert remembered(composed).step("process").options.held_out == 2


def test_an_edited_preset_is_composed_anew(composed):
    remembered(composed)
    write("adapt/own.yaml", "rank: 5\n")
    assert remembered(composed).step("adapt").options.rank == 5


def test_an_edit_that_keeps_size_and_times_is_seen(composed):
    remembered(composed)
    status = Path("adapt/own.yaml").stat()
    write("adapt/own.yaml", "rank: 5\n")
    os.utime("adapt/own.yaml", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert composed().step("adapt").options.rank == 5


def test_a_preset_that_comes_to_stand_before_another_is_composed_anew(composed):
    assert remembered(composed).step("quantize").options.double_quantization is not None
    write("quantize/nf4.yaml", "method: fp4\n")
    assert remembered(composed).step("quantize").options.method == "fp4"


def test_a_preset_that_stands_before_another_and_goes_is_composed_anew(composed):
    write("quantize/nf4.yaml", "method: fp4\n")
    assert remembered(composed).step("quantize").options.method == "fp4"
    Path("quantize/nf4.yaml").unlink()
    assert remembered(composed).step("quantize").options.method == "nf4"


def test_a_preset_that_an_override_chose_counts_likewise(composed):
    text = RECIPE.replace("  - /adapt: own\n", "")
    write("r.yaml", text)
    assert remembered(composed, "adapt=own").step("adapt").options.rank == 4
    write("adapt/own.yaml", "rank: 6\n")
    assert remembered(composed, "adapt=own").step("adapt").options.rank == 6


def test_a_folder_of_presets_inside_the_recipes_folder_can_be_shadowed_too(composed, monkeypatch):
    monkeypatch.setattr(places, "preset_folders", lambda path: [path.parent, path.parent / "conf"])
    write("conf/quantize/nf4.yaml", "method: nf4\n")
    remembered(composed)
    write("quantize/nf4.yaml", "method: fp4\n")
    assert remembered(composed).step("quantize").options.method == "fp4"


def test_a_preset_that_is_gone_is_said_to_be(composed):
    remembered(composed)
    Path("adapt/own.yaml").unlink()
    with pytest.raises(RecipeError, match='adapt has no preset "own"'):
        composed()


def test_other_overrides_are_composed_anew(composed):
    assert remembered(composed, "adapt.rank=8").step("adapt").options.rank == 8
    assert remembered(composed, "adapt.rank=9").step("adapt").options.rank == 9
    assert remembered(composed).step("adapt").options.rank == 4


def test_another_recipe_of_the_same_name_is_composed_anew(composed, tmp_path, monkeypatch):
    remembered(composed)
    write("other/r.yaml", RECIPE.replace("held_out: 1", "held_out: 3"))
    for name in ("adapt/own.yaml", "rows.jsonl"):
        write(f"other/{name}", Path(name).read_text())
    Path("other/model").mkdir()
    monkeypatch.chdir("other")
    found = remembered(composed)
    assert (found.step("process").options.held_out, found.path.parent.name) == (3, "other")


def test_the_environment_counts_wherever_a_recipe_refers_to_it(composed, monkeypatch):
    write("r.yaml", RECIPE.replace("held_out: 1", "held_out: '${oc.decode:${oc.env:HELD}}'"))
    for held in ("1", "2"):
        monkeypatch.setenv("HELD", held)
        assert composed().step("process").options.held_out == int(held)
    assert composed.times == [True, True]


def test_a_reference_that_yaml_hides_counts_too(composed, monkeypatch):
    hidden = '"\\x24{oc.decode:\\u0024{oc.env:HELD}}"'
    write("r.yaml", RECIPE.replace("held_out: 1", f"held_out: {hidden}"))
    for held in ("1", "2"):
        monkeypatch.setenv("HELD", held)
        assert composed().step("process").options.held_out == int(held)


def test_a_preset_that_the_environment_chooses_is_composed_anew(composed, monkeypatch):
    write("adapt/else.yaml", "rank: 7\n")
    write("r.yaml", RECIPE.replace("/adapt: own", "/adapt: ${oc.env:CHOSEN}"))
    for name, rank in (("own", 4), ("else", 7)):
        monkeypatch.setenv("CHOSEN", name)
        assert composed().step("adapt").options.rank == rank


def test_an_override_that_refers_to_the_environment_counts_too(composed, monkeypatch):
    for held in ("1", "2"):
        monkeypatch.setenv("HELD", held)
        override = "process.held_out='${oc.decode:${oc.env:HELD}}'"
        assert composed("r", override).step("process").options.held_out == int(held)


def test_a_reference_within_the_recipe_is_remembered_and_follows_it(composed):
    write("r.yaml", RECIPE.replace("held_out: 1", "held_out: '${adapt.rank}'"))
    assert remembered(composed).step("process").options.held_out == 4
    assert remembered(composed, "adapt.rank=2").step("process").options.held_out == 2


def test_an_optional_preset_counts_once_it_is_there(composed):
    text = RECIPE.replace("  - /quantize: nf4", "  - optional /quantize: mine")
    write("r.yaml", text + "quantize: {method: nf4}\n")
    assert composed().step("quantize").options.skip == ()
    write("quantize/mine.yaml", "skip: [lm_head]\n")
    assert composed().step("quantize").options.skip == ("lm_head",)


@pytest.mark.parametrize(
    "chosen", [("  - /adapt: own", ()), ("  - /quantize: nf4", ("adapt=own",))]
)
def test_a_preset_that_builds_on_another_counts_with_it(composed, chosen):
    kept, overrides = chosen
    write("r.yaml", RECIPE.replace("  - /adapt: own\n  - /quantize: nf4", kept))
    write("adapt/own.yaml", "defaults: [below, _self_]\nalpha: 8\n")
    for rank in (4, 5):
        write("adapt/below.yaml", f"rank: {rank}\n")
        options = composed("r", *overrides).step("adapt").options
        assert (options.rank, options.alpha) == (rank, 8)


@pytest.mark.parametrize("what", ["__version__", "CODE", "SCHEMA"])
def test_another_version_of_ours_composes_anew(composed, monkeypatch, what):
    remembered(composed)
    changed = {"__version__": "9.9", "CODE": ("compose",), "SCHEMA": 99}[what]
    monkeypatch.setattr(composing, what, changed)
    remembered(composed)


@pytest.mark.parametrize("library", ["hydra", "omegaconf"])
def test_another_version_of_a_library_composes_anew(composed, monkeypatch, library):
    remembered(composed)
    real = composing._origin
    monkeypatch.setattr(
        composing, "_origin", lambda name, file: "new" if name == library else real(name, file)
    )
    remembered(composed)


def test_edited_code_of_ours_composes_anew(composed, tmp_path, monkeypatch):
    package = tmp_path / "package"
    for name in composing.CODE:
        write(f"{package}/{name}.py", "1\n")
    conf = places.shipped("conf")
    monkeypatch.setattr(places, "preset_folders", lambda path: [path.parent, conf])
    monkeypatch.setattr(places, "PACKAGE", package)
    remembered(composed)
    write(f"{package}/compose.py", "2\n")
    remembered(composed)


def test_a_stage_that_is_new_composes_anew(composed, monkeypatch):
    remembered(composed)
    real = known()
    more = {**real, "train": real["adapt"]}
    composed.times.append(False)
    composing.compose("r", [], more)
    assert composed.times[-1]


def test_what_may_have_hydra_look_elsewhere_keeps_all_from_being_remembered(composed, monkeypatch):
    monkeypatch.setattr(composing, "_has_plugins", lambda: True)
    composed(), composed()
    assert composed.times == [True, True]


def test_a_file_that_has_just_changed_is_not_remembered(composed, monkeypatch):
    monkeypatch.setattr(composing, "RACY", 2_000_000_000)
    composed(), composed()
    assert composed.times == [True, True]


# What is not of the files is looked at each time


def test_a_file_that_is_gone_is_told_of_a_remembered_recipe(composed):
    remembered(composed)
    Path("rows.jsonl").unlink()
    with pytest.raises(RecipeError, match=r"^r\.yaml:6: .*rows\.jsonl does not exist\.") as caught:
        composed()
    assert composed.times[-1] is False
    with pytest.raises(RecipeError) as expected:
        anew.compose("r", [], known())
    assert str(caught.value) == str(expected.value)


def test_a_recipe_with_a_mistake_is_not_remembered(composed):
    write("r.yaml", RECIPE.replace("held_out", "heldout"))
    for _ in range(2):
        with pytest.raises(RecipeError, match='Did you mean "held_out"'):
            composed()
    assert composed.times == [True, True]


def test_values_that_json_would_change_are_not_remembered(composed):
    write("r.yaml", RECIPE + "load: {device_map: auto, max_memory: {0: 1GB}}\n")
    for _ in range(2):
        assert composed().step("load").options.max_memory == {0: "1GB"}
    assert composed.times == [True, True]


def test_one_and_true_and_one_point_zero_stay_what_they_are(composed):
    text = "process: {held_out: 1, rules: [{a: 1, b: true, c: 1.0, d: null, e: '1'}]}\n"
    write("r.yaml", RECIPE.replace("process: {held_out: 1}\n", text))
    with pytest.raises(RecipeError):  # `rules` cannot be given, but its values are compared here
        composed()
    memory = composing._Memory(Path("r.yaml").resolve(), [], known())
    values = yaml.safe_load(text)["process"]["rules"]
    assert composing._holds(values)
    assert list(map(type, json.loads(json.dumps(values))[0].values())) == [
        int,
        bool,
        float,
        type(None),
        str,
    ]
    assert not composing._holds([float("nan")])
    assert not composing._holds({"a": {1: 2}})
    assert not memory.place.exists()


@pytest.mark.parametrize(
    "text", ["", "[", "{}", '{"files": 1}', "[1]", '{"files": [["a", [], "b"]]}']
)
def test_a_memory_that_is_damaged_costs_only_time(composed, text, own_store):
    first = remembered(composed)
    [place] = (own_store / "composed").glob("*.json")
    place.write_text(text)
    assert told(composed()) == told(first)
    assert composed.times[-1]


def test_a_memory_that_cannot_be_written_costs_only_time(composed, own_store):
    (own_store / "composed").write_text("a file")
    assert told(composed()) == told(composed())


def test_only_the_newest_are_kept(composed, own_store, monkeypatch):
    monkeypatch.setattr(composing, "MOST", 2)
    for rank in (1, 2, 3):
        composed("r", f"adapt.rank={rank}")
    assert len([*(own_store / "composed").glob("*.json")]) == 2
