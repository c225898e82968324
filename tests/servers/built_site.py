"""The site that `make docs` has built: every page opens, and asks nothing of another host."""

import re
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_report_browser import FOUND, chromium  # noqa: F401  a fixture

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "build" / "site"
PAGES = sorted((ROOT / "docs").rglob("*.md"))


class Loads(HTMLParser):
    """What a page loads as it opens."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(given.get("src"))
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get("href"))


def html_of(page):
    return SITE / page.relative_to(ROOT / "docs").with_suffix(".html")


@pytest.mark.parametrize("page", PAGES, ids=lambda each: each.stem)
def test_every_page_was_built_and_loads_only_what_lies_beside_it(page):
    loads = [each for each in Loads(html_of(page).read_text()).found if each]
    assert len(loads) > 2
    for each in loads:
        assert not re.match(r"\w+:|//", each), each
        assert (html_of(page).parent / each.partition("?")[0]).exists(), each


def test_generated_parts_are_whole_in_the_page():
    text = html_of(ROOT / "docs/reference/stages/adapt.md").read_text()
    assert text.count("<tr>") > 60
    assert "made: stage" not in text or "<!-- made: stage" in text
    errors = html_of(ROOT / "docs/reference/errors.md").read_text()
    assert errors.count("<li><p><code>") + errors.count("<li><code>") > 350


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not FOUND, reason="no browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_reader_finds_an_option_by_its_name(chromium, served, scheme, tmp_path):  # noqa: F811
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda each: asked.append(each.url))
    page.on("console", lambda each: said.append(each.text))
    page.on("pageerror", lambda each: said.append(str(each)))
    page.goto(served)
    page.screenshot(path=tmp_path / f"home-{scheme}.png")
    page.keyboard.press("/")
    page.keyboard.type("double_quantization")
    page.wait_for_selector("text=quantize", timeout=20_000)
    page.screenshot(path=tmp_path / f"search-{scheme}.png")
    page.goto(f"{served}reference/stages/adapt.html")
    page.screenshot(path=tmp_path / f"adapt-{scheme}.png")
    context.close()
    assert {each for each in asked if not each.startswith(served)} == set()
    assert said == []
