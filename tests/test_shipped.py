"""Everything that is shipped: each recipe and preset is composed, planned and counted."""

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from runner import hardware, places, running
from runner.compose import compose
from runner.errors import RecipeError
from runner.quantizing import methods
from runner.smoke.recipe import read
from runner.stages import known

PLANNED = {"quickstart"}
"""Recipes whose sources are pinned; of others the Hub is asked what they stand for now."""
FROM_HUB = set(
    "gemma-3-1b-lora llama-3_1-8b-awq llama-3_1-8b-qlora mistral-7b-dpo qwen2_5-0_5b-gptq"
    " qwen2_5-0_5b-lora qwen2_5-7b-qlora smollm2-135m-dpo smollm2-1_7b-lora".split()
)
RECIPES = PLANNED | FROM_HUB
HOW = ("runner.data", "runner.sources", "runner.training.loop", "runner.training.methods")
PRESETS = {
    "adapt": set(
        "dora dpo full grpo ia3 kto lora orpo prefix prompt ptuning qlora rslora vera".split()
    ),
    "fetch": {"smollm2-135m", "smollm2-135m-hub"},
    "generate": {"greedy", "sampled"},
    "quantize": set("awq fp8 gptq int8 nf4 torchao-int4 torchao-int8 w8a8".split()),
}
LAUNCHES = {"local", "slurm", "ray"}
"""Presets that are no stage's: where the jobs of a sweep run."""
EVERY_PRESET = [(stage, name) for stage, names in PRESETS.items() for name in sorted(names)]
FROM_NETWORK = {"smollm2-135m-hub"}
NEEDS_MORE = {"grpo": ["{step}.rewards=[{{path: '{folder}/reward.py:score'}}]"]}
"""What a preset leaves to the recipe, for there is no value that would do."""

OPTIONS = {
    "fetch": "repo type revision commit include exclude path url wheel members sha256 digest"
    " convert_gguf allow_pickle",
    "process": "weights stopping_strategy shape columns split first on_bad_row filters rules"
    " template template_digest train_on held_out max_length on_long pack audit max_truncated"
    " seed workers",
    "load": "dtype attention quantization device_map max_memory trust_remote_code active combine"
    " merge preflight",
    "adapt": "method rank alpha dropout target_modules layers initialization feedforward_modules"
    " virtual_tokens base double_quantization master_weights merge objective loss beta"
    " label_smoothing sft_weight"
    " desirable_weight undesirable_weight rewards generations max_new_tokens temperature"
    " epochs max_steps max_tokens effective_batch_size"
    " micro_batch_size padding_free group_by_length learning_rate schedule learning_rate_floor"
    " decay_ratio warmup_steps warmup_ratio optimizer weight_decay beta1 beta2 epsilon"
    " max_grad_norm precision gradient_checkpointing kernels compile deterministic loss_limit"
    " evaluate_every evaluate_rows keep patience seed checkpoint_every checkpoint_seconds"
    " keep_checkpoints devices retries track",
    "quantize": "method bits group_size symmetric double_quantization skip calibration gate",
    "evaluate": "metrics pattern judges tasks samples perplexity_rows perplexity_on resamples"
    " confidence seed batch_size require",
    "save": "to overwrite format gguf shard_size hard_links verify push",
    "generate": "prompts file file_digest chat rows prefix samples max_new_tokens min_new_tokens"
    " stop temperature top_p top_k min_p beams length_penalty repetition_penalty"
    " no_repeat_ngram_size json_schema regex prompt_lookup logprobs seed engine batch_size"
    " memory_share gpus",
}
UNKEYED = {
    "fetch": "revision path url sha256",
    "load": "device_map max_memory preflight",
    "adapt": "micro_batch_size gradient_checkpointing loss_limit checkpoint_every"
    " checkpoint_seconds keep_checkpoints devices retries track",
    "evaluate": "batch_size require",
    "generate": "file batch_size memory_share gpus",
    "process": "filters template workers",
    "save": "overwrite hard_links verify push",
}
ROLES = {
    "fetch": "",
    "process": "data tokenizer",
    "load": "files base adapters",
    "adapt": "model dataset adapter",
    "quantize": "model dataset calibration_data",
    "generate": "model dataset assistant gguf",
    "evaluate": "texts dataset reference model",
    "save": "model base texts scores",
}

