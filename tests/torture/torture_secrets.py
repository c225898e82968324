"""Where a secret ends up that a user gives in one way or another."""

import json
import os
import time
from pathlib import Path

import pytest
from measure import files_below, first, row
from test_run import Place

pytestmark = pytest.mark.timeout(3600)

SECRET = "hf_" + "SentinelOfTheLongChecks" * 2


def occurrences(*folders: Path) -> list[str]:
    """The files (or names) that hold the secret."""
    found = []
    for folder in folders:
        secret = SECRET.encode()
        links = [path for path in folder.rglob("*") if path.is_symlink()]
        found += [str(path) for path in folder.rglob("*") if SECRET in path.name]
        found += [str(path) for path in links if SECRET in os.readlink(path)]
        found += [str(path) for path in files_below(folder) if secret in path.read_bytes()]
    return found


def test_a_secret_stays_where_its_user_put_it(tiny_model, tmp_path, monkeypatch):
    begun = time.monotonic()
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("PIP_INDEX_URL", f"https://user:{SECRET}@localhost:9/simple")
    place = Place(tmp_path / "env", tiny_model)
    text = place.recipe.read_text()
    place.recipe.write_text(f"# {SECRET}\n{text} # {SECRET}\n")
    place.run()
    quiet = occurrences(place.folder / "runs", place.store)
    row(
        "a secret in HF_TOKEN, in PIP_INDEX_URL and in comments, through a whole run",
        f"{len(files_below(place.folder / 'runs') + files_below(place.store))} files read",
        f"in {len(quiet)} of them",
        begun,
    )

    def refused(what: dict[str, object], *overrides: str) -> str:
        """What a run with this recipe says, which must end with exit code 1."""
        place.recipe.write_text(json.dumps(what))
        process = place.start("run", *overrides)
        out, err = process.communicate()
        assert process.returncode == 1, out + err
        return out + err

    def told(check: str, screens: list[str], begun: float) -> list[str]:
        found = occurrences(place.folder / "runs", place.store)
        shown = sum(SECRET in screen for screen in screens)
        row(check, f"{len(screens)} runs", f"in {len(found)} files, on {shown} screens", begun)
        return found + [screen for screen in screens if SECRET in screen]

    begun, values = time.monotonic(), json.loads(text)
    wheel = {"wheel": "nothing-of-this-name==1.0", "members": ["*"]}
    screens = [
        refused(values | {"token": SECRET}),
        refused(values, f"fetch.model.wheel={SECRET}"),
        refused(values, f"process.massages={SECRET}"),
        refused(values | {"fetch": values["fetch"] | {"model": wheel}}),
    ]
    check = "a secret in an unknown name, in refused overrides, in the index of a failing pip"
    failed = told(check, screens, begun)

    begun, count = time.monotonic(), len(list(place.folder.glob("runs/*/*")))
    in_address = values["process"] | {"messages": f"https://me:{SECRET}@host/x"}
    screens = [
        refused(values, f"++fetch.model.revision={SECRET}"),
        refused(values, f"process.messages={SECRET}"),
        refused(values | {"process": in_address}),
    ]
    given = told("a secret as the value of an option, by override and in YAML", screens, begun)
    assert len(list(place.folder.glob("runs/*/*"))) == count, "no run was to begin"
    assert not quiet, first(quiet)
    assert not failed, first(failed)
    assert not given, first(given)
