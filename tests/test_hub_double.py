"""The Hub that other tests fetch from: first as HTTP, then as the Hub's own clients see it."""

import hashlib
import http.client
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hub
import huggingface_hub
import pytest
from hub import Hub, Repo, Token
from huggingface_hub import errors

WEIGHTS = bytes(range(256)) * 4000  # large by its name only
FILES = {"config.json": b"{}", "README.md": b"# tiny\n", "a/b/c.txt": b"hello"}


def tiny(**more: Any) -> Repo:
    return Repo("acme/tiny", files={**FILES, "w.safetensors": WEIGHTS}, **more)


def ask(address: str, method: str = "GET", **headers: str) -> tuple[int, Any, bytes]:
    """Status, headers and body; what is cut off in the middle comes back with the status 0."""
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(
            method, url.path + (f"?{url.query}" if url.query else ""), headers=headers
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except http.client.IncompleteRead as cut:
        return 0, answer.headers, cut.partial
    finally:
        connection.close()


def weights(server: Hub, revision: str = "main") -> str:
    """Where the large file is."""
    place = f"{server.endpoint}/acme/tiny/resolve/{revision}/w.safetensors"
    return ask(place, "HEAD")[1]["Location"]


# --- as HTTP


def test_a_small_file_comes_from_the_hub_with_its_commit_and_gits_digest():
    repo = tiny()
    with hub.serve(repo) as server:
        status, headers, body = ask(f"{server.endpoint}/acme/tiny/resolve/main/a/b/c.txt")
    assert (status, body) == (200, b"hello")
    assert headers["ETag"] == '"b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"'  # git hash-object
    assert headers["X-Repo-Commit"] == repo.branches["main"].sha


def test_a_large_file_comes_from_another_host():
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    with hub.serve(tiny()) as server:
        status, headers, _ = ask(f"{server.endpoint}/acme/tiny/resolve/main/w.safetensors", "HEAD")
        assert ask(headers["Location"])[2] == WEIGHTS
    assert status == 302
    assert headers["X-Linked-Etag"] == f'"{digest}"'
    assert headers["X-Linked-Size"] == str(len(WEIGHTS)) != headers["Content-Length"]
    assert urlsplit(headers["Location"]).hostname != urlsplit(server.endpoint).hostname


def test_older_commits_branches_and_tags_stay_reachable():
    repo = tiny()
    first = repo.branches["main"].sha
    repo.tags["v1"] = repo.branches["main"]
    second = repo.commit({"config.json": b"[]", "README.md": None})
    repo.commit({"config.json": b"0"}, branch="other/one")
    with hub.serve(repo) as server:
        there = f"{server.endpoint}/acme/tiny/resolve"
        found = {
            at: ask(f"{there}/{at}/config.json")[2]
            for at in (first, second, "main", "v1", "other%2Fone")
        }
        gone = ask(f"{there}/main/README.md")[0], ask(f"{there}/v1/README.md")[0]
    assert found == {first: b"{}", "v1": b"{}", second: b"[]", "main": b"[]", "other%2Fone": b"0"}
    assert gone == (404, 200)


def listing(server: Hub, query: str = "") -> list[str]:
    items = json.loads(ask(f"{server.endpoint}/api/models/acme/tiny/tree/main{query}")[2])
    return [item["path"] for item in items]


def test_a_listing_is_of_one_folder_or_of_all_that_is_in_it():
    with hub.serve(tiny()) as server:
        assert listing(server) == ["README.md", "a", "config.json", "w.safetensors"]
        assert listing(server, "/a") == ["a/b"]
        assert listing(server, "/a?recursive=true") == ["a/b", "a/b/c.txt"]


def test_a_listing_has_pages_when_it_is_told_to():
    with hub.serve(tiny(), page_size=4) as server:
        place = f"{server.endpoint}/api/models/acme/tiny/tree/main?recursive=true"
        _, headers, first = ask(place)
        following, _, relation = headers["Link"].partition(">")
        _, last, second = ask(following.removeprefix("<"))
    assert relation == '; rel="next"'
    assert (len(json.loads(first)), len(json.loads(second)), last["Link"]) == (4, 2, None)


def test_a_name_that_leads_out_of_the_folder_is_listed_and_sent_as_it_is():
    repo = Repo("acme/tiny", files={"../up.txt": b"up", "/etc/top.txt": b"top"})
    with hub.serve(repo) as server:
        assert {"../up.txt", "/etc/top.txt"} <= set(listing(server, "?recursive=true"))
        assert ask(f"{server.endpoint}/acme/tiny/resolve/main/../up.txt")[2] == b"up"
        assert ask(f"{server.endpoint}/acme/tiny/resolve/main//etc/top.txt")[2] == b"top"


@pytest.mark.parametrize(
    ("asked", "status", "shown", "body"),
    [
        ("bytes=2-", 206, "bytes 2-4/5", b"llo"),
        ("bytes=1-2", 206, "bytes 1-2/5", b"el"),
        ("bytes=1-99", 206, "bytes 1-4/5", b"ello"),
        ("bytes=-2", 206, "bytes 3-4/5", b"lo"),
        ("bytes=5-", 416, "bytes */5", b""),
        ("bytes=-", 200, None, b"hello"),
        ("rows=1-2", 200, None, b"hello"),
    ],
)
def test_a_part_of_a_file(asked, status, shown, body):
    with hub.serve(tiny()) as server:
        found = ask(f"{server.endpoint}/acme/tiny/resolve/main/a/b/c.txt", Range=asked)
    assert (found[0], found[1]["Content-Range"], found[2]) == (status, shown, body)


def test_a_part_is_sent_only_if_the_file_is_still_the_same():
    with hub.serve(tiny()) as server:
        place = f"{server.endpoint}/acme/tiny/resolve/main/a/b/c.txt"
        etag = ask(place, "HEAD")[1]["ETag"]
        assert ask(place, Range="bytes=2-", If_Range=etag)[0] == 206
        assert ask(place, Range="bytes=2-", If_Range='"another"')[0] == 200


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("acme/tiny/resolve/main/none.txt", "EntryNotFound"),
        ("acme/tiny/resolve/v9/config.json", "RevisionNotFound"),
        ("api/models/acme/tiny/tree/main/none", "EntryNotFound"),
        ("api/models/acme/tiny/revision/v9", "RevisionNotFound"),
        ("api/models/acme/none", "RepoNotFound"),
        ("api/datasets/acme/tiny", "RepoNotFound"),
        ("api/agent-harnesses", None),
    ],
)
def test_what_is_not_there_is_said_by_a_code(path, code):
    with hub.serve(tiny(), tokens={"t": Token()}) as server:
        status, headers, _ = ask(f"{server.endpoint}/{path}", Authorization="Bearer t")
    assert (status, headers["X-Error-Code"]) == (404, code)


