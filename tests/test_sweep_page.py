"""The page of a sweep: all of it there, nothing loaded, nothing believed, whatever has happened."""

import base64
import hashlib
import json
import re
import time
from dataclasses import replace

import pytest
from sweep_pages import make_standing, table
from sweeping import folder_of, sweep, write
from test_report import HOSTILE, LOADS, Page

from runner import cli
from runner.report import plots, sweep_page

SECTIONS = ["best", "jobs", "costs", "values", "curves", "failures", "repeat"]


@pytest.fixture
def made(tmp_path):
    """Make the page of a sweep, and read it."""

    def make(*given, change=lambda now: now, **settings):
        now = change(make_standing(tmp_path, *given, **settings))
        return Page(sweep_page.write(now, table(now), tmp_path))

    return make


def test_a_sweeps_page_has_every_section_and_every_job(made):
    page = made()
    assert re.findall(r'<section id="(\w+)"', page.source) == SECTIONS
    assert page.tags.count("tr") == 1 + 30
    for text in ("27 done", "1 failed", "1 pruned", "1 waiting", "28 curves, by step"):
        assert text in page.text
    assert "CUDA out of memory plain" in page.text
    assert "Likely: the memory is full." in page.text
    assert "given up at step 7: learn.held_out_loss 2.43" in page.text
    assert (
        "runner run pages.yaml learn.rate=0.0001 learn.rank=16 learn.note=int8-plain" in page.text
    )


def test_the_curve_of_a_step_that_failed_or_still_runs_is_drawn_too(made, own_store):
    def begun(now):
        for key in (now.manifest.rows[-1].key, *now.failed):
            draft = own_store / "drafts" / f"{key}.somebody"
            draft.mkdir(parents=True)
            rows = [{"step": step, "held_out_loss": 3 / step} for step in range(1, 4)]
            (draft / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return replace(now, running=frozenset({now.manifest.rows[-1].key}))

    text = made(change=begun).text
    assert "held out loss of learn 29 curves, by step" in text
    assert "1 running" in text


def test_a_sweeps_page_loads_nothing_and_lets_no_other_script_run(made):
    page = made(HOSTILE)
    loads = [value for name, value in page.attributes if name in LOADS]
    assert all(value == "data:," or value.startswith("#") for value in loads)
    policy = next(value for name, value in page.attributes if "default-src" in str(value))
    script = re.search(r"<script>(.*?)</script>", page.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert HOSTILE.split('"')[0] in page.text


def test_the_marked_jobs_are_those_that_no_other_beats(made):
    page = made()
    assert page.source.count('class="dot best"') == 4 + 3 + 4
    page = made(objective=("score.match", "bytes"), direction=("maximize", "minimize"))
    assert "Jobs that no other beats" in page.text
    assert page.text.count("runner run pages.yaml") == 4


def test_a_sweep_without_an_objective_says_what_is_missing(made):
    page = made(objective=None)
    assert "does not say which score is looked for: sweep.objective." in page.text
    assert "score.match" in page.text
    assert "held out loss of learn" in page.text


def test_a_sweep_of_which_nothing_is_done_yet_has_a_page(made):
    page = made(change=lambda now: replace(now, entries={}, failed={}, pruned={}))
    assert "30 waiting" in page.text
    assert "No job has a score yet." in page.text
    assert "No step failed." in page.text
    none = made(
        change=lambda now: replace(
            now, entries={}, failed={}, pruned={}, manifest=replace(now.manifest, jobs=(), rows=())
        )
    )
    assert none.tags.count("tr") == 1


def test_secrets_of_a_sweep_are_not_shown(made):
    page = made("hf_" + "abcdEFGH" * 5)
    assert "abcdEFGH" not in page.source


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1e-5, 1e-3], [1e-5, 1e-4, 1e-3]),
        ([0.0, 10.0], [0, 5, 10]),
        ([3.0], [2.9, 3.0, 3.1]),
        ([2e6, 9e6], [2e6, 4e6, 6e6, 8e6]),
    ],
)
def test_ticks_are_round(values, expected):
    found = plots.scale(values, 0, 100, may_be_log=True).ticks()
    assert found == pytest.approx(expected)


def test_a_long_curve_is_thinned_to_what_can_be_seen():
    points = [(n, float(n)) for n in range(10_001)]
    kept = plots.thinned(points)
    assert len(kept) <= plots.MOST_POINTS + 1
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert plots.thinned([]) == []


def test_a_page_of_many_jobs_names_some_and_stays_small(tmp_path):
    now = make_standing(tmp_path)
    rows = table(now)
    rows += [{**row, "job": f"{n}-{row['job']}"} for n in range(1, 100) for row in rows]
    begun = time.monotonic()
    source = sweep_page.render(now, rows, tmp_path)
    assert time.monotonic() - begun < 10  # seconds; all jobs compared with all would take minutes
    assert source.count("<tr data-job") == sweep_page.MOST_JOBS
    assert "Here are the first 2000 of 3000 jobs." in source
    assert len(source) < 4_000_000


def test_a_sweeps_page_is_written_by_itself_and_by_status(here):
    write()
    assert sweep("r", "grow.rank=1,2", "sweep.objective=score.size")[0] == 0
    page = folder_of() / "sweep.html"
    first = page.read_text()
    assert "2 done" in first
    page.unlink()
    assert cli.main(["status", "r", "--page"]) == 0
    assert page.read_text() == first
