"""The report of a run: all of it there, small, nothing loaded, nothing believed."""

import json
import math
import os
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fakes import borrower, recipe, source, step
from pages import make_run, measured, write_rows

from runner import cli, hardware, running
from runner.errors import RecipeError, StepError
from runner.plan import plan
from runner.report import curves, folder, html
from runner.secrets import HIDDEN

SECTIONS = ["steps", "curves", "data", "answers", "scores", "recipe", "versions", "repeat"]
HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}</style></pre>"
LOADS = {"src", "href", "xlink:href", "action", "srcset", "data", "poster", "background"}
EMPTY = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What a page is made of; that every element is closed is checked on the way."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def ids(self) -> list[str]:
        return [value for name, value in self.attributes if name == "id"]


def check_loads_nothing(page: Page) -> None:
    """Only places in the page itself are named, and only by names that are there once."""
    assert {"script", "iframe", "object", "img", "base"}.isdisjoint(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value for name, value in page.attributes if name in LOADS]
    assert {link for link in links if not link.startswith("#")} <= {"data:,"}
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(page.ids)
    assert "@import" not in page.source
    styled = page.source.split("url(")[1:]
    assert all(each.startswith("#") for each in styled)


def test_a_report_has_every_section_and_what_belongs_there(tmp_path):
    page = Page(html.write(make_run(tmp_path)))
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    for text in (
        "5 min 21 s",  # the time
        "reuse because plain",
        "33.0 s",  # the time that what is reused took
        "rows read 20",
        "filter filter plain -1 2 changed",
        "left out -1 bad plain",
        "rows.jsonl:3 plain",
        "Trained text is coloured",
        "60.0% are trained",
        "question 0 plain expected right plain after as expected right plain",
        "question 1 plain expected right plain after wrong plain",
        "exact match after 0.5",
        "torch 2.13.0+cpu",
        "commit c0ffee",
        "ab" * 16,
        "cd" * 32,
        "runner run pages x=plain",
        "pip install recipe-runner==0.1.0 torch==2.13.0 peft==plain",
        "runner run recipe.yaml",
    ):
        assert text in page.text, text
    assert "<mark>plain&lt;|end|&gt;</mark>" in page.source.replace(" ", "")
    titles = [f"<figcaption>{name}<" for name in ("loss", "learning rate", "gradient norm")]
    times = [f"<figcaption>{name}<" for name in ("tokens a second", "memory in GB")]
    places = [page.source.index(title) for title in (*titles[:1], *titles[1:], *times)]
    assert places == sorted(places)
    assert page.tags.count("svg") == 6
    check_loads_nothing(page)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (
            {"prompt_ids": [[0, 2]], "chosen_ids": [[5, 1]], "rejected_ids": [[3, 1]]},
            "<mark>plain<|end|></mark><del>it<|end|></del>",
        ),
        (
            {"prompt_ids": [[0, 2]], "completion_ids": [[3, 1]], "label": [False]},
            "<del>it<|end|></del>",
        ),
    ],
)
def test_what_is_wanted_and_what_is_not_are_told_apart(columns, shown, tmp_path):
    made = make_run(tmp_path)
    write_rows(made / "products" / "process", columns)
    source = Page(html.write(made)).source
    assert shown.replace("<|", "&lt;|").replace("|>", "|&gt;") in source.replace(" ", "")


def test_nothing_in_a_run_can_bring_its_own_html(tmp_path):
    made = make_run(tmp_path, HOSTILE, ending=f"ended by StepError: {HOSTILE}")
    failed = Page(html.write(made))
    check_loads_nothing(failed)
    whole = Page(html.write(make_run(tmp_path / "whole", HOSTILE)))
    check_loads_nothing(whole)
    assert [name for name in whole.ids if name in SECTIONS] == SECTIONS
    assert whole.text.count("alert('x')") > 20
    assert "{{ 7 * 7 }}" in whole.text


def test_a_failed_run_shows_the_step_the_error_and_the_last_lines_of_its_log(tmp_path):
    made = make_run(tmp_path, ending="ended by StepError: adapt: the loss is nan at step 7.")
    page = Page(html.write(made))
    assert "failure" in page.ids
    assert "In the step adapt :" in page.text
    assert "adapt: the loss is nan at step 7." in page.text
    assert "line 99 plain" in page.text
    assert "line 74 plain" not in page.text
    assert "line 75 plain" in page.text
    assert "adapt failed planned plain" in page.text
    assert "after not reached generate planned plain" in page.text
    assert "<figcaption>loss<" in page.source  # what it had measured until then


