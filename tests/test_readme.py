"""What README.md says is what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest

from runner import running
from runner.errors import RecipeError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(marker: str) -> tuple[str, str]:
    """What follows the marker's colon, and the code block after it."""
    found = re.search(rf"<!-- {marker}: (.*?) -->\n```\w*\n(.*?)```\n", README, flags=re.DOTALL)
    assert found, marker
    return found[1], found[2]


def test_the_generated_parts_are_current():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    assert spec
    assert spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.generated(README) == README, "run: make readme"


def test_the_mistakes_read_as_shown():
    overrides, expected = block("mistakes")
    with pytest.raises(RecipeError) as raised:
        running.prepare("quickstart", overrides.split())
    assert str(raised.value) + "\n" == expected


def test_the_plan_names_the_steps_of_the_quickstart():
    _, shown = block("plan")
    planned, _ = running.prepare("quickstart", [])
    names = [planned.step.name for planned in planned.steps]
    assert [line.split()[0] for line in shown.splitlines()[:-1]] == names


def test_the_two_lines_of_set_up_are_there():
    for line in (
        "python -m pip install -c constraints.txt -e . && runner run quickstart",
        "python -m pip install -c constraints.txt -e '.[test]' && pytest",
    ):
        assert f"\n{line}\n" in README


def test_every_file_that_is_named_exists():
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        if not name.startswith("http"):
            assert (ROOT / name).exists(), name


def test_text_stands_outside_of_blocks():
    inside = False
    lines = README.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("```"):
            inside = not inside
            assert inside or not after, f"a block ends, and goes on with: {after}"
    assert not inside
