"""Rewrites the parts of README.md that repeat what the code says: `make readme`."""

import re
from pathlib import Path

from runner import cli
from runner.stages import STAGES

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def generated(text: str) -> str:
    """The README with its generated parts made anew."""
    recipe = (ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
    text = _block(text, "file: recipes/quickstart.yaml", "yaml", recipe)
    text = _block(text, "command: runner --help", "", cli.HELP)
    return _table(
        text,
        "stages",
        "| stage | what it does | needs | gives |",
        [
            f"| {name} | {(stage.__doc__ or '').strip()} | {_needs(stage)} | {stage.GIVES} |"
            for name, stage in STAGES.items()
        ],
    )


def _table(text: str, marker: str, head: str, rows: list[str]) -> str:
    line = f"<!-- {marker} -->\n\n"
    made = line + "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rows]) + "\n"
    found, count = re.subn(re.escape(line) + r"(\|.*\n)*", lambda _: made, text)
    if count != 1:
        raise SystemExit(f"README.md has {count} tables of {marker}")
    return found


def _needs(stage: object) -> str:
    needs = getattr(stage, "NEEDS", {}).values()
    return ", ".join(dict.fromkeys(need.kind for need in needs)) or "nothing"


def _block(text: str, marker: str, language: str, body: str) -> str:
    pattern = re.escape(f"<!-- {marker} -->\n```{language}\n") + r"(?:(?!```).*\n)*```\n"
    made = f"<!-- {marker} -->\n```{language}\n{body}```\n"
    found, count = re.subn(pattern, lambda _: made, text)
    if count != 1:
        raise SystemExit(f"README.md has {count} blocks for {marker}")
    return found


if __name__ == "__main__":
    README.write_text(generated(README.read_text(encoding="utf-8")), encoding="utf-8")