def test_secrets_and_the_way_home_are_hidden(tmp_path, monkeypatch):
    token = "hf_" + "abcdefghij" * 3
    monkeypatch.setenv("HOME", "/home/somebody")
    page = html.write(make_run(tmp_path, f"/home/somebody/models {token}")).read_text()
    assert token not in page
    assert page.count(HIDDEN) > 20
    assert "/home/somebody" not in page
    assert "~/models" in page


def test_paths_below_the_place_of_the_command_are_relative(tmp_path):
    made = make_run(tmp_path / "runs", f"{tmp_path}/models/mine")
    page = html.write(made).read_text()
    assert f"because {tmp_path}" not in page
    assert "because models/mine" in page
    assert "runner report runs/pages/" in page


def test_a_run_of_ten_thousand_steps_is_drawn_small_and_soon(tmp_path):
    made = make_run(tmp_path, steps=10_000)
    html.write(make_run(tmp_path / "first"))  # what is imported and cached once does not count
    begun = time.process_time()
    size = html.write(made).stat().st_size
    assert size < 400_000
    assert time.process_time() - begun < 3


def test_a_report_without_its_store_still_says_what_the_record_says(tmp_path):
    made = make_run(tmp_path)
    for path in (made / "products").iterdir():
        path.rename(tmp_path / path.name)
        (made / "products" / path.name).symlink_to(tmp_path / "gone")
    page = Page(html.write(made))
    assert "The rows themselves are no longer in the store." in page.text
    assert "rows read 20" in page.text
    assert "No step gave answers." in page.text


@pytest.mark.parametrize("kept", [["recipe.yaml"], ["recipe.yaml", "metrics.jsonl", "log.txt"]])
def test_a_run_that_was_killed_before_it_wrote_a_record_has_a_report(tmp_path, kept):
    made = make_run(tmp_path)
    for path in made.iterdir():
        if path.is_file() and path.name not in kept:
            path.unlink()
    page = Page(html.write(made))
    assert "pages unfinished" in page.text
    assert "name: pages" in page.text


def test_thinning_keeps_both_ends_and_every_outlier():
    x = np.arange(100_000.0)
    y = np.sin(x / 50)
    y[[12_345, 77_777]] = 40, -40
    thin_x, thin_y = curves.thinned(x, y, 400)
    assert len(thin_x) <= 802
    assert (thin_x[0], thin_x[-1]) == (0, 99_999)
    assert {12_345, 77_777} <= set(thin_x)
    assert list(thin_x) == sorted(thin_x)
    assert (thin_y == y[thin_x.astype(int)]).all()


def test_the_running_mean_is_that_of_the_values_around():
    y = np.arange(300.0) ** 2
    mean = curves.smoothed(y)
    assert len(mean) == 300
    assert mean[0] == pytest.approx(y[:4].mean())
    assert mean[150] == pytest.approx(y[147:154].mean())


def test_tokens_a_second_are_those_of_each_stretch():
    rows = [{"step": n, "seconds": n / 2, "tokens": 100 * n} for n in range(1, 500)]
    (drawn,) = [c for c in curves.draw(rows, "c") if c.title == "tokens a second"]
    assert drawn.about == "200 at first, 200 at the end, between 200 and 200"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1, "loss": 1.0}],
        [{"step": n, "loss": math.nan} for n in range(9)],
        [{"step": "one", "loss": "low", "tokens": None}] * 9,
        [{"seconds": 1.0, "tokens": n, "step": n} for n in range(9)],
        [{"words": n} for n in range(9)],
    ],
)
def test_what_cannot_be_drawn_is_left_out(rows):
    assert curves.draw(rows, "c") == []


def test_a_curve_takes_the_colours_of_the_page():
    drawn = curves.draw(measured(100), "c")
    for each in drawn:
        assert "var(--accent)" in each.svg
        assert "#0" not in each.svg.replace('"#c-', "").replace("(#c-", "")
        assert "<text" in each.svg
        assert "http" not in each.svg


