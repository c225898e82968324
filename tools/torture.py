"""Runs the long checks and writes what they found to docs/torture.md: `make torture`.

`python tools/torture.py NAME ...` runs only those (`gptq` is tests/torture/torture_gptq.py), and
leaves the rows of the others; of a file of rows that a check has left it takes these.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import machine

from runner import __version__

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "torture.md"
CHECKS = sorted((ROOT / "tests" / "torture").glob("torture_*.py"))
RULE = "|---|---|---|"


def main() -> int:
    """Run the checks, or take the rows of earlier ones; the exit code is pytest's."""
    if len(sys.argv) == 2 and Path(sys.argv[1]).is_file():
        _write(Path(sys.argv[1]), before=_rows(TARGET))
        return 0
    place_of = {path.stem.removeprefix("torture_"): str(path) for path in CHECKS}
    checks = [place_of[name] for name in sys.argv[1:] or sorted(place_of)]
    with tempfile.TemporaryDirectory() as place:
        rows = Path(place) / "rows.jsonl"
        command = [sys.executable, "-m", "pytest", f"--basetemp={place}/tests", *checks]
        env = {**os.environ, "TORTURE_OUT": str(rows), "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, cwd=ROOT, env=env).returncode
        _write(rows, before=_rows(TARGET) if len(checks) < len(place_of) else {})
    return code


def _rows(page: Path) -> dict[str, str]:
    """The lines of a page by the names of their checks."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = lines.index(RULE) + 1
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines[start:]}


def _write(rows: Path, before: dict[str, str]) -> None:
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    new = {
        r["check"]: f"| {r['check']} | {r['done']}, in {r['seconds']:.0f} s | {r['found']} |"
        for r in found
    }
    lines = [
        "# Torture",
        "",
        f"Measured with runner {__version__} on {machine()}; `make torture` measures it anew.",
        "",
        "| check | done | found |",
        RULE,
        *(line for _, line in sorted({**before, **new}.items())),
    ]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TARGET.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