GOLDEN = json.loads((places.PACKAGE.parent / "tests" / "golden.json").read_text())
TOOLS = places.PACKAGE.parent / "tools"
WITHOUT_HARDWARE = {"fetch.model", "fetch.data", "process"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working directory in which nothing of the user's lies."""
    monkeypatch.chdir(tmp_path)


def keys(*overrides, recipe="quickstart"):
    planned, _ = running.prepare(recipe, overrides)
    return {each.step.name: each.key for each in planned.steps}


def choice(step, name, folder):
    """The overrides that choose a preset and say what it leaves to the recipe."""
    if name in methods.METHODS and (lacking := methods.missing(name)):
        pytest.skip(lacking)
    (folder / "reward.py").write_text("def score(prompts, completions, expected):\n    return []\n")
    more = [each.format(step=step, folder=folder) for each in NEEDS_MORE.get(name, [])]
    return [f"{step}={name}", *more]


def steps_of(stage):
    """The quickstart's steps of one stage, as an override names them."""
    steps = compose("quickstart", [], known()).steps
    return sorted({step.name.split(".")[0] for step in steps if step.stage_name == stage})


# Recipes


def test_every_recipe_is_known_here():
    found = {path.stem for path in places.shipped("recipes").rglob("*.yaml")}
    assert found == RECIPES
    assert len(found) == 10
    assert {path.stem for path in places.recipes()} == RECIPES


@pytest.mark.parametrize("recipe", sorted(FROM_HUB))
def test_every_recipe_of_the_hub_is_composed(recipe):
    if lacking := missing(recipe):  # that is the only fault then
        with pytest.raises(RecipeError, match=re.escape(lacking)) as error:
            compose(recipe, [], known())
        assert len(error.value.problems) == 1
        pytest.skip(lacking)
    found = compose(recipe, [], known())
    assert found.name == recipe
    assert found.steps[-1].options.to == Path.cwd() / "models" / recipe
    assert {step.options.type for step in found.steps if step.stage.PARTS} == {"model", "dataset"}


def missing(recipe):
    """The library that a recipe's way to quantize wants, where it is not here."""
    told = read(recipe, []).plain.get("quantize")
    return methods.missing(told["method"]) if told else None


@pytest.mark.parametrize("recipe", sorted(FROM_HUB))
def test_a_recipe_that_was_only_tried_small_claims_no_figure(recipe):
    lines = (places.shipped("recipes") / f"{recipe}.yaml").read_text().splitlines()
    tried = "What was tried is every step, small"
    assert lines[1] == f"# Needs: not measured. {tried}: runner run {recipe} --smoke"


@pytest.mark.parametrize("recipe", sorted(PLANNED))
def test_every_recipe_is_composed_and_planned(recipe):
    planned, _ = running.prepare(recipe, [])
    assert planned.recipe.name == recipe
    assert len(planned.steps) == len(planned.work) > 0


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_says_what_it_is_and_how_to_run_it(recipe):
    lines = (places.shipped("recipes") / f"{recipe}.yaml").read_text().splitlines()
    comment = [line for line in lines if line.startswith("#")]
    assert len(comment) > 1
    assert f"# Run:   runner run {recipe}" in comment


@pytest.mark.parametrize("recipe", sorted(PLANNED))
def test_the_keys_of_a_recipe_change_only_on_purpose(recipe, monkeypatch):
    monkeypatch.setattr(hardware, "computes_bfloat16", lambda: True)
    found = keys(recipe=recipe)
    del found["save"]  # its folder is part of its key, and lies where one stands
    assert found == GOLDEN["keys"][recipe], "was this meant? then: make golden"


def test_hardware_changes_the_keys_of_what_depends_on_it_only(monkeypatch):
    monkeypatch.setattr(hardware, "computes_bfloat16", lambda: False)
    found, golden = keys(), GOLDEN["keys"]["quickstart"]
    assert {name for name in golden if found[name] == golden[name]} == WITHOUT_HARDWARE


def test_a_stage_whose_code_changed_has_a_new_version_or_was_confirmed():
    spec = importlib.util.spec_from_file_location("golden", TOOLS / "golden.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found = tool.stages()
    assert set(found) == set(known()) == set(GOLDEN["stages"])
    for name, stage in found.items():
        assert stage == GOLDEN["stages"][name], (
            f"the code of {name} changed: raise its VERSION if what it makes changes,"
            " and confirm with: make golden"
        )


# Presets


def test_every_preset_is_known_here():
    found: dict[str, set[str]] = {}
    for stage, name, _ in places.presets():
        found.setdefault(stage, set()).add(name)
    assert found == PRESETS | {"launch": LAUNCHES}
    assert len(EVERY_PRESET) == 26
    files = [path for path in places.shipped("conf").rglob("*") if path.is_file()]
    assert len(files) == len(EVERY_PRESET) + len(LAUNCHES)


def test_every_folder_of_presets_is_a_stage():
    assert {*PRESETS} <= {*known()}


@pytest.mark.parametrize("name", sorted(LAUNCHES))
def test_every_place_for_jobs_can_be_chosen_in_the_quickstart(name):
    recipe = compose("quickstart", [f"launch={name}"], known())
    assert recipe.launch is not None
    assert recipe.launch.kind == name


@pytest.mark.parametrize(
    ("stage", "name"), [*EVERY_PRESET, *(("launch", name) for name in sorted(LAUNCHES))]
)
def test_every_preset_says_what_it_is(stage, name):
    text = (places.shipped("conf") / stage / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert len(text.splitlines()[0]) <= 100


@pytest.mark.parametrize(("stage", "name"), EVERY_PRESET)
def test_every_preset_can_be_chosen_in_the_quickstart(stage, name, tmp_path):
    preset = yaml.safe_load((places.shipped("conf") / stage / f"{name}.yaml").read_text())
    assert steps_of(stage)
    for step in steps_of(stage):
        chosen = choice(step, name, tmp_path)
        recipe = compose("quickstart", chosen, known())
        said = recipe.plain[step]
        for option, value in preset.items():
            if isinstance(value, dict):
                assert value.items() <= said[option].items()
            else:
                assert said[option] == pytest.approx(
                    float(value) if option.endswith("rate") else value
                )
        if name not in FROM_NETWORK:
            assert keys(*chosen)


@pytest.mark.parametrize(("stage", "name"), EVERY_PRESET)
def test_every_preset_can_be_chosen_by_a_recipe_that_chose_none(stage, name, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "r.yaml").write_text(
        "steps: [fetch, process, load, adapt, quantize, generate]\n"
        "fetch: {data: {path: rows.jsonl}}\n"
    )
    overrides = choice(stage, name, tmp_path)
    overrides += ["fetch=smollm2-135m"] if stage != "fetch" else []
    recipe = compose("r", overrides, known())
    preset = yaml.safe_load((places.shipped("conf") / stage / f"{name}.yaml").read_text())
    assert {*preset} <= {*recipe.plain[stage]}


# Stages


def test_no_option_appears_or_goes_away_by_accident():
    found = {name: " ".join(f.name for f in fields(s.Options)) for name, s in known().items()}
    assert found == OPTIONS


def test_no_option_leaves_the_key_by_accident():
    found = {
        name: " ".join(f.name for f in fields(stage.Options) if not f.metadata["keyed"])
        for name, stage in known().items()
    }
    assert {name: text for name, text in found.items() if text} == UNKEYED


def test_no_role_appears_or_goes_away_by_accident():
    assert {name: " ".join(stage.NEEDS) for name, stage in known().items()} == ROLES


def test_no_role_has_the_name_of_an_option():
    for name, stage in known().items():
        assert not {*stage.NEEDS} & {f.name for f in fields(stage.Options)}, name


# Data


def make_dates():
    path = places.shipped("recipes") / "data/make_dates.py"
    spec = importlib.util.spec_from_file_location("make_dates", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dates_are_what_their_script_writes_to_the_byte():
    shipped = places.shipped("recipes") / "data/dates.jsonl"
    made = "".join(json.dumps(row) + "\n" for row in make_dates().rows())
    assert shipped.read_bytes() == made.encode()


def test_every_data_file_is_small():
    files = [p for p in (places.shipped("recipes") / "data").rglob("*") if p.suffix != ".pyc"]
    sizes = {path.name: path.stat().st_size for path in files if path.is_file()}
    assert {*sizes} == {"dates.jsonl", "make_dates.py"}
    assert max(sizes.values()) < 200_000


def test_no_date_is_asked_twice():
    text = (places.shipped("recipes") / "data/dates.jsonl").read_text()
    rows = [json.loads(line)["messages"] for line in text.splitlines()]
    assert len(rows) == 480
    assert len({question["content"] for question, _ in rows}) == len(rows)
    assert len({answer["content"] for _, answer in rows}) == len(rows)
    assert all([m["role"] for m in row] == ["user", "assistant"] for row in rows)


def test_a_wheel_carries_every_recipe_and_preset(tmp_path):
    root = places.PACKAGE.parent
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, str(root)], check=True)
    carried = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    shipped = {
        f"runner/{path.relative_to(root).as_posix()}"
        for name in ("conf", "recipes")
        for path in (root / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped |= {f"runner/report/{name}" for name in ("run.html.jinja", "run.css")}
    shipped.add("runner/constraints.txt")
    assert len(shipped) > 8
    assert shipped <= carried


def test_to_know_the_stages_loads_nothing_of_how_they_work():
    """A plan with nothing to do should not pay for reading data or for fetching."""
    code = "import sys, runner.stages; print(*[m for m in sys.modules if m.startswith('runner.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = done.stdout.split()
    assert "runner.stages.process" in found
    assert [name for name in found if name.startswith(HOW)] == []
