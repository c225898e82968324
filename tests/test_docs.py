"""What docs/ and README.md say is what the code does: commands, recipes, options, pictures."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from runner import cli, copying, events, functions, hardware, opened, places
from runner.compose import compose
from runner.errors import RecipeError
from runner.overriding import axes
from runner.stages import STAGES, known

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text() for path in [*PAGES, ROOT / "README.md"]
}
FENCE = re.compile(r"^```(\w*)(?: title=\"(.*?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "sh")
LACKING = re.compile(r"is missing: python -m pip install|is not installed|there is no GPU")
"""What this machine may lack of what a page needs."""
BESIDE = {
    **dict.fromkeys(("rows.jsonl", "dates.jsonl", "chats.jsonl"), '{"text": "a"}\n'),
    "prompts.jsonl": '{"prompt": "a"}\n',
}
"""Files that recipes on the pages name."""


@pytest.fixture(scope="module")
def tools():
    """The tools that write the pages."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        yield {name: importlib.import_module(name) for name in ("docs", "parsers")}
    finally:
        sys.path.remove(str(ROOT / "tools"))


def blocks(*languages: str) -> Iterator[tuple[str, str, str]]:
    """Page, title and text of every block of code in these languages."""
    for name, text in TEXTS.items():
        for language, title, body in FENCE.findall(text):
            if language in languages:
                yield name, title, body


def command_lines() -> list[tuple[str, list[str]]]:
    """Page and words of every command of runner in a block."""
    found = []
    for name, _, body in blocks(*SHELL):
        lines = [line.removeprefix("$ ") for line in body.splitlines()]
        found += [(name, words(line)) for line in lines if line.startswith("runner ")]
    return found


def mentions() -> list[tuple[str, list[str]]]:
    """Page and words of every command that a sentence speaks of."""
    found = []
    for name, text in TEXTS.items():
        if name != "docs/reference/errors.md":  # its texts are made from the code
            spans = re.findall(r"`(runner\s[^`]+)`", FENCE.sub("", text))
            found += [(name, words(span)) for span in spans]
    return found


def words(line: str) -> list[str]:
    """The words after `runner`, up to where the output goes elsewhere."""
    found = shlex.split(line, comments=True)[1:]
    ends = [found.index(sign) for sign in (">", "|") if sign in found]
    return found[: min(ends, default=len(found))]


COMMANDS = [each for each in command_lines() if each[1][0] not in ("COMMAND", "--version")]
MENTIONS = [each for each in mentions() if each[1][0] not in ("COMMAND", "--help", "--version")]
RECIPES = [each for each in blocks("yaml") if each[0] != "docs/reference/presets.md"]
"""Presets are composed in test_shipped.py."""


def test_the_generated_parts_of_every_page_are_current(tools):
    made = tools["docs"].generated
    for path in PAGES:
        text = path.read_text()
        assert made(text) == text, f"{path.relative_to(ROOT)} is stale; run: make readme"


def test_every_stage_command_and_preset_has_its_place():
    for name in STAGES:
        assert f"# {name}\n" in TEXTS[f"docs/reference/stages/{name}.md"]
    for name in cli.COMMANDS:
        assert f"\n## {name}\n" in TEXTS["docs/reference/commands.md"]
    presets = [*places.presets()]
    assert TEXTS["docs/reference/presets.md"].count("\n### `") == len(presets) > 20
    assert TEXTS["docs/reference/errors.md"].count("\n- `") > 350


@pytest.mark.parametrize(
    "line",
    [
        "plan quickstrat",
        "plan quickstart adapt.rnk=16",
        "plan quickstart ~bfore",
        "plan quickstart adapt.epochs=1",
        "plan quickstart generate.top_p=0.5",
        "lock quickstart --check",
        "report nowhere",
        "diff nowhere nowhere",
        "copy quickstart rows.jsonl",
    ],
)
def test_what_a_command_refuses_with_stands_among_the_error_texts(line, beside, capsys):
    assert cli.main(line.split()) == 1
    said = capsys.readouterr().err.splitlines()[0]
    listed = re.findall(r"^- `+ ?(.+?) ?`+(?:<br>|$)", TEXTS["docs/reference/errors.md"], re.M)
    patterns = [re.sub(r"\\{.*?\\}", ".+", re.escape(text)) for text in listed]
    assert [text for text in patterns if len(text) > 15 and re.search(text, said)], said


