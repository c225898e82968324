"""Forty and more mistakes, each of which is told, with its cure, before any work."""

from collections.abc import Iterator

import hub as double
import huggingface_hub
import pytest
from hub import Hub
from huggingface_hub import constants
from mistakes import MISTAKES, Mistake, repositories

from runner import cli
from runner.sources import url
from runner.sources.hub import errors as hub_errors

ALL = [each for some in MISTAKES.values() for each in some]


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    """A Hub with a repository for all and a gated one, and nobody logged in."""
    with double.serve(*repositories()) as served:
        yield served


@pytest.fixture
def place(server, tmp_path, monkeypatch):
    """A working directory of the test's own, with that Hub."""
    (tmp_path / "work").mkdir()
    server.requests.clear()
    monkeypatch.chdir(tmp_path / "work")
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hub_errors, "PAUSE", 0.001)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(url, "PAUSE", 0.001)
    yield tmp_path / "work"
    huggingface_hub.close_session()


def test_there_are_forty_of_six_kinds_and_more():
    assert len({each.name for each in ALL}) == len(ALL) >= 40
    assert list(MISTAKES) == ["keys", "types", "names", "sources", "masks", "steps"]


@pytest.mark.parametrize("mistake", ALL, ids=lambda each: each.name)
def test_a_mistake_is_told_with_its_cure_before_any_work(
    mistake: Mistake, place, server, tiny_model, capsys
):
    words = mistake.lay(place, tiny_model)
    assert cli.main(["check", *words]) == 1
    [found] = [said for said in _findings(capsys.readouterr().out) if mistake.fact in said]
    assert mistake.cure in found
    assert cli.main(["run", *words]) == 1
    said = capsys.readouterr().err
    assert mistake.fact in said
    assert mistake.cure in said
    assert not (place / "runs").exists()
    assert not server.asked("GET .*/resolve/.*safetensors")


def test_the_recipe_without_a_mistake_has_no_error(place, tiny_model, capsys):
    words = Mistake("none", "", "").lay(place, tiny_model)
    assert cli.main(["check", *words]) == 0
    shown = capsys.readouterr().out
    assert "error" not in shown
    assert "note     process: of the first 24 rows, " in shown


def _findings(shown: str) -> list[str]:
    """Each error with the lines that belong to it."""
    found: list[str] = []
    for line in shown.splitlines():
        if line.startswith("error "):
            found.append(line)
        elif line.startswith("  ") and found:
            found[-1] += f"\n{line}"
    return found
