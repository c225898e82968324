"""Reports in headless Chromium, on a phone and a screen, light and dark: make test-report."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import make_run
from sweep_pages import make_standing, table
from test_report import HOSTILE, SECTIONS

from runner.report import brief, folder, html, sweep_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOUND = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
QUIET = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SCREENS = {"phone": (390, 844), "screen": (1280, 900)}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not FOUND, reason=f"no browser: none of {', '.join(BROWSERS)}, no CHROMIUM"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND, args=[*QUIET, *sandbox])
        yield browser
        browser.close()


@pytest.fixture(params=[(s, c) for s in SCREENS for c in ("light", "dark")], ids="-".join)
def opened(request, chromium, tmp_path):
    """Open a page as one kind of reader has it; what it asks for and complains of is kept."""
    screen, scheme = request.param
    width, height = SCREENS[screen]
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)

    def call(path: Path) -> Any:
        page = context.new_page()
        call.said, call.asked = [], []
        page.on("console", lambda message: call.said.append(message.text))
        page.on("pageerror", lambda error: call.said.append(str(error)))
        page.on("dialog", lambda dialog: call.said.append(dialog.message))
        page.on("request", lambda asked: call.asked.append(asked.url))
        page.goto(path.as_uri())
        page.screenshot(path=tmp_path / f"{path.parent.name}.png", full_page=True)
        return page

    call.width, call.dark = width, scheme == "dark"
    yield call
    context.close()


WIDER_THAN_THE_PAGE = """
() => [...document.querySelectorAll('body *')]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .filter(e => !e.closest('pre, table, svg'))
  .map(e => e.tagName + '.' + e.className)
"""
DRAWN = """
() => [...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const lines = [...svg.querySelectorAll('path')].map(p => getComputedStyle(p).stroke);
  const texts = [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect());
  return {
    width: box.width, height: box.height, strokes: [...new Set(lines)],
    lowest: Math.min(...texts.map(t => t.height)),
    outside: texts.filter(t => t.left < box.left - 1 || t.right > box.right + 1).length,
  };
})
"""
CONTRAST = """
() => {
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!color.startsWith('rgba(0, 0, 0, 0')) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('main *, header *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('svg')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
  }
  return worst;
}
"""


def check(page: Any, opened: Any) -> None:
    """What holds for every page that we write."""
    assert opened.said == []
    assert opened.asked == [page.url]
    assert page.evaluate("document.documentElement.scrollWidth") <= opened.width
    assert page.evaluate(WIDER_THAN_THE_PAGE) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    if page.locator("main section").count():
        assert (sum(map(int, ground[4:-1].split(","))) < 300) == opened.dark, ground
    ratio, where = page.evaluate(CONTRAST)
    assert ratio >= 4.5, where  # WCAG 2.2, 1.4.3


def test_a_report_can_be_read_by_everybody(opened, tmp_path):
    page = opened(html.write(make_run(tmp_path, steps=10_000)))
    check(page, opened)
    ids = page.evaluate("[...document.querySelectorAll('main section')].map(e => e.id)")
    assert ids == SECTIONS
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == 6
    for each in drawn:
        assert each["width"] > 250
        assert 100 < each["height"] < each["width"]
        assert each["lowest"] > 9  # pixels
        assert each["outside"] == 0
        assert len(each["strokes"]) > 1
    assert page.locator("table").count() == page.locator("table:has(thead th[scope=col])").count()
    page.locator("nav a", has_text="Answers").click()
    assert page.url.endswith("#answers")


def test_what_a_run_holds_cannot_act_in_its_report(opened, tmp_path):
    page = opened(html.write(make_run(tmp_path, HOSTILE, ending=f"ended by Error: {HOSTILE}")))
    check(page, opened)
    assert page.locator("#failure .error").inner_text().count("<script>") == 1


def test_long_words_without_a_space_fit_a_phone(opened, tmp_path):
    check(opened(html.write(make_run(tmp_path, "x" * 300))), opened)


def test_the_page_of_a_run_with_nothing_to_do_is_readable(opened, tmp_path):
    made = make_run(tmp_path, HOSTILE)
    page = opened(brief.write(made))
    check(page, opened)
    assert folder.read(made).name in page.locator("h1").inner_text()


def sweep_of(folder: Path, *given: str, **settings: Any) -> Path:
    """The page of a sweep that is made up."""
    now = make_standing(folder, *given, **settings)
    return sweep_page.write(now, table(now), folder)


def column(page: Any, name: str) -> list[str]:
    """What a column of the jobs' table shows, from top to bottom."""
    heads = page.locator("#jobs thead th").all_inner_texts()
    number = next(n for n, text in enumerate(heads) if text.split()[0] == name)
    cells = f"all => all.map(row => row.cells[{number}].innerText)"
    return page.locator("#jobs tbody tr").evaluate_all(cells)


def test_a_sweeps_page_can_be_read_by_everybody(opened, tmp_path):
    page = opened(sweep_of(tmp_path))
    check(page, opened)
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == 6
    for each in drawn:
        assert each["width"] > 250
        assert 100 < each["height"] < each["width"]
        assert each["lowest"] > 9  # pixels
        assert each["outside"] == 0
    assert page.locator("table:not(:has(thead th[scope=col]))").count() == 0


def test_the_jobs_of_a_sweep_sort_by_a_click_and_empty_ones_come_last(opened, tmp_path):
    page = opened(sweep_of(tmp_path))
    button = page.locator("#jobs thead button", has_text="score.match")
    button.click()
    rising = [float(text) for text in column(page, "score.match") if text]
    assert rising == sorted(rising)
    assert len(rising) == 27
    button.click()
    assert [float(text) for text in column(page, "score.match") if text] == rising[::-1]
    assert column(page, "score.match")[-3:] == ["", "", ""]
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    page.locator("#jobs thead button", has_text="size").click()
    sizes = column(page, "size")
    assert (sizes[0], sizes[26]) == ("4.0 MB", "32.0 MB")  # by bytes, and not by letters
    assert opened.said == []


def test_a_job_that_is_pointed_at_is_shown_in_every_drawing(opened, tmp_path):
    page = opened(sweep_of(tmp_path))
    page.locator("#jobs tbody tr").nth(4).click()
    job = page.locator("#jobs tbody tr").nth(4).get_attribute("data-job")
    chosen = page.locator(".chosen").evaluate_all("all => all.map(e => e.dataset.job)")
    assert {*chosen} == {job}
    assert page.locator("svg .chosen").count() == 3 + 1 + 2
    faded = page.locator("svg .job:not(.chosen)").first
    assert float(faded.evaluate("e => getComputedStyle(e).opacity")) < 0.5


def test_what_a_sweep_holds_cannot_act_in_its_page(opened, tmp_path):
    page = opened(sweep_of(tmp_path, HOSTILE))
    check(page, opened)
    assert page.locator("#failures pre").inner_text().count("<script>") == 2


def test_a_sweeps_long_words_without_a_space_fit_a_phone(opened, tmp_path):
    check(opened(sweep_of(tmp_path, "x" * 300)), opened)
