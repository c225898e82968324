"""Runs the long checks and writes what they found to docs/torture.md: `make torture`.

`python tools/torture.py ROWS` writes the page from rows that single checks have left there.
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


def main() -> int:
    """Run all checks, or take the rows of earlier ones; the exit code is pytest's."""
    if len(sys.argv) > 1:
        _write(Path(sys.argv[1]))
        return 0
    with tempfile.TemporaryDirectory() as place:
        rows = Path(place) / "rows.jsonl"
        checks = sorted(map(str, (ROOT / "tests" / "torture").glob("torture_*.py")))
        command = [sys.executable, "-m", "pytest", f"--basetemp={place}/tests", *checks]
        env = {**os.environ, "TORTURE_OUT": str(rows), "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, cwd=ROOT, env=env).returncode
        _write(rows)
    return code


def _write(rows: Path) -> None:
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    lines = [
        "# Torture",
        "",
        f"Measured with runner {__version__} on {machine()}; `make torture` measures it anew.",
        "",
        "| check | done | found |",
        "|---|---|---|",
        *(f"| {r['check']} | {r['done']}, in {r['seconds']:.0f} s | {r['found']} |" for r in found),
    ]
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(TARGET.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