def test_readme_and_site_mean_the_same_by_their_words():
    tables = [TEXTS[name].split("## Words\n")[1] for name in ("README.md", "docs/index.md")]
    words = [re.findall(r"^\| \w.*$", text.split("\n## ")[0], re.M) for text in tables]
    assert words[0] == words[1]
    assert len(words[0]) > 12


def test_every_kind_of_event_is_described():
    page = TEXTS["docs/how-to/programs.md"]
    for kind in typing.get_args(events.Event):
        assert f"\n| `{kind.__name__.lower()}` | " in page


def test_every_page_stands_in_the_contents_once():
    def named(items):
        for item in items:
            each = next(iter(item.values())) if isinstance(item, dict) else item
            yield from named(each) if isinstance(each, list) else [each]

    contents = [*named(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])]
    assert sorted(contents) == sorted(path.relative_to(DOCS).as_posix() for path in PAGES)
    assert len(PAGES) > 35


# Commands


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda each: str(each)[:60])
def test_every_command_line_is_one_that_the_commands_take(page, line, tools):
    assert line[0] in cli.COMMANDS
    tools["parsers"].parsed(line)


@pytest.mark.parametrize(("page", "line"), MENTIONS, ids=lambda each: str(each)[:60])
def test_every_command_that_a_sentence_speaks_of_has_these_flags(page, line, tools):
    assert line[0] in cli.COMMANDS
    flags = [*options_of(tools["parsers"].parser_of(line[0]))]
    assert {word for word in line if word.startswith("-")} <= {*flags}


def options_of(parser):
    """Every flag of a parser, those of its verbs too."""
    for action in parser._actions:
        yield from action.option_strings
        for verb in action.choices.values() if isinstance(action.choices, dict) else ():
            yield from options_of(verb)