TOKENS = {"let-in": Token(repos=("acme/tiny",)), "other": Token(), "owner": Token(user="acme")}
SEEN = {
    "open": {None: (200, None), "other": (200, None), "bad": (401, None)},
    "private": {
        None: (401, "RepoNotFound"),
        "other": (404, "RepoNotFound"),
        "let-in": (200, None),
        "owner": (200, None),
        "bad": (401, None),
    },
    "gated": {
        None: (401, "GatedRepo"),
        "other": (403, "GatedRepo"),
        "let-in": (200, None),
        "bad": (401, None),
    },
}


@pytest.mark.parametrize("kind", SEEN)
def test_who_may_read_what(kind):
    found = {}
    with hub.serve(tiny(private=kind == "private", gated=kind == "gated"), tokens=TOKENS) as server:
        for token in SEEN[kind]:
            with_token = {"Authorization": f"Bearer {token}"} if token else {}
            place = f"{server.endpoint}/acme/tiny/resolve/main/config.json"
            status, headers, _ = ask(place, **with_token)
            found[token] = status, headers["X-Error-Code"]
            if token == "bad":
                assert headers["X-Error-Message"] == "Invalid credentials in Authorization header"
    assert found == SEEN[kind]


def test_a_file_on_disk_is_sent_in_pieces(tmp_path):
    with (tmp_path / "big.bin").open("wb") as file:
        file.truncate(32 << 20)
    tracemalloc.start()
    with hub.serve(Repo("acme/tiny", files={"big.bin": tmp_path / "big.bin"})) as server:
        place = f"{server.endpoint}/acme/tiny/resolve/main/big.bin"
        url = urlsplit(ask(place, "HEAD")[1]["Location"])
        connection = http.client.HTTPConnection(url.netloc)
        connection.request("GET", url.path)
        answer, size = connection.getresponse(), 0
        while chunk := answer.read(1 << 20):
            size += len(chunk)
        connection.close()
        assert server.bytes_sent("GET /cdn/") == size == 32 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_the_log_tells_what_was_asked_and_sent():
    with hub.serve(tiny(), tokens={"t": Token()}) as server:
        place = f"{server.endpoint}/acme/tiny/resolve/main/a/b/c.txt"
        ask(place, "HEAD")
        ask(f"{place}?download=true", Range="bytes=2-", Authorization="Bearer t")
        ask(weights(server))
        head, get, _, large = server.requests
        assert (head.method, head.status, head.bytes_sent) == ("HEAD", 200, 0)
        assert (get.path, get.query) == ("/acme/tiny/resolve/main/a/b/c.txt", "download=true")
        assert (get.range, get.status, get.bytes_sent) == ("bytes=2-", 206, 3)
        assert (head.has_authorization, get.has_authorization) == (False, True)
        assert (get.server, large.server) == ("api", "cdn")
        assert head.time <= get.time <= large.time
        assert server.bytes_sent() == 3 + len(WEIGHTS)
        assert server.bytes_sent(r"c\.txt$") == 3


