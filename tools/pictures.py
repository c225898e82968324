"""Draws the pictures of README.md and docs/ from a finished run: its live table, and its report.

`make pictures RUN=quickstart` takes the newest run of the quickstart below runs/. The table is that
of the moment in the middle of its training, with the times and figures that the run has recorded.
"""

import os
import re
import shlex
import shutil
import sys
import time
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console

from runner import places
from runner.compose import compose
from runner.events import Finished, Outcome, Progressed, Started
from runner.plan import Plan, Planned, Verdict
from runner.report import folder, html
from runner.report.folder import Run
from runner.report.live import LiveTable
from runner.stages import known
from runner.store import Entry

PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
STEP = "adapt"
"""The step in whose middle the table is drawn."""
MOMENT = 0.6
COLUMNS = 100
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH = 1000
ABOVE, MARGIN = 48, 16
"""Pixels above the curves, where their heading is, and below them."""
COLOURS = 64


def main(name: str) -> None:
    """Draw both pictures of a run."""
    run = folder.read(folder.find(name, Path("runs")))
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "live.svg").write_text(_terminal(run), encoding="utf-8")
    _report(html.write(run.folder))


def _terminal(run: Run) -> str:
    """The table as a terminal shows it, without the font that rich would load from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(_table(run))
    title = shlex.join(["$ runner", *run.record["command"]]).replace("'", "")
    picture = console.export_svg(title=title, unique_id="live")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def _table(run: Run) -> LiveTable:
    recipe = compose(str(places.find_recipe(run.name)), run.record["command"][2:], known())
    rows = {row.name: row for row in run.steps}
    steps = [
        Planned(each, "", {}, Verdict(rows[each.name].said), rows[each.name].reason)
        for each in recipe.steps
    ]
    table = LiveTable(Plan(recipe, tuple(steps)), COLUMNS)
    for planned in steps[: [each.step.name for each in steps].index(STEP)]:
        done: Any = rows[planned.step.name].done
        entry = Entry("", Path(), {"facts": done["facts"]})
        table.hear(Started(planned))
        table.hear(
            Finished(Outcome(planned, planned.verdict, planned.reason, done["seconds"], entry))
        )
    table.hear(Started(next(each for each in steps if each.step.name == STEP)))
    _advance(table, run)
    return table


def _advance(table: LiveTable, run: Run) -> None:
    """Bring the table to the middle of the training."""
    measured = [row for row in run.metrics(STEP) if "loss" in row]
    row, last = measured[int(MOMENT * len(measured))], measured[-1]["step"]
    figures = {"loss": f"{row['loss']:.4g}", "tokens_per_second": row["tokens_per_second"]}
    table.lines[STEP].begun = time.monotonic() - row["seconds"]
    table.hear(Progressed(STEP, row["step"], last, "steps", figures))


def _report(path: Path) -> None:
    """The head of the report, and the first curves of the training, in few colours."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=sandbox)
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(path.absolute().as_uri())
        whole = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
        below = page.locator("#curves").bounding_box()["y"]
        curves = page.locator(f"h3:text-is('{STEP}') + .curves figure").first.bounding_box()
        browser.close()
    top, end = curves["y"] - ABOVE, curves["y"] + curves["height"] + MARGIN
    parts = [whole.crop((0, 0, WIDTH, int(below))), whole.crop((0, int(top), WIDTH, int(end)))]
    picture = Image.new("RGB", (WIDTH, sum(each.height for each in parts)))
    picture.paste(parts[0], (0, 0))
    picture.paste(parts[1], (0, parts[0].height))
    picture.quantize(COLOURS).save(PICTURES / "report.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