@pytest.fixture
def carried_out(monkeypatch, store, tmp_path):
    monkeypatch.setattr(hardware, "prepare", lambda: "")
    said: list[str] = []

    def call(*stages, name="trial"):
        given = [{}, {"text": "s0"}]
        steps = (step(f"s{n}", stage, given[n]) for n, stage in enumerate(stages))
        planned = plan(recipe(*steps, name=name), store)
        try:
            running.carry_out(planned, store, lambda e: said.append(str(e)), tmp_path / "runs")
        finally:
            call.said = "\n".join(said)
            call.folder = max((tmp_path / "runs" / name).iterdir(), key=lambda path: path.name)
        return call.folder

    return call


def test_a_run_that_works_leaves_its_report(carried_out):
    page = Page(carried_out(source("a"), borrower("b")) / "report.html")
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert "with report.html" in carried_out.said
    assert "2 steps run, 0 reused" in page.text


def test_a_run_that_fails_leaves_its_report(carried_out):
    def fail(_):
        raise StepError("no bread today", "Buy bread.")

    with pytest.raises(StepError):
        carried_out(source("a"), borrower("b", fault=fail))
    page = Page(carried_out.folder / "report.html")
    assert "trial failed" in page.text
    assert "s1: no bread today Buy bread." in page.text
    assert "s0 run" in page.text
    assert "s1 failed" in page.text


def test_a_run_with_nothing_to_do_leads_to_the_one_that_did_the_work(carried_out, tmp_path):
    first = carried_out(source("a"), borrower("b"))
    second = carried_out(source("a"), borrower("b"))
    page = Page(second / "report.html")
    assert "Nothing had to be done" in page.text
    assert f'href="../{first.name}/report.html"' in page.source
    assert "runner report runs/trial/" in page.text
    third = carried_out(source("a"), borrower("b"))  # over the second, which did nothing
    assert f'href="../{first.name}/report.html"' in (third / "report.html").read_text()
    whole = Page(html.write(second))
    assert [name for name in whole.ids if name in SECTIONS] == SECTIONS
    assert "0 steps run, 2 reused" in whole.text


def test_a_report_that_cannot_be_made_breaks_no_run(carried_out, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # as where it is not installed
    made = carried_out(source("a"))
    assert json.loads((made / "record.json").read_text())["ending"] == "finished"
    assert not (made / "report.html").exists()
    assert "its report could not be made: ModuleNotFoundError" in carried_out.said


def test_runs_are_listed_the_newest_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["runs"]) == 0
    assert capsys.readouterr().out == "runs has no runs\n"
    make_run(tmp_path / "runs")
    make_run(tmp_path / "elsewhere", ending="ended by Stopped: stopped by SIGTERM")
    older = tmp_path / "runs" / "other" / "2025-12-31T00-00-00"
    older.parent.mkdir()
    (tmp_path / "elsewhere" / "pages" / "2026-01-02T03-04-05").rename(older)
    assert cli.main(["runs"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "ending", "steps", "run", "reused", "seconds"]
    assert lines[0].split()[:5] == ["pages/2026-01-02T03-04-05", "finished", "4", "1", "321.0"]
    assert lines[0].endswith("exact match 0.5, score plain 2")
    assert lines[1].split() == ["other/2025-12-31T00-00-00", "stopped", "1", "1", "321.0"]
    assert cli.main(["runs", "pages", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["scores"]["evaluate"]["exact_match"] == {"after": 0.5}
    assert (row["recipe"], row["ending"]) == ("pages plain", "finished")
    assert cli.main(["runs", "--last", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_report_is_made_again_by_folder_or_by_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path / "runs")
    for word in (str(made), "runs/pages/2026-01-02T03-04-05", "pages"):
        (made / "report.html").unlink(missing_ok=True)
        assert cli.main(["report", word]) == 0
        assert Path(capsys.readouterr().out.strip()).samefile(made / "report.html")
    assert cli.main(["report", "nothing"]) == 1
    assert "nothing is no run's folder" in capsys.readouterr().err
    with pytest.raises(RecipeError):
        folder.find("..", tmp_path / "runs")


def test_to_list_runs_and_to_ask_for_help_draws_nothing(tmp_path):
    make_run(tmp_path / "runs")
    code = (
        "import sys; from runner.cli import main; main(['runs']); main(['--help'])\n"
        "print({'jinja2', 'matplotlib', 'numpy', 'pyarrow', 'hydra'} & set(sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr
