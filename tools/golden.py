"""Writes down what must not change by accident: each stage's code and each recipe's keys.

`make golden` says: yes, this change was meant. Where a stage's code changes what comes out, raise
its VERSION first; where it does not, run this and nothing is made again.
"""

import ast
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from runner import hardware, places, running
from runner.files import digest_json
from runner.stages import STAGES

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "golden.json"
BORROWED = ("convert", "merging", "products", "quantized")
"""Modules of ours that stages work with: a stage's code is its own and theirs."""
PLANNED = ("quickstart",)
"""Recipes whose sources are pinned; of others the Hub is asked what they stand for now."""
FETCHING = [f"sources/{name}.py" for name in ("local", "url", "wheel", "hub/choice")]
"""Those that decide what is fetched; how it gets here changes nothing."""


def golden() -> dict[str, Any]:
    """Version and code digest of every stage; keys of every shipped recipe that is pinned."""
    return {"stages": stages(), "keys": {name: keys(places.find_recipe(name)) for name in PLANNED}}


def stages() -> dict[str, dict[str, Any]]:
    """What each stage is at, and what its code is."""
    return {
        name: {"version": stage.VERSION, "code": digest_json(_code(name))}
        for name, stage in STAGES.items()
    }


def _modules(folder: str) -> list[str]:
    """What a stage works with: `data`, `models`, `training`, `scoring`, `saving`."""
    root = ROOT / "runner"
    return sorted(path.relative_to(root).as_posix() for path in (root / folder).rglob("*.py"))


def keys(path: Path) -> dict[str, str]:
    """The keys of a recipe's steps on a machine that computes bfloat16, but for save's.

    The folder that save writes is part of its key, and lies where one stands.
    """
    planned, _ = running.prepare(str(path), [])
    return {p.step.name: p.key for p in planned.steps if p.step.stage_name != "save"}


def _code(stage: str) -> list[str]:
    tree = _parsed(ROOT / "runner" / "stages" / f"{stage}.py")
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module == "runner"
    } | {
        str(node.module).rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    paths = [f"{name}.py" for name in BORROWED if name in imported]
    paths += FETCHING if stage == "fetch" else []
    paths += _modules("data") if stage in ("process", "generate") else []
    paths += _modules("answering") if stage == "generate" else []
    paths += _modules("models") if stage in ("load", "quantize") else []
    paths += _modules("training") if stage == "adapt" else []
    paths += _modules("scoring") if stage == "evaluate" else []
    paths += _modules("saving") if stage == "save" else []
    borrowed = [_parsed(ROOT / "runner" / path) for path in paths]
    return [ast.unparse(each) for each in (tree, *borrowed)]


def _parsed(path: Path) -> ast.Module:
    """A module without comments and docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
    return tree


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


if __name__ == "__main__":
    hardware.computes_bfloat16 = lambda: True  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as store:
        os.environ["RUNNER_STORE"] = store
        TARGET.write_text(json.dumps(golden(), indent=1) + "\n", encoding="utf-8")
