"""The report of a run that had nothing to do: a page that costs nothing to write."""

from html import escape
from itertools import islice
from pathlib import Path

from runner.report.folder import REPORT, Run, below, read

LOOKED_AT = 20
"""Earlier runs among which the one that did the work is looked for."""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{name}: nothing to do</title>
<style>
:root {{ color-scheme: light dark; }}
html {{ background: Canvas; color: CanvasText; }}
body {{ margin: 0 auto; max-width: 46rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }}
h1, p {{ overflow-wrap: anywhere; }}
table {{ display: block; overflow-x: auto; }}
th, td {{ padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }}
pre {{ overflow-x: auto; }}
</style>
</head>
<body>
<main>
<h1>{name}</h1>
<p>Nothing had to be done: the results of all {count} steps were there already.</p>
{earlier}<p>To have the whole report here:</p>
<pre>runner report {place}</pre>
<table>
<thead><tr>
<th scope="col">step</th><th scope="col">verdict</th><th scope="col">reason</th>
</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</main>
</body>
</html>
"""
ROW = '<tr><th scope="row">{}</th><td>{}</td><td>{}</td></tr>'
EARLIER = '<p>The run that made them: <a href="../{0}/{1}">{0}</a>.</p>\n'


def write(folder: Path) -> Path:
    """Say that everything was reused, and lead to the report of the run that did the work."""
    run, path = read(folder), folder / REPORT
    found = maker(run)
    page = PAGE.format(
        name=escape(run.name),
        count=len(run.steps),
        earlier=EARLIER.format(escape(found.folder.name), REPORT) if found else "",
        place=escape("/".join(run.folder.parts[-3:])),
        rows="\n".join(
            ROW.format(escape(step.name), escape(step.said), escape(step.reason))
            for step in run.steps
        ),
    )
    path.write_text(page, encoding="utf-8")
    return path


def maker(run: Run) -> Run | None:
    """The newest earlier run beside this one that worked, ended well and has the same results."""
    earlier = (each for each in below(run.folder.parent.parent, run.folder.parent.name))
    for found in islice(earlier, LOOKED_AT):
        if found.worked and found.keys == run.keys and (found.folder / REPORT).exists():
            return found
    return None
