"""One process makes a thing, the others wait, and nobody waits for the dead."""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import end, script

from runner import lease as leases
from runner.lease import is_held, lease

SOON = 5.0
"""Seconds: well under EXPIRY, and time enough on a busy machine."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners count as dead after a second."""
    monkeypatch.setattr(leases, "EXPIRY", 1.0)
    monkeypatch.setattr(leases, "POLL", 0.02)


@contextmanager
def other_process(path: Path, command: str = "hold") -> Iterator[Any]:
    """A process that holds the lease until its standard input ends, or it is killed."""
    process = script(command, path)
    try:
        assert process.stdout.readline().strip()
        yield process
    finally:
        end(process)


def edit(path: Path, count: int | None = None, **changes: Any) -> dict[str, Any]:
    """Rewrite a lease file's counter or owner, and give the owner."""
    was, owner = path.read_text().split("\n", 1)
    changed = json.loads(owner) | changes
    path.write_text(f"{int(was) if count is None else count:012d}\n{json.dumps(changed)}\n")
    return changed


def left_behind(path: Path, **changes: Any) -> None:
    """A lease file whose owner was this process, as edited."""
    with lease(path, print):
        text = path.read_text()
    path.write_text(text)
    edit(path, **changes)


def seconds_until_held(path: Path, on_wait: Callable[[str], None] = lambda text: None) -> float:
    begun = time.monotonic()
    with lease(path, on_wait):
        return time.monotonic() - begun


def test_a_lease_is_held_while_its_block_runs(tmp_path: Path):
    path = tmp_path / "leases" / "key"
    assert not is_held(path)
    with lease(path, print):
        assert is_held(path)
    assert not is_held(path)
    assert list(path.parent.iterdir()) == []


def test_a_block_that_fails_gives_the_lease_back(tmp_path: Path):
    with pytest.raises(RuntimeError), lease(tmp_path / "key", print):
        raise RuntimeError
    assert not is_held(tmp_path / "key")


def test_a_second_process_waits_and_is_told_for_whom(tmp_path: Path):
    path, said = tmp_path / "key", []
    with other_process(path) as process:
        host = edit(path)["host"]
        threading.Timer(0.6, process.stdin.close).start()
        assert seconds_until_held(path, said.append) > 0.5
        process.wait()
    assert said == [f"waiting for process {process.pid} on {host}"]


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path: Path):
    path = tmp_path / "key"
    with other_process(path) as process:
        process.kill()
        process.wait()
        assert path.exists()
        assert not is_held(path)
        assert seconds_until_held(path) < SOON


def test_a_killed_process_that_is_still_in_the_table_counts_as_dead(tmp_path: Path):
    with other_process(tmp_path / "key", "hold-by-child"):
        assert not is_held(tmp_path / "key")


def test_the_lease_of_the_dead_is_cleared_and_that_of_the_living_is_left(tmp_path: Path):
    with other_process(tmp_path / "key") as process:
        leases.clear(tmp_path / "key")
        assert is_held(tmp_path / "key")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    leases.clear(tmp_path / "key")
    assert not (tmp_path / "key").exists()
    leases.clear(tmp_path / "key")  # where there is none, nothing is done


def test_the_lease_of_another_process_with_the_same_id_is_taken_over_at_once(tmp_path: Path):
    left_behind(tmp_path / "key", start="1")
    assert not is_held(tmp_path / "key")
    assert seconds_until_held(tmp_path / "key") < SOON


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("where", ["host", "boot", "space"])
def test_an_owner_elsewhere_counts_as_alive_until_its_counter_has_stood_still(
    tmp_path: Path, where: str
):
    path, said = tmp_path / "key", []
    left_behind(path, **{where: "elsewhere"}, start="1")
    assert is_held(path)
    assert 0.9 < seconds_until_held(path, said.append) < SOON
    assert len(said) == 2
    assert said[0].startswith("waiting for process")
    assert said[1].endswith("is gone; going on in its place")


@pytest.mark.usefixtures("quick")
def test_an_owner_elsewhere_lives_while_its_counter_moves(tmp_path: Path):
    path = tmp_path / "key"
    left_behind(path, host="elsewhere")
    beaten = []

    def beat() -> None:
        for count in range(1, 9):
            time.sleep(0.25)
            with open(path, "r+") as file:
                file.write(f"{count:012d}")
            beaten.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    with lease(path, lambda text: None):
        held = time.monotonic()
    thread.join()
    assert len(beaten) == 8
    assert held - beaten[-1] > 0.9


@pytest.mark.usefixtures("quick")
def test_an_owner_raises_its_counter(tmp_path: Path):
    path = tmp_path / "key"
    with lease(path, print):
        before = path.read_text().split("\n")
        time.sleep(0.6)
        after = path.read_text().split("\n")
    assert int(after[0]) > int(before[0]) == 0
    assert after[1:] == before[1:]


@pytest.mark.usefixtures("quick")
def test_an_owner_on_this_host_that_stands_still_is_alive(tmp_path: Path):
    path, held = tmp_path / "key", threading.Event()

    def take() -> None:
        with lease(path, lambda text: None):
            held.set()

    with other_process(path) as process:
        process.send_signal(signal.SIGSTOP)
        thread = threading.Thread(target=take)
        thread.start()
        taken_from_the_living = held.wait(2.0)
        process.kill()
        process.wait()
        thread.join()
    assert not taken_from_the_living


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("text", ["", "000000000000\n", "000000000000\n{"])
def test_a_lease_file_that_was_never_finished_is_taken_over(tmp_path: Path, text: str):
    (tmp_path / "key").write_text(text)
    assert seconds_until_held(tmp_path / "key") < SOON


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("owner", ["{}", "[]"])
def test_a_lease_file_with_another_owner_line_is_taken_over(tmp_path: Path, owner: str):
    (tmp_path / "key").write_text(f"000000000000\n{owner}\n")
    assert seconds_until_held(tmp_path / "key") < SOON


def test_an_owner_that_lost_its_lease_leaves_the_new_owners_alone(tmp_path: Path):
    path = tmp_path / "key"
    with lease(path, print):
        edit(path, token="of somebody else")
    assert path.exists()


@pytest.mark.usefixtures("quick")
def test_of_many_watchers_of_a_dead_owner_one_at_a_time_holds_the_lease(tmp_path: Path):
    path, inside, most, told = tmp_path / "key", [], [], []
    left_behind(path, start="1")

    def take() -> None:
        said: list[str] = []
        told.append(said)
        with lease(path, said.append):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert sum("is gone" in text for said in told for text in said) >= 1
    assert max(sum("waiting" in text for text in said) for said in told) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".breaking"]


def test_a_lease_has_its_owner_from_its_first_moment(tmp_path: Path, monkeypatch):
    """A kill between making the file and signing it would have everybody wait for nobody."""
    seen = []

    def link(source: Path, target: Path) -> None:
        seen.append(json.loads(Path(source).read_text().split("\n", 1)[1])["pid"])
        real(source, target)

    real = os.link
    monkeypatch.setattr(os, "link", link)
    with lease(tmp_path / "key", print):
        assert seen == [os.getpid()]
        assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_file_system_without_links_has_leases_too(tmp_path: Path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with lease(tmp_path / "key", print):
        assert is_held(tmp_path / "key")
        assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert list(tmp_path.iterdir()) == []