def test_that_many_command_lines_were_found():
    assert len(COMMANDS) > 40
    assert len(MENTIONS) > 50
    assert len({page for page, _ in [*COMMANDS, *MENTIONS]}) > 20


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder with all that the pages name."""
    folder = tmp_path_factory.mktemp("beside")
    for name, text in BESIDE.items():
        (folder / name).write_text(text)
    for _, title, body in blocks("python"):
        (folder / title).write_text(body)
    copying.copy("quickstart", folder / "quickstart.yaml", known())
    return folder


@pytest.fixture
def beside(everything, monkeypatch):
    """That folder as the working directory, on a machine with a GPU."""
    monkeypatch.chdir(everything)
    monkeypatch.setattr(hardware, "gpus", lambda: (hardware.Gpu("H100", 8 * 10**10, (9, 0)),))
    return everything


def problems_of(recipe, overrides=(), stages=None):
    """What is wrong with a recipe beside what this machine lacks."""
    try:
        compose(recipe, overrides, stages or known())
    except RecipeError as error:
        return [str(each) for each in error.problems if not LACKING.search(str(each))]
    return []


@pytest.mark.parametrize(
    ("page", "line"),
    [
        each
        for each in COMMANDS
        if each[1][0] in ("run", "plan", "why", "sweep") and "=" in str(each)
    ],
    ids=lambda each: str(each)[:60],
)
def test_every_override_in_a_command_line_fits_the_quickstart(page, line, tools, beside):
    given = tools["parsers"].parsed(line)
    of_bundle = [given.recipe] if getattr(given, "bundle", None) and given.recipe else []
    first = [axis.changes[0].text for axis in axes("quickstart", [*of_bundle, *given.overrides])]
    assert problems_of("quickstart", first) == []


# Recipes


@pytest.mark.parametrize(("page", "title", "text"), RECIPES, ids=lambda each: str(each)[:40])
def test_every_recipe_composes_and_every_part_of_one_fits_the_quickstart(page, title, text, beside):
    said, stages = yaml.safe_load(text), known()
    if title == "lines.yaml":
        stages |= {"count": counting(beside)}
    if not {"steps", "fetch"} <= {*said}:
        said = {"defaults": ["quickstart", "_self_"], **said}
    name = "quickstart" if said.get("name") == "quickstart" else "mine"
    if name == "mine":
        Path("mine.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    assert problems_of(name, stages=stages) == []


def test_that_many_recipes_were_found():
    assert len(RECIPES) > 15


# What users write themselves


def counting(folder):
    """The stage of the page about stages."""
    spec = importlib.util.spec_from_file_location("counting", folder / "counting.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stage_of_ones_own_runs_and_is_reused(beside, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    installed = tmp_path / "counting-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    toml = next(body for _, title, body in blocks("toml") if title == "pyproject.toml")
    points = tomllib.loads(toml)["project"]["entry-points"]
    ((group, stages),) = points.items()
    lines = [f"[{group}]", *(f"{name} = {module}" for name, module in stages.items())]
    (installed / "entry_points.txt").write_text("\n".join(lines))
    for place in (beside, tmp_path):
        monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "store"))
    text = next(body for _, title, body in blocks("yaml") if title == "lines.yaml")
    Path("lines.yaml").write_text(text)
    Path("rows.jsonl").write_text("{}\n12345\n123\n")
    assert cli.main(["run", "lines"]) == 0
    assert "2 steps run, 0 reused" in capsys.readouterr().out
    kept = next((tmp_path / "store").glob("entries/*/product/counts.json"))
    assert kept.read_text() == '{"rows.jsonl": 2}'
    assert cli.main(["run", "lines"]) == 0
    assert "0 steps run, 2 reused" in capsys.readouterr().out
    assert cli.main(["show", "count"]) == 0
    assert "The fewest characters of a line that counts" in capsys.readouterr().out


def test_the_functions_of_ones_own_do_what_their_pages_say(beside):
    keep = functions.load(str(beside / "clean.py:keep"))
    assert keep({"messages": [{}] * 8}, place="a row") is True
    assert keep({"messages": [{}] * 9}, place="a row") is False
    polite = functions.load(str(beside / "judge.py:polite"))
    assert polite(["a"] * 2, ["Please!", "No."], [None] * 2, place="") == [1.0, 0.0]
    score = functions.load(str(beside / "reward.py:score"))
    assert score(["a"] * 2, [" b\n", "c"], ["b", "b"], place="") == [1.0, 0.0]


def test_the_notebook_calls_what_is_there_to_be_called(beside, tmp_path, monkeypatch):
    """Its lines run as they are, on a recipe that takes no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "store"))
    Path("rows.jsonl").write_text('{"text": "a"}\n')
    Path("small.yaml").write_text("steps: [fetch]\nfetch: {data: {path: rows.jsonl}}\n")
    text = (beside / "notebook.py").read_text()
    text = text.replace('"quickstart", "adapt.rank=16"', '"small"').replace(
        '"quickstart"', '"small"'
    )
    text = text.replace('run.step("generate").rows()', 'run.step("fetch.data").product.find("*")')
    text = text.replace('row["prompt"], row["answer"]', "row.name")
    told = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "rows.jsonl\n" in told.stdout
    assert told.stdout.splitlines()[-1].startswith("finished ")
    assert {"scores", "report", "step"} <= {*dir(opened.Run)}
    assert {"rows", "product", "facts"} <= {*dir(opened.Step)}


# Pictures


def test_pictures_are_there_small_and_load_nothing():
    shown = {
        (ROOT / name).parent / target
        for name, text in TEXTS.items()
        for target in re.findall(r"!\[.*?\]\(([^)]+)\)", text)
    }
    assert {path.resolve() for path in shown} == {*(DOCS / "pictures").iterdir()}
    for path in shown:
        assert path.stat().st_size < 200_000, path
        if path.suffix == ".svg":
            assert not re.search(r"url\(\W*http|href=\W*http|@import", path.read_text()), path


def test_every_page_that_is_linked_to_exists():
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([\w./-]+)(?:#[\w-]*)?\)", FENCE.sub("", text)):
            assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"
