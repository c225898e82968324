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
    marker = "<!-- stages -->\n"
    table = "| stage | what it does | needs | gives |\n|---|---|---|---|\n" + "".join(
        f"| {name} | {(stage.__doc__ or '').strip()} | {_needs(stage)} | {stage.GIVES} |\n"
        for name, stage in STAGES.items()
    )
    return re.sub(re.escape(marker) + r"\n(\|.*\n)*", lambda _: f"{marker}\n{table}", text)


def _needs(stage: object) -> str:
    needs = getattr(stage, "NEEDS", {}).values()
    return ", ".join(dict.fromkeys(need.kind for need in needs)) or "nothing"


def _block(text: str, marker: str, language: str, body: str) -> str:
    pattern = re.escape(f"<!-- {marker} -->\n```{language}\n") + r"(.*?\n)?```\n"
    made = f"<!-- {marker} -->\n```{language}\n{body}```\n"
    found, count = re.subn(pattern, lambda _: made, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"README.md has {count} blocks for {marker}")
    return found


if __name__ == "__main__":
    README.write_text(generated(README.read_text(encoding="utf-8")), encoding="utf-8")
