"""The schema of recipes agrees with what composes: every shipped file fits it, mistakes do not."""

import json
import typing
from dataclasses import fields

import pytest
import yaml
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf

from runner import cli, places, schema
from runner.options import convert
from runner.stages import known

STAGES = known()
RECIPES = sorted(places.shipped("recipes").glob("*.yaml"))
PRESETS = [*places.presets()]
VALUES = [
    *(True, 0, 1, -1, 3, 1000, 0.5, 1.5, -0.5, "", "auto", "nothing of the kind", "some/path"),
    *(None, [], ["a"], [1], [{}], {}, {"a": 1}, {"a": "b"}, {"a": 0.5}, {"a": None}),
]


@pytest.fixture(scope="module")
def recipes():
    made = schema.of_recipes(STAGES, [places.shipped("conf")])
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


def plain(text):
    """YAML as Hydra reads it (`5e-4` is a number), references as they are written."""
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def faults(recipes, text):
    return [
        f"{'.'.join(map(str, deepest.absolute_path))}: {deepest.message}"
        for error in recipes.iter_errors(plain(text))
        for deepest in [*(error.context or [error])]
    ]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_fits(path, recipes):
    assert faults(recipes, path.read_text()) == []


def test_the_resolved_quickstart_fits(recipes, capsys):
    assert cli.main(["show", "quickstart"]) == 0
    assert faults(recipes, capsys.readouterr().out) == []


@pytest.mark.parametrize(("stage", "name", "path"), PRESETS)
def test_every_shipped_preset_fits(stage, name, path):
    made = schema.of_presets(stage, STAGES)
    Draft202012Validator.check_schema(made)
    assert [*Draft202012Validator(made).iter_errors(plain(path.read_text()))] == []


def test_there_were_some_to_fit():
    assert len(RECIPES) >= 1
    assert len(PRESETS) >= 19


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("adapt: {rnk: 8}", "rnk"),
        ("adapt: {rank: eight}", "'eight'"),
        ("adapt: {rank: 0}", "0 is less than the minimum of 1"),
        ("adapt: {method: laura}", "'laura' is not one of"),
        ("adapt: 8", "8 is not of type"),
        ("adpt: {rank: 8}", "'stage' is a required property"),
        ("before: {stage: generat}", "'generat' is not one of"),
        ("before: {stage: generate, max_tokens: 8}", "max_tokens"),
        ("fetch: {model: {repos: a/b}}", "repos"),
        ("fetch: {'a b': {repo: a/b}}", "'a b'"),
        ("load: {quantization: {methods: nf4}}", "methods"),
        ("process: {filters: {kind: unicode}}", "is not of type 'array'"),
        ("store: {keep: everything}", "'everything'"),
        ("steps: fetch", "'fetch' is not of type 'array'"),
        ("steps: [fetch]\nseed: -1", "-1 is less than the minimum of 0"),
        ("defaults: [{/adapt: laura}]", "'laura' is not one of"),
        ("defaults: [{/adpt: lora}]", "'/adpt' does not match"),
        ("defaults: [{/adapt@x: lora, /load: y}]", "too many properties"),
        ("name: 3", "3 is not of type 'string'"),
    ],
)
def test_a_mistake_does_not_fit(text, said, recipes):
    found = faults(recipes, text)
    assert any(said in each for each in found), found


@pytest.mark.parametrize(
    "text",
    [
        "adapt:",
        "adapt: {rank: '${seed}', learning_rate: 5e-4, model: load}",
        "process: {data: [fetch.data, fetch.more], weights: {fetch.data: 2}}",
        "load: {max_memory: {0: 20GB, cpu: 60GB}}",
        "store: somewhere",
        "store: {path: somewhere, keep: [adapt]}",
        "defaults: [quickstart, _self_]\nbefore: {max_new_tokens: 8}",
        "defaults: [{override /adapt: lora}, {/generate@before: sampled}, {/load: null}, _self_]",
        "fetch: {model: {path: x}, chats: null}",
        "late: {stage: fetch, model: {path: x}}",
    ],
)
def test_what_composes_fits(text, recipes):
    assert faults(recipes, text) == []


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_the_schema_takes_the_values_that_the_options_take(stage, recipes):
    """But for whole numbers written as 1.0, and for what a nested mapping lacks: see of_recipes."""
    options, compared = STAGES[stage].Options, 0
    hints = typing.get_type_hints(options)
    for field in fields(options):
        for value in VALUES:
            _, found = convert(hints[field.name], value, (field.name,))
            limits = [field.metadata["at_least"], field.metadata["at_most"]]
            number = isinstance(value, int | float) and not found
            low, high = limits
            found += [1] if number and low is not None and value < low else []
            found += [1] if number and high is not None and value > high else []
            if any(" needs " in str(fault) for fault in found):
                continue
            step = {field.name: value}
            recipe = {stage: {"x": step} if STAGES[stage].PARTS else step}
            assert recipes.is_valid(recipe) == (not found), (field.name, value, found)
            compared += 1
    assert compared >= len(VALUES)


def test_hovers_and_completion_have_what_they_show(recipes):
    for name, stage in STAGES.items():
        step = recipes.schema["$defs"][name]
        assert step["description"]
        options = step["additionalProperties"] if stage.PARTS else step
        for field in fields(stage.Options):
            assert options["properties"][field.name]["description"] == field.metadata["help"]
    assert recipes.schema["$defs"]["generate"]["properties"]["max_new_tokens"]["default"] == 64


def test_presets_beside_the_recipe_may_be_chosen(tmp_path, monkeypatch, capsys):
    (tmp_path / "adapt").mkdir()
    (tmp_path / "adapt" / "own.yaml").write_text("rank: 3\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["schema"]) == 0
    printed = Draft202012Validator(json.loads(capsys.readouterr().out))
    for name, fits in {"own": True, "lora": True, "onw": False}.items():
        assert printed.is_valid(yaml.safe_load(f"defaults: [{{/adapt: {name}}}]")) == fits


def test_the_schema_of_a_stages_presets_is_printed(capsys):
    assert cli.main(["schema", "adapt"]) == 0
    printed = Draft202012Validator(json.loads(capsys.readouterr().out))
    assert printed.is_valid({"rank": 3})
    assert not printed.is_valid({"rnk": 3})
    assert cli.main(["schema", "adpt"]) == 1
    assert 'Did you mean "adapt"?' in capsys.readouterr().err


def test_a_line_for_the_editor_is_not_what_a_recipe_says_of_itself(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.yaml").write_text(
        "# yaml-language-server: $schema=recipe.schema.json\n# Makes mine.\nsteps: [fetch]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list"]) == 0
    assert "  mine                   Makes mine.\n" in capsys.readouterr().out