def test_a_connection_serves_many_requests_and_nothing_is_left_of_it():
    before = set(threading.enumerate())
    with hub.serve(tiny()) as server:
        connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc)
        for method, path in [("GET", "main/config.json"), ("HEAD", "main/x"), ("GET", "v9/x")] * 2:
            connection.request(method, f"/acme/tiny/resolve/{path}")
            connection.getresponse().read()
        started = set(threading.enumerate()) - before
        assert len(started) == 3  # two servers, one connection
    assert set(threading.enumerate()) <= before
    assert not server.folder.exists()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        ask(server.endpoint)


def test_an_error_of_the_double_itself_is_raised_at_the_end(tmp_path):
    (tmp_path / "gone.txt").write_text("a")
    repo = Repo.of("acme/tiny", tmp_path)
    (tmp_path / "gone.txt").unlink()
    with pytest.raises(FileNotFoundError), hub.serve(repo) as server:
        ask(f"{server.endpoint}/acme/tiny/resolve/main/gone.txt")


# --- what goes wrong on demand


def test_a_connection_is_dropped_after_so_many_bytes():
    with hub.serve(tiny()) as server:
        place = weights(server)
        server.fault("GET /cdn/", drop_after=1000)
        server.fault("GET /cdn/", drop_after=500)
        assert ask(place)[::2] == (0, WEIGHTS[:1000])
        assert ask(place, Range="bytes=1000-")[::2] == (0, WEIGHTS[1000:1500])
        assert ask(place, Range="bytes=1500-")[::2] == (206, WEIGHTS[1500:])


def test_a_connection_is_closed_without_an_answer():
    with hub.serve(tiny()) as server:
        server.fault("/api/", hang_up=True)
        with pytest.raises(http.client.RemoteDisconnected):
            listing(server)
        assert server.requests[0].status is None
        assert listing(server)


def test_the_hub_is_busy_for_some_requests():
    with hub.serve(tiny()) as server:
        server.fault("/tree/", status=429, headers={"Retry-After": "3"}, skip=1, times=2)
        place = f"{server.endpoint}/api/models/acme/tiny/tree/main"
        found = [ask(place) for _ in range(4)]
        ask(f"{server.endpoint}/api/models/acme/tiny")
    assert [status for status, _, _ in found] == [200, 429, 429, 200]
    assert found[1][1]["Retry-After"] == "3"
    assert server.requests[-1].status == 200


def test_an_answer_comes_late_or_slowly():
    with hub.serve(tiny()) as server:
        place = weights(server)
        server.fault("GET", delay=0.1)
        server.fault("GET", rate=10 * len(WEIGHTS))
        for _ in range(2):
            start = time.monotonic()
            assert ask(place)[2] == WEIGHTS
            assert time.monotonic() - start >= 0.1


def test_a_slow_answer_does_not_hold_up_the_end():
    start = time.monotonic()
    with hub.serve(tiny()) as server:
        server.fault("GET /cdn/", rate=10)
        connection = http.client.HTTPConnection(urlsplit(server.cdn).netloc)
        connection.request("GET", urlsplit(weights(server)).path)
        assert connection.getresponse().read(1)
    connection.close()
    assert time.monotonic() - start < 5


