"""New recipes, copied or made of answers: each composes, and says what was asked for."""

import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from runner import cli, drafting, places, running
from runner.compose import compose
from runner.copying import copy
from runner.drafting import Wish, make
from runner.errors import RecipeError
from runner.quantizing import methods
from runner.stages import known

METHODS = sorted(name for stage, name, _ in places.presets() if stage == "adapt")
SQUEEZES = sorted(name for stage, name, _ in places.presets() if stage == "quantize")
FULL = """\
# Mine.
# Run:   runner run full
steps: [fetch, chats, process, load, adapt, save]
fetch:
  model: {path: weights}
  data:
    path: "more data/rows.jsonl"     # a comment
chats: {stage: fetch, more: {path: ABSOLUTE}}
process:
  template: chat.jinja
  filters:
    - {kind: unicode}
    - {kind: function, path: 'clean.py:keep'}
save: {to: out}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("{}\n")
    return tmp_path


def keys(name):
    return {each.step.name: each.key for each in running.prepare(name, [])[0].steps}


# copy


@pytest.mark.parametrize("target", ["mine.yaml", "recipes/mine.yaml", "deep/in/mine.yaml"])
def test_a_copy_of_the_quickstart_has_its_keys(target, capsys):
    assert cli.main(["copy", "quickstart", target]) == 0
    called = "deep/in/mine.yaml" if "deep" in target else "mine"
    assert capsys.readouterr().out == (f"{target}\n  runner plan {called}\n  runner run {called}\n")
    assert keys(called) == keys("quickstart")
    text = Path(target).read_text()
    assert f"# Run:   runner run {called}\n" in text
    assert "name: mine\n" in text
    assert "generate: {max_new_tokens: 16}                   # and the model as taught\n" in text


def test_whatever_a_recipe_names_beside_itself_is_found_from_the_copy(here):
    for folder in ("theirs/weights", "theirs/more data"):
        Path(folder).mkdir(parents=True)
    Path("theirs/weights/config.json").write_text("{}")
    Path("theirs/more data/rows.jsonl").write_text("{}\n")
    Path("theirs/chat.jinja").write_text("{{ messages }}")
    Path("theirs/clean.py").write_text("def keep(row):\n    return True\n")
    Path("theirs/full.yaml").write_text(FULL.replace("ABSOLUTE", str(here / "rows.jsonl")))
    copy("theirs/full.yaml", Path("mine/copied.yaml"), known())
    text = Path("mine/copied.yaml").read_text()
    for line in (
        "  model: {path: ../theirs/weights}\n",
        '    path: "../theirs/more data/rows.jsonl"     # a comment\n',
        f"chats: {{stage: fetch, more: {{path: {here}/rows.jsonl}}}}\n",
        "  template: ../theirs/chat.jinja\n",
        '    - {kind: function, path: "../theirs/clean.py:keep"}\n',
        "save: {to: out}\n",
        "# Run:   runner run mine/copied.yaml\n",
    ):
        assert line in text
    assert keys("mine/copied.yaml") == keys("theirs/full.yaml")


@pytest.mark.parametrize(
    ("target", "said"), [("rows.jsonl", "must end in .yaml"), ("there.yaml", "is there already")]
)
def test_nothing_is_written_over(target, said, capsys):
    Path("there.yaml").write_text("steps: [fetch]\n")
    before = Path(target).read_text()
    assert cli.main(["copy", "quickstart", target]) == 1
    assert said in capsys.readouterr().err
    assert cli.main(["new", target, "--model", "a/b", "--data", "a/b"]) == 1
    assert Path(target).read_text() == before


def test_a_misspelt_recipe_to_copy_is_guessed(capsys):
    assert cli.main(["copy", "quikstart", "mine.yaml"]) == 1
    assert 'Did you mean "quickstart"?' in capsys.readouterr().err
    assert not Path("mine.yaml").exists()


# new


def test_the_presets_are_all_there():
    assert len(METHODS) >= 13
    assert len(SQUEEZES) >= 2


@pytest.mark.parametrize("method", METHODS)
def test_a_recipe_is_made_for_every_method(method):
    wish = Wish("a/model", "rows.jsonl", method)
    if method in drafting.NEEDS_MORE:
        with pytest.raises(RecipeError, match=f"{method} cannot be drafted: "):
            make(wish, Path("mine.yaml"), known())
        assert not Path("mine.yaml").exists()
        return
    make(wish, Path("mine.yaml"), known())
    recipe = compose("mine", [], known())
    lora = compose("mine", ["adapt=lora"], known()) if method == "lora" else None
    assert recipe.plain["fetch"]["model"]["repo"] == "a/model"
    assert (lora is None) or (lora.plain == recipe.plain)
    objective = recipe.plain["adapt"]["objective"]
    assert recipe.plain["process"]["shape"] == drafting.SHAPES.get(objective, "auto")


@pytest.mark.parametrize("squeeze", ["none", *SQUEEZES])
def test_a_recipe_is_made_with_every_way_to_squeeze(squeeze, capsys):
    if lacking := methods.missing(squeeze):
        pytest.skip(lacking)
    words = ["--model", "smollm2-135m", "--data", "rows.jsonl", "--quantize", squeeze]
    assert cli.main(["new", "mine.yaml", *words]) == 0
    assert capsys.readouterr().out == "mine.yaml\n  runner plan mine\n  runner run mine\n"
    assert ("quantize" in keys("mine")) == (squeeze != "none")
    text = Path("mine.yaml").read_text()
    assert "# Run:   runner run mine\n" in text
    assert len(text.splitlines()[0]) <= 100


def test_repositories_and_odd_paths_are_written_so_that_they_are_read_again(here):
    Path("it's, odd").mkdir()
    Path("it's, odd/rows.jsonl").write_text("{}\n")
    make(Wish("a/model", "it's, odd/rows.jsonl"), Path("recipes/one.yaml"), known())
    one = compose("one", [], known())
    assert one.step("fetch.data").options.path == here / "recipes/../it's, odd/rows.jsonl"
    make(Wish("it's, odd", "some/rows"), Path("two.yaml"), known())
    two = compose("two", [], known())
    assert two.step("fetch.model").options.path == here / "it's, odd"
    assert two.step("fetch.data").options.repo == "some/rows"
    assert two.step("fetch.data").options.type == "dataset"


def test_all_that_is_wrong_with_a_wish_is_told_at_once(capsys):
    words = ["--model", "smollm2-135", "--data", "nowhere.jsonl", "--method", "laura"]
    assert cli.main(["new", "mine.yaml", *words, "--quantize", "nf5"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        '"smollm2-135" is no path, no `user/name` on the Hub and no preset of fetch.'
        ' Did you mean "smollm2-135m"?',
        '"nowhere.jsonl" is no path here, and no `user/name` on the Hub.',
        'adapt has no preset "laura". Did you mean "lora"?',
        'quantize has no preset "nf5". Did you mean "nf4"?',
    ]
    assert not Path("mine.yaml").exists()


def test_a_wish_that_cannot_compose_leaves_no_file(capsys):
    words = ["--model", "a/b", "--data", "rows.jsonl", "--method", "dpo"]
    Path("adapt").mkdir()
    Path("adapt/dpo.yaml").write_text("objective: dpo\nrnk: 3\n")
    assert cli.main(["new", "mine.yaml", *words]) == 1
    assert 'adapt has no option "rnk". Did you mean "rank"?' in capsys.readouterr().err
    assert not Path("mine.yaml").exists()


def test_without_a_terminal_nothing_is_asked():
    command = [sys.executable, "-m", "runner", "new", "mine.yaml", "--method", "lora"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "required: --model, --data" in done.stderr


def all_that_is_said(terminal):
    """What a process in a terminal writes until it ends (EIO says that it has)."""
    shown = b""
    with suppress(OSError):
        while chunk := os.read(terminal, 4096):
            shown += chunk
    return shown


def test_in_a_terminal_what_is_missing_is_asked_until_it_can_be():
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(
            sys.executable, [sys.executable, "-m", "runner", "new", "mine.yaml", "--method", "dora"]
        )
    os.write(terminal, b"a/model\nnowhere\nrows.jsonl\n\n")
    shown = all_that_is_said(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    assert b'"nowhere" is no path here' in shown
    assert b"[none]" in shown
    recipe = compose("mine", [], known())
    assert recipe.plain["adapt"]["method"] == "dora"
    assert "quantize" not in recipe.plain
