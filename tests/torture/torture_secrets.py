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


def names(found: list[str]) -> str:
    return ", ".join(sorted({Path(each).name for each in found})) or "nothing"


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

    begun = time.monotonic()
    values = json.loads(text)
    place.recipe.write_text(json.dumps(values | {"token": SECRET}))
    process = place.start("run")
    out, err = process.communicate()
    assert process.returncode == 1
    place.recipe.write_text(text)
    process = place.start("run", f"fetch.model.wheel={SECRET}")
    process.communicate()
    assert process.returncode == 1
    process = place.start("run", f"process.massages={SECRET}")
    process.communicate()
    refused = occurrences(place.folder / "runs", place.store)

    values["fetch"]["model"] = {"wheel": "nothing-of-this-name==1.0", "members": ["*"]}
    place.recipe.write_text(json.dumps(values))
    process = place.start("run")
    out, err = process.communicate()
    assert process.returncode == 1
    failed = occurrences(place.folder / "runs", place.store)
    row(
        "a secret in an unknown name, in refused overrides, and in the index of a failing pip",
        "4 runs that end with exit code 1",
        f"in {len(failed)} files; shown on screen by pip's failure: {SECRET in out + err}",
        begun,
    )

    begun = time.monotonic()
    place.recipe.write_text(text)
    place.run(f"++fetch.model.revision={SECRET}")
    unkeyed = occurrences(place.folder / "runs", place.store)
    process = place.start("run", f"process.messages={SECRET}")
    process.communicate()
    keyed = occurrences(place.folder / "runs", place.store)
    row(
        "a secret as the value of a text option (unkeyed: fetch's revision; keyed: messages)",
        "2 runs",
        f"recorded, as every option is: unkeyed in {names(unkeyed)}; keyed in {names(keyed)}",
        begun,
    )
    assert not quiet, first(quiet)
    assert not refused, first(refused)
    assert not failed, first(failed)
    assert SECRET not in err