def test_the_content_is_not_what_it_should_be():
    with hub.serve(tiny()) as server:
        place = weights(server)
        server.fault("GET", flip=500_000)
        server.fault("GET", flip=500_000)
        server.fault("GET", cut=24)
        server.fault("GET", ignore_range=True)
        flipped = ask(place)[2]
        assert [n for n in range(len(WEIGHTS)) if flipped[n] != WEIGHTS[n]] == [500_000]
        assert ask(place, Range="bytes=500001-")[2] == WEIGHTS[500_001:]
        status, headers, short = ask(place)
        assert (status, headers["Content-Length"]) == (200, str(len(WEIGHTS) - 24))
        assert short == WEIGHTS[:-24]
        assert ask(place, Range="bytes=5-")[::2] == (200, WEIGHTS)


def test_a_fault_may_last_until_it_is_cleared():
    with hub.serve(tiny()) as server:
        server.fault("^HEAD .*config", status=503, times=math.inf)
        place = f"{server.endpoint}/acme/tiny/resolve/main/config.json"
        assert [ask(place, "HEAD")[0] for _ in range(3)] == [503] * 3
        assert ask(place)[0] == 200
        server.faults.clear()
        assert ask(place, "HEAD")[0] == 200


# --- as the Hub's own client sees it


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client in this process may ask; plainly, for Xet leaves threads behind."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield
    huggingface_hub.close_session()


def client(server: Hub, token: str | bool = False) -> huggingface_hub.HfApi:
    return huggingface_hub.HfApi(endpoint=server.endpoint, token=token)


