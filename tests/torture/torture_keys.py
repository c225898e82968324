"""What flips a key and what does not, for every option of every step of the quickstart."""

import shutil
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from measure import first, row

from runner import hardware, places, running
from runner.compose import compose
from runner.errors import RecipeError
from runner.files import digest_json
from runner.plan import key_parts
from runner.stages import known

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "computes_bfloat16", lambda: True)


def other(value, name):
    """Values of the same kind that differ."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value + 0.125, value + 1e-9]
    if isinstance(value, tuple):
        return [(*value, "another"), tuple(reversed(value))] if len(value) > 1 else [("another",)]
    if isinstance(value, Path):
        return [value.with_name("another")]
    if isinstance(value, str):
        return [value + "x", value.upper() if value != value.upper() else value + "y"]
    return ["another"]


PINNED = [places.find_recipe("quickstart")]
"""Of other shipped recipes the Hub is asked what their sources stand for now."""


def keys(name, *overrides):
    planned, _ = running.prepare(str(name), overrides)
    return {each.step.name: each.key for each in planned.steps}


def test_each_option_flips_its_key_or_does_not():
    begun, wrong, flips, still, by_override = time.monotonic(), [], 0, 0, 0
    for path in PINNED:
        planned, _ = running.prepare(path.stem, [])
        made = {each.step.name: each.key for each in planned.steps}
        for each in planned.steps:
            for f in fields(each.step.options):
                value = getattr(each.step.options, f.name)
                for changed in other(value, f.name):
                    options = replace(each.step.options, **{f.name: changed})
                    parts = key_parts(replace(each.step, options=options), made)
                    flipped = digest_json(parts)[:32] != each.key
                    keyed = f.metadata["keyed"]
                    flips, still = flips + keyed, still + (not keyed)
                    if flipped != keyed:
                        wrong.append(f"{path.stem} {each.step.name}.{f.name}: {value} {changed}")
                    if not isinstance(changed, (int, float)):
                        continue
                    try:
                        word = str(changed).lower() if isinstance(changed, bool) else changed
                        found = keys(path.stem, f"++{each.step.name}.{f.name}={word}")
                    except RecipeError:
                        continue
                    by_override += 1
                    if (found[each.step.name] != each.key) != keyed:
                        wrong.append(f"{path.stem} {each.step.name}.{f.name}={word} by override")
    seen = {s.stage_name for s in compose("quickstart", [], known()).steps}
    assert seen == set(known()), "a stage that no shipped recipe uses"
    row(
        "every option of every step of the shipped recipes changed",
        f"{flips} changes of keyed options, {still} of others, {by_override} again by override",
        f"{len(wrong)} keys that should have changed and did not, or the reverse",
        begun,
    )
    assert not wrong, first(wrong, 9)


def test_how_a_recipe_is_written_does_not_matter_and_its_wiring_does(tmp_path):
    begun, wrong, cases, swaps = time.monotonic(), [], 0, 0
    for recipe in PINNED:
        folder = tmp_path / recipe.stem
        shutil.copytree(recipe.parent, folder)
        path, text = folder / recipe.name, recipe.read_text()
        right = keys(path)
        if right != keys(recipe.stem):
            wrong.append("another folder changes the keys")
        plain = yaml.safe_load(text)
        turned = {name: plain[name] for name in reversed(plain)}
        turned = {n: _turned(v) for n, v in turned.items()}
        writings = {
            "comments": "# one more\n" + text.replace("\n", "   # said\n"),
            "key order": yaml.safe_dump(turned, sort_keys=False),
            "block style": yaml.safe_dump(plain, sort_keys=False, default_flow_style=False),
            "flow style": yaml.safe_dump(plain, sort_keys=True, default_flow_style=True),
            "white space": text.replace("\n", "\n\n").replace(": ", ":    "),
            "line ends": text.replace("\n", "\r\n"),
        }
        for name, writing in writings.items():
            cases += 1
            path.write_text(writing, newline="")
            if keys(path) != right:
                wrong.append(f"{recipe.stem}: {name} changes the keys")
        path.write_text(text)
        values = [("1e-3", "0.001"), ("1.0e-3", "0.001"), ("1", "1.0"), ("1e0", "1.0")]
        for one, two in values:
            cases += 1
            if keys(path, f"adapt.learning_rate={one}") != keys(path, f"adapt.learning_rate={two}"):
                wrong.append(f"{recipe.stem}: {one} is not {two} by override")
            found = []
            for value in (one, two):
                path.write_text(text.replace("adapt: {", f"adapt: {{learning_rate: {value}, "))
                found.append(keys(path))
            if found[0] != found[1]:
                wrong.append(f"{recipe.stem}: {one} is not {two} in the file")
            path.write_text(text)
        for step, overrides in (
            ("generate", "generate.model=load"),
            ("evaluate", "evaluate.reference=load"),
            ("evaluate", "evaluate.model=load"),
            ("evaluate", "+evaluate.texts=[before]"),
            ("save", "save.model=adapt"),
        ):
            swaps += 1
            if keys(path, "++" + overrides.lstrip("+"))[step] == right[step]:
                wrong.append(f"{recipe.stem}: {overrides} does not change the key")
        one = keys(path, "++evaluate.reference=load", "++evaluate.model=adapt")["evaluate"]
        two = keys(path, "++evaluate.reference=adapt", "++evaluate.model=load")["evaluate"]
        swaps += 2
        if one == two:
            wrong.append(f"{recipe.stem}: swapped models of evaluate have one key")
        one = keys(path, "++evaluate.texts=[before,generate]")["evaluate"]
        two = keys(path, "++evaluate.texts=[generate,before]")["evaluate"]
        if one == two:
            wrong.append(f"{recipe.stem}: swapped texts of evaluate have one key")
    row(
        "the shipped recipes written in other ways, and with other inputs",
        f"{cases} ways of writing, {swaps} changes of inputs",
        f"{len(wrong)} keys that should have stayed and did not, or the reverse",
        begun,
    )
    assert not wrong, first(wrong, 9)


def _turned(value):
    return {n: value[n] for n in reversed(value)} if isinstance(value, dict) else value