def contents(folder: str | Path) -> dict[str, bytes]:
    """What is in a downloaded folder, by path."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {path: body for path, body in found.items() if not path.startswith(".cache/")}


@pytest.mark.usefixtures("online")
def test_the_client_reads_what_is_in_a_repository():
    repo = tiny()
    first = repo.branches["main"].sha
    second = repo.commit({"config.json": b"[]"}, "other configuration")
    repo.tags["v1"] = repo.commits[first]
    with hub.serve(repo, page_size=2) as server:
        api = client(server)
        info = api.model_info("acme/tiny", revision="v1", files_metadata=True)
        sizes = {one.rfilename: one.size for one in info.siblings}
        assert info.sha == first
        assert sizes == {path: len(body) for path, body in contents_of(repo, first).items()}
        assert next(one.lfs.sha256 for one in info.siblings if one.lfs) == (
            hashlib.sha256(WEIGHTS).hexdigest()
        )
        assert len(list(api.list_repo_tree("acme/tiny", recursive=True))) == 6
        found = api.get_paths_info("acme/tiny", ["a", "config.json", "none"])
        assert [one.path for one in found] == ["a", "config.json"]
        refs = api.list_repo_refs("acme/tiny")
        assert [(one.name, one.target_commit) for one in refs.branches] == [("main", second)]
        assert [(one.name, one.target_commit) for one in refs.tags] == [("v1", first)]
        titles = [one.title for one in api.list_repo_commits("acme/tiny")]
        assert titles == ["other configuration", "initial commit"]
        assert api.file_exists("acme/tiny", "w.safetensors")
        assert not api.revision_exists("acme/tiny", "v9")


def contents_of(repo: Repo, revision: str) -> dict[str, bytes]:
    return {path: kept.read() for path, kept in repo.at(revision).files.items()}


@pytest.mark.usefixtures("online")
def test_the_client_downloads_a_private_repository_and_keeps_its_token_from_the_other_host(
    tmp_path,
):
    repo = tiny(private=True)
    with hub.serve(repo, tokens={"let-in": Token(repos=("acme/tiny",))}) as server:
        folder = client(server, "let-in").snapshot_download("acme/tiny", cache_dir=tmp_path)
        assert contents(folder) == contents_of(repo, "main")
        assert {one.has_authorization for one in server.requests if one.server == "api"} == {True}
        assert {one.has_authorization for one in server.requests if one.server == "cdn"} == {False}


@pytest.mark.usefixtures("online")
def test_the_client_goes_on_where_the_line_was_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    with hub.serve(tiny()) as server:
        server.fault("GET /cdn/", drop_after=250_000)
        path = client(server).hf_hub_download("acme/tiny", "w.safetensors", local_dir=tmp_path)
        assert Path(path).read_bytes() == WEIGHTS
        ranges = [one.range for one in server.asked("GET /cdn/")]
    assert len(ranges) == 2
    assert ranges[0] is None
    assert ranges[1].startswith("bytes=")


@pytest.mark.usefixtures("online")
def test_the_client_knows_each_refusal():
    gated, private = Repo("acme/gated", files=FILES, gated=True), Repo("acme/hidden", private=True)
    with hub.serve(gated, private, tokens={"other": Token(role="read", user="me")}) as server:
        assert client(server, "other").whoami()["auth"]["accessToken"]["role"] == "read"
        assert client(server).model_info("acme/gated").gated == "manual"
        for token in (False, "other"):
            api = client(server, token)
            with pytest.raises(errors.GatedRepoError):
                api.get_hf_file_metadata(
                    url=f"{server.endpoint}/acme/gated/resolve/main/config.json", token=token
                )
            with pytest.raises(errors.RepositoryNotFoundError):
                api.model_info("acme/hidden")
        with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials") as refused:
            client(server, "bad").model_info("acme/gated")
        assert refused.value.response.status_code == 401


# --- writing


@pytest.fixture
def writer(online: None) -> Iterator[tuple[Hub, huggingface_hub.HfApi]]:
    """A Hub and one who may write to what is acme's."""
    tokens = {"writer": Token(role="write", user="acme"), "reader": Token(user="acme")}
    with hub.serve(tiny(), tokens=tokens) as server:
        yield server, client(server, "writer")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is to be uploaded."""
    (tmp_path / "up" / "deep").mkdir(parents=True)
    (tmp_path / "up" / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "up" / "deep" / "model.safetensors").write_bytes(WEIGHTS[::-1])
    return tmp_path / "up"


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
def test_what_is_uploaded_can_be_downloaded(writer, folder, tmp_path):
    server, api = writer
    api.create_repo("acme/new", private=True)
    assert api.create_repo("acme/new", exist_ok=True) == f"{server.endpoint}/acme/new"
    done = api.upload_folder(repo_id="acme/new", folder_path=folder, commit_message="all of it")
    down = api.snapshot_download("acme/new", cache_dir=tmp_path / "cache")
    assert contents(down) == contents(folder)
    assert server.repos["model", "acme/new"].branches["main"].sha == done.oid == Path(down).name
    assert [one.title for one in api.list_repo_commits("acme/new")] == [
        "all of it",
        "initial commit",
    ]
    assert {one.has_authorization for one in server.asked("PUT")} == {False}


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own
def test_what_is_there_already_is_not_sent_again(writer, folder):
    server, api = writer
    api.create_repo("acme/new", repo_type="dataset")
    for title in ("first", "again"):
        api.upload_folder(
            repo_id="acme/new", repo_type="dataset", folder_path=folder, commit_message=title
        )
    api.upload_file(
        repo_id="acme/tiny",
        path_in_repo="copy.bin",
        path_or_fileobj=folder / "deep/model.safetensors",
    )
    assert len(server.asked("^PUT")) == 1
    assert len(server.repos["dataset", "acme/new"].commits) == 2
    assert contents_of(server.repos["model", "acme/tiny"], "main")["copy.bin"] == WEIGHTS[::-1]


def test_branches_tags_and_files_come_and_go(writer):
    server, api = writer
    server.repos["model", "acme/tiny"].commit({"config.json.old": b"{}", "ab.txt": b""})
    api.create_tag("acme/tiny", tag="v1")
    api.create_branch("acme/tiny", branch="next", revision="v1")
    api.delete_file("config.json", "acme/tiny", revision="next")
    api.delete_folder("a", "acme/tiny", revision="next")
    with pytest.raises(errors.HfHubHTTPError, match="409"):
        api.create_branch("acme/tiny", branch="next")
    assert api.list_repo_files("acme/tiny", revision="next") == [
        "README.md",
        "ab.txt",
        "config.json.old",
        "w.safetensors",
    ]
    assert "config.json" in api.list_repo_files("acme/tiny", revision="v1")
    api.delete_branch("acme/tiny", branch="next")
    api.delete_tag("acme/tiny", tag="v1")
    refs = api.list_repo_refs("acme/tiny")
    assert ([one.name for one in refs.branches], refs.tags) == (["main"], [])
    api.delete_repo("acme/tiny")
    assert not api.repo_exists("acme/tiny")


def test_who_may_not_write_is_told_so(writer):
    server, api = writer
    server.add(Repo("other/open", files=FILES))
    for asking, repo in ((client(server, "reader"), "acme/tiny"), (api, "other/open")):
        with pytest.raises(errors.HfHubHTTPError) as refused:
            asking.upload_file(repo_id=repo, path_in_repo="a.txt", path_or_fileobj=b"a")
        assert refused.value.response.status_code == 403


def test_a_commit_on_what_has_moved_on_is_refused(writer):
    server, api = writer
    before = server.repos["model", "acme/tiny"].branches["main"].sha
    change = {"repo_id": "acme/tiny", "path_in_repo": "a.txt", "parent_commit": before}
    api.upload_file(path_or_fileobj=b"first", **change)
    with pytest.raises(errors.HfHubHTTPError) as refused:
        api.upload_file(path_or_fileobj=b"second", **change)
    assert refused.value.response.status_code == 412
    assert contents_of(server.repos["model", "acme/tiny"], "main")["a.txt"] == b"first"


# --- in processes of their own


def run(server: Hub, home: Path, *command: str, **environment: str) -> str:
    """What a command prints that has the double for its Hub."""
    done = subprocess.run(
        command,
        env={
            **os.environ,
            "HF_ENDPOINT": server.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_XET": "0",
            "HF_HUB_OFFLINE": "0",
            "NO_COLOR": "1",
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_download_through_xet_asks_nothing_of_the_other_host(tmp_path):
    pytest.importorskip("hf_xet")
    repo = tiny(xet=True)
    code = "import sys, huggingface_hub as h; print(h.snapshot_download('acme/tiny'))"
    with hub.serve(repo) as server:
        folder = run(server, tmp_path, sys.executable, "-c", code).strip()
        assert contents(folder) == contents_of(repo, "main")
        assert server.asked("xet-read-token")
        assert not server.asked("/cdn/")


UPLOAD = """
import sys, huggingface_hub as h
h.upload_folder(repo_id="acme/tiny", folder_path=sys.argv[1], token="writer")
"""


def test_an_upload_through_xet_arrives_too(tmp_path, folder):
    pytest.importorskip("hf_xet")
    repo = tiny()
    with hub.serve(repo, tokens={"writer": Token(role="write", user="acme")}) as server:
        run(server, tmp_path, sys.executable, "-c", UPLOAD, str(folder))
        assert contents_of(repo, "main")["deep/model.safetensors"] == WEIGHTS[::-1]
        assert not server.asked("^PUT")


def test_the_command_line_downloads_and_verifies(tmp_path):
    hf = str(Path(sys.executable).with_name("hf"))
    with hub.serve(tiny()) as server:
        plain = {"HF_HUB_DISABLE_XET": "1"}
        folder = run(server, tmp_path, hf, "download", "acme/tiny", "-q", **plain).strip()
        assert contents(folder)["w.safetensors"] == WEIGHTS
        run(server, tmp_path, hf, "cache", "verify", "acme/tiny", **plain)


LOAD = """
import datasets, transformers
print(datasets.load_dataset("acme/rows", split="train")["a"][:])
model = transformers.AutoModelForCausalLM.from_pretrained("acme/tiny")
print(type(model).__name__, len(transformers.AutoTokenizer.from_pretrained("acme/tiny")) > 0)
"""


def test_a_model_and_a_data_set_load_by_their_names(tmp_path, request):
    pytest.importorskip("datasets")
    pytest.importorskip("transformers")
    model = Repo.of("acme/tiny", request.getfixturevalue("tiny_model"))
    rows = Repo("acme/rows", type="dataset", files={"data/train.jsonl": b'{"a": 1}\n{"a": 2}\n'})
    with hub.serve(model, rows) as server:
        shown = run(server, tmp_path, sys.executable, "-c", LOAD)
    assert shown.splitlines()[0] == "[1, 2]"
    assert shown.splitlines()[1].endswith("ForCausalLM True")


def test_a_folder_is_served_by_a_process_of_its_own(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("a")
    script = Path(hub.__file__).parent
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        endpoint = process.stdout.readline().strip()
        assert ask(f"{endpoint}/acme/big/resolve/main/deep/a.txt")[2] == b"a"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
