"""Sources, lock files and bundles that somebody has changed by hand, on purpose or by accident."""

import gzip
import hashlib
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub import Repo, serve
from test_lock import REPO, Place
from tiny import make_data

from runner import files, hardware, network, products, secrets, upkeep
from runner.checkpoint import Checkpoints
from runner.cli import main
from runner.errors import StepError, Stopped
from runner.secrets import HIDDEN, mask
from runner.sources import url, wheel
from runner.stage import Context
from runner.stages import fetch
from runner.store import Store

COMMIT = "0123456789" * 4
TOKEN = "hf_" + "Abcdefghij" * 3


class Here:
    """A working directory with recipes that only fetch, and the command line."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capfd = folder, capfd
        self.store = Store(folder / "store")
        make_data(folder / "rows.jsonl", rows=4)

    def write(self, fetch: dict[str, Any], name: str = "mine.yaml", **more: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"steps": ["fetch"], "fetch": fetch} | more))
        return path

    def call(self, *words: str, code: int = 0) -> str:
        self.capfd.readouterr()
        got = main(words)
        said = "".join(self.capfd.readouterr())
        assert got == code, said
        return said

    def rows(self, name: str = "mine.lock") -> dict[str, dict[str, Any]]:
        return yaml.safe_load((self.folder / name).read_text())["sources"]

    def lock(self, sources: Any) -> None:
        body = {"schema": 1, "sources": sources, "libraries": {}}
        (self.folder / "mine.lock").write_text(yaml.safe_dump(body))

    def products(self, recipe: str = "mine", step: str = "fetch.data") -> Path:
        """What the last run of a recipe has left of a step."""
        newest = max(
            (self.folder / "runs" / recipe).iterdir(), key=lambda path: path.stat().st_mtime_ns
        )
        return newest / "products" / step


@pytest.fixture
def here(tmp_path, monkeypatch, capfd) -> Here:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNNER_STORE", str(tmp_path / "store"))
    for name in ("RUNNER_OFFLINE", *network.LIBRARIES):
        monkeypatch.setenv(name, "0" if name == "RUNNER_OFFLINE" else "1")
    monkeypatch.setattr(hardware, "prepare", lambda: "")
    return Here(tmp_path, capfd)


def context(folder: Path, **settings: Any) -> Context:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Context(folder / "work", Checkpoints(folder / "c", print), **settings)


def in_memory(name: str, content: bytes) -> str:
    """The address of a file that fsspec holds in this process."""
    import fsspec

    with fsspec.open(f"memory://folder/{name}", "wb") as file:
        file.write(content)
    return f"memory://folder/{name}"


# --- lock files that were edited by hand


ROW = {"repo": "a/b", "type": "model", "revision": "main"}


@pytest.mark.parametrize(
    "sources",
    [
        {"fetch.data": {**ROW, "commit": 1234}},
        {"fetch.data": {**ROW, "commit": ["main"]}},
        {"fetch.data": {**ROW, "commit": COMMIT, 7: "x"}},
        {"fetch.data": {"path": 5, "digest": "x"}},
        {"fetch.data": {**ROW, "commit": "../../../etc"}},
        {"fetch.data": {**ROW, "commit": COMMIT.upper()}},
        {1: {"path": "rows.jsonl"}},
    ],
    ids=str,
)
def test_a_lock_file_with_odd_values_is_never_our_own_fault(sources, here):
    here.write({"data": {"repo": "a/b"}})
    here.lock(sources)
    assert "should not happen" not in here.call("run", "mine.yaml", code=1)


def test_a_row_for_another_kind_of_source_counts_for_nothing(here):
    here.write({"data": {"path": "rows.jsonl"}})
    here.call("run", "mine.yaml")
    here.lock(
        {"fetch.data": {"repo": "a/b", "type": "model", "revision": "main", "commit": COMMIT}}
    )
    assert "reuse" in here.call("plan", "mine.yaml")
    assert "fetch.data: path None -> rows.jsonl" in here.call(
        "run", "mine.yaml", "--locked", code=1
    )


def test_a_row_that_has_lost_its_pin_is_pinned_anew(here):
    address = in_memory("rows.jsonl", b"{}\n")
    here.write({"data": {"url": address}})
    here.lock({"fetch.data": {"url": address}})
    here.call("lock", "mine.yaml")
    assert here.rows()["fetch.data"].get("sha256") == hashlib.sha256(b"{}\n").hexdigest()


def test_a_lock_file_is_beside_its_recipe_from_wherever_it_is_run(here, monkeypatch):
    (here.folder / "deep" / "data").mkdir(parents=True)
    make_data(here.folder / "deep" / "data" / "rows.jsonl", rows=3)
    (here.folder / "deep" / "fetch").mkdir()
    (here.folder / "deep" / "fetch" / "ours.yaml").write_text("data: {path: ../data/rows.jsonl}\n")
    text = "defaults: [{/fetch: ours}, _self_]\nsteps: [fetch]\n"
    (here.folder / "deep" / "mine.yaml").write_text(text)
    here.call("lock", "deep/mine.yaml")
    assert here.rows("deep/mine.lock")["fetch.data"]["path"] == "data/rows.jsonl"
    for folder, name in (
        ("deep", "mine.yaml"),
        ("deep/data", "../mine.yaml"),
        (".", "deep/mine.yaml"),
    ):
        monkeypatch.chdir(here.folder / folder)
        here.call("plan", name, "--locked")


def test_a_plan_with_overrides_takes_nothing_from_what_the_lock_file_keeps(here):
    make_data(here.folder / "other.jsonl", rows=9)
    here.write({"data": {"path": "rows.jsonl"}})
    here.call("lock", "mine.yaml")
    here.call("run", "mine.yaml")
    here.call("plan", "mine.yaml", "fetch.data.path=other.jsonl")
    assert "0 things" in here.call("store", "gc", "--keep", "0")


# --- local files


def test_a_folder_that_holds_the_store_is_refused_before_it_is_copied(here):
    here.write({"data": {"path": "."}})
    assert "should not happen" not in here.call("run", "mine.yaml", code=1)
    assert not list(here.folder.glob("store/drafts/*/*/files/store/drafts/*/*"))


@pytest.mark.parametrize(
    "changed",
    [
        {"commit": "../../../elsewhere"},
        {"files": {"../../../../elsewhere/secret": {"size": 6, "digest": "0" * 40}}},
        {"repo": "../../elsewhere"},
    ],
    ids=str,
)
def test_what_a_reference_names_cannot_lead_out_of_the_hub_cache(changed, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("secret")
    (tmp_path / "hub" / "models--a--b" / "snapshots").mkdir(parents=True)
    product = tmp_path / "entry" / "product"
    product.mkdir(parents=True)
    about = {"secret": {"size": 6, "digest": "0" * 40}}
    row = {"repo": "a/b", "type": "model", "commit": COMMIT, "files": about} | changed
    files.write_json(product / products.REFERENCE, row)
    with pytest.raises(StepError):
        fetch.restore(product, {})
    assert not [path for path in product.parent.rglob("*") if path.is_symlink()]


def test_a_local_folder_of_links_as_the_hub_cache_makes_them_is_fetched(here):
    blobs, snapshot = here.folder / "blobs", here.folder / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "1").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    here.write({"data": {"path": "snapshots/abc"}})
    main(["run", "mine.yaml"])
    assert "should not happen" not in "".join(here.capfd.readouterr())


def test_a_file_that_is_named_as_the_stores_own_is_a_file_as_any(here):
    (here.folder / "given").mkdir()
    (here.folder / "given" / "hub.json").write_text('{"a": 1}')
    here.write({"data": {"path": "given"}})
    here.call("run", "mine.yaml")
    assert "reuse" in here.call("plan", "mine.yaml")
    here.call("cache")


# --- bundles


def test_a_bundle_of_a_recipe_that_keeps_results_alone_has_its_sources(here, monkeypatch):
    monkeypatch.setattr(upkeep, "LARGE", 0)
    (here.folder / "model").mkdir()
    (here.folder / "model" / "config.json").write_text("{}")
    sources = {"model": {"path": "model"}, "data": {"path": "rows.jsonl"}}
    here.write(sources, steps=["fetch", "process"], store={"keep": "results"})
    here.call("bundle", "mine.yaml", "--to", "carried")
    here.call("plan", "--bundle", "carried", "--locked")


def test_a_folder_that_holds_a_file_of_its_own_name_is_carried_whole(here):
    (here.folder / "rows").mkdir()
    (here.folder / "rows" / "rows").write_text("1")
    (here.folder / "rows" / "more").write_text("2")
    here.write({"data": {"path": "rows"}})
    here.call("bundle", "mine.yaml", "--to", "carried")
    here.call("plan", "--bundle", "carried", "--locked")


def test_names_with_spaces_numbers_and_quotes_are_carried(here, tmp_path, monkeypatch):
    (here.folder / "it's, all {here}").mkdir()
    make_data(here.folder / "it's, all {here}" / "two words.jsonl", rows=3)
    here.write(
        {
            1: {"path": "it's, all {here}/two words.jsonl"},
            "whole": {"path": "it's, all {here}"},
            "again": {"path": str(here.folder / "it's, all {here}" / "two words.jsonl")},
        }
    )
    here.call("bundle", "mine.yaml", "--to", "a bundle, moved")
    shutil.rmtree(here.folder / "it's, all {here}")
    there = tmp_path / "there"
    there.mkdir()
    shutil.move(here.folder / "a bundle, moved", there)
    monkeypatch.setenv("RUNNER_STORE", str(there / "store"))
    monkeypatch.chdir(there / "a bundle, moved" / "entries")
    said = here.call("run", "--bundle", "..", "--locked", "--runs", str(there / "runs"))
    assert "0 steps run, 3 reused" in said


def test_a_bundle_of_a_bundle_has_the_same_keys(here, monkeypatch):
    (here.folder / "rows").mkdir()
    make_data(here.folder / "rows" / "a.jsonl")
    here.write({"data": {"path": "rows.jsonl"}, "more": {"path": "rows"}})
    here.call("bundle", "mine.yaml", "--to", "one")
    here.call("bundle", "one/recipe.yaml", "--to", "two")
    here.call("bundle", "two/recipe.yaml", "--to", "two")
    names = [
        sorted(p.name for p in (here.folder / n / "entries").iterdir()) for n in ("one", "two")
    ]
    assert names[0] == names[1]
    monkeypatch.setenv("RUNNER_STORE", str(here.folder / "elsewhere"))
    assert "0 steps run, 2 reused" in here.call("run", "--bundle", "two", "--locked")


def test_the_bundle_of_a_recipe_with_dots_in_its_name_runs(here):
    here.write({"data": {"path": "rows.jsonl"}}, "mine.v1.yaml")
    here.call("bundle", "mine.v1.yaml", "--to", "carried")
    here.call("plan", "--bundle", "carried")


def test_a_bundle_that_was_broken_off_is_gone_on_with(here, monkeypatch):
    here.write({"data": {"path": "rows.jsonl"}})
    real = files.write_text

    def full(path: Path, text: str, **given: Any) -> None:
        if path.name == "recipe.yaml":
            raise OSError(28, "No space left on device")
        real(path, text, **given)

    monkeypatch.setattr(files, "write_text", full)
    here.call("bundle", "mine.yaml", "--to", "carried", code=1)
    monkeypatch.setattr(files, "write_text", real)
    here.call("bundle", "mine.yaml", "--to", "carried")


def test_a_file_where_the_bundle_should_go_is_said_so(here):
    here.write({"data": {"path": "rows.jsonl"}})
    here.call("bundle", "mine.yaml", "--to", "rows.jsonl", code=1)


def test_a_result_that_has_rotted_in_the_store_is_not_carried_as_if_it_were_right(here):
    address = in_memory("good.txt", b"good bytes")
    digest = hashlib.sha256(b"good bytes").hexdigest()
    here.write({"data": {"url": address, "sha256": digest}})
    here.call("run", "mine.yaml")
    (kept,) = here.store.entries.rglob("good.txt")
    kept.chmod(0o644)
    kept.write_bytes(b"evil bytes")
    main(["bundle", "mine.yaml", "--to", "carried"])
    carried = [path.read_bytes() for path in (here.folder / "carried").rglob("good.txt")]
    assert b"evil bytes" not in carried


def sealed(entry: Path, **changed: Any) -> None:
    """Change an entry's record as somebody does who knows how records are sealed."""
    record = json.loads((entry / "record.json").read_text())
    del record["seal"]
    record |= changed
    files.write_json(entry / "record.json", record | {"seal": files.digest_json(record)})


@pytest.fixture
def carried(here, monkeypatch) -> Path:
    """The one entry of a bundle, and a machine that has not seen it."""
    here.write({"data": {"path": "rows.jsonl"}})
    here.call("bundle", "mine.yaml", "--to", "carried")
    monkeypatch.setenv("RUNNER_STORE", str(here.folder / "elsewhere"))
    (entry,) = (here.folder / "carried" / "entries").iterdir()
    return entry


def stored(here: Here) -> list[str]:
    return [path.name for path in (here.folder / "elsewhere" / "entries").glob("*")]


def test_a_result_of_a_bundle_under_another_key_than_its_own_is_not_taken(here, carried):
    """Else a bundle could say what any step of any recipe has made."""
    other = carried.with_name("0" * 32)
    shutil.copytree(carried, other)
    sealed(other, key=other.name, step="adapt")
    main(["run", "--bundle", "carried"])
    assert other.name not in stored(here)


def test_links_in_a_bundle_are_not_followed(here, carried):
    (here.folder / "private").mkdir()
    (here.folder / "private" / "id").write_text("mine alone")
    (carried / "product" / "more").symlink_to(here.folder / "private")
    main(["run", "--bundle", "carried"])
    assert not list((here.folder / "elsewhere" / "entries").rglob("id"))


@pytest.mark.parametrize("missing", ["facts", "files", "parts"])
def test_a_record_of_a_bundle_that_lacks_a_part_is_damage(missing, here, carried):
    record = json.loads((carried / "record.json").read_text())
    del record[missing], record["seal"]
    files.write_json(carried / "record.json", record | {"seal": files.digest_json(record)})
    assert "the bundle is damaged" in here.call("run", "--bundle", "carried", code=1)


def test_a_stray_file_beside_the_results_of_a_bundle_does_no_harm(here, carried):
    carried.with_name(".DS_Store").touch()
    here.call("run", "--bundle", "carried", "--locked")


def test_an_override_that_changes_a_source_of_a_bundle_fetches_that_one(here, carried):
    make_data(here.folder / "other.jsonl", rows=9)
    change = "fetch.data.path=other.jsonl"
    assert "1 steps run, 0 reused" in here.call("run", change, "--bundle", "carried")
    said = here.call("run", "--bundle", "carried", change, "--locked", code=1)
    assert "-> ../other.jsonl" in said


# --- behind a URL


@pytest.fixture
def web() -> Iterator[Callable[..., str]]:
    """A server that says whatever the test wants: `web(answer)` gives its address."""
    answers: dict[str, Callable[[Any], None]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers[self.path.split("?")[0].split("/")[1]](self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()

    def add(answer: Callable[[Any], None], name: str = "rows.jsonl") -> str:
        answers[str(len(answers))] = answer
        return f"http://127.0.0.1:{server.server_port}/{len(answers) - 1}/{name}"

    yield add
    server.shutdown()
    thread.join()
    server.server_close()


def answer(body: bytes, status: int = 200, length: int | None = None, **headers: str) -> Any:
    def act(request: Any) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        if length is not None:
            request.send_header("Content-Length", str(length))
        request.end_headers()
        request.wfile.write(body)
        request.close_connection = True

    return act


BODY = b'{"a": 1}\n' * 1000
RIGHT = hashlib.sha256(BODY).hexdigest()


def download(address: str, folder: Path, sha256: str = RIGHT, **settings: Any) -> list[str]:
    (folder / "target").mkdir()
    url.download(address, sha256, folder / "target", context(folder, **settings))
    return [path.name for path in (folder / "target").iterdir()]


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("..%2f..%2fx.jsonl", "x.jsonl"),
        ("a/%2e%2e", "file"),
        ("%2fetc%2fa%20b.jsonl?token=1#part", "a b.jsonl"),
        ("a%00b.jsonl", None),
        pytest.param("a" * 300, None, id="long"),
    ],
)
def test_a_name_in_a_url_stays_within_the_folder(name, kept, web, tmp_path):
    address = web(answer(BODY, length=len(BODY)), name)
    try:
        download(address, tmp_path)
    except StepError:
        return
    found = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert found == [Path("target") / (kept or found[0].name)]


@pytest.mark.parametrize(
    "to",
    [
        "file:///etc/hostname",
        pytest.param(
            "ftp://127.0.0.1:9/x",
        ),
        "data:,x",
    ],
)
def test_a_redirect_to_another_scheme_is_not_followed(to, web, tmp_path, monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(url, "PAUSE", 0.01)
    monkeypatch.setattr("urllib.request.FTPHandler.ftp_open", lambda *a: asked.append(a))
    with pytest.raises(StepError) as error:
        download(web(answer(b"", 302, 0, Location=to)), tmp_path)
    assert "\n" not in str(error.value)
    assert asked == []


@pytest.mark.parametrize("length", [None, 10**18, -1])
def test_a_length_that_is_not_said_or_cannot_be_takes_no_time(length, web, tmp_path):
    begun, address = time.monotonic(), web(answer(BODY, length=length))
    if length == 10**18:
        with pytest.raises(StepError, match="on disk"):
            download(address, tmp_path)
    else:
        assert download(address, tmp_path) == ["rows.jsonl"]
    assert time.monotonic() - begun < 3


def test_a_stop_is_seen_while_a_server_is_busy(web, tmp_path):
    busy = web(answer(b"", 503, 0, Retry_After="0"))
    with pytest.raises(Stopped):
        download(busy, tmp_path, stop_signal=lambda: "SIGTERM")


def test_bytes_that_come_compressed_are_those_that_are_digested(web, tmp_path):
    packed = gzip.compress(BODY)
    address = web(answer(packed, length=len(packed), Content_Encoding="gzip"))
    found = url.sha256_of(address)
    assert found == hashlib.sha256(packed).hexdigest()
    assert download(address, tmp_path, found) == ["rows.jsonl"]


def test_a_digest_is_not_taken_of_half_a_file(web, monkeypatch):
    """The connection ends before the length that was said: another try, or an error."""
    monkeypatch.setattr(url, "PAUSE", 0.01)
    address = web(answer(BODY[:4000], length=len(BODY)))
    with pytest.raises(StepError):
        url.sha256_of(address)


# --- wheels


@pytest.fixture
def pack(tmp_path, monkeypatch) -> Callable[..., str]:
    """Make a wheel that pip finds; gives its sha256."""
    path = tmp_path / "index" / "somedata-1.0-py3-none-any.whl"
    path.parent.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))

    def make(**members: str) -> str:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name.replace("__", "/"), text)
            about = "Metadata-Version: 2.1\nName: somedata\nVersion: 1.0\n"
            archive.writestr("somedata-1.0.dist-info/METADATA", about)
            archive.writestr("somedata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
            archive.writestr("somedata-1.0.dist-info/RECORD", "")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    return make


def unpack(folder: Path, archive: Path, *members: str, monkeypatch: Any) -> list[str]:
    (folder / "target").mkdir()
    monkeypatch.setattr(
        wheel, "_download", lambda *_: shutil.copy(archive, folder / "w.whl") and folder / "w.whl"
    )
    wheel.unpack("somedata==1.0", None, members, folder / "target", context(folder))
    return sorted(path.name for path in (folder / "target").iterdir())


def test_two_files_of_one_name_in_a_wheel_are_refused_in_one_line(pack, tmp_path, monkeypatch):
    pack(a__rows="1", b__rows="2")
    (archive,) = tmp_path.glob("index/*.whl")
    with pytest.raises(StepError, match="rows"):
        unpack(tmp_path, archive, "*/rows", monkeypatch=monkeypatch)


def test_a_locked_wheel_is_not_another_one_that_the_store_has(here, pack):
    """A version was replaced in the index: what was fetched before is not what is locked."""
    pack(data__rows="old")
    here.write({"data": {"wheel": "somedata==1.0", "members": ["data/*"]}})
    here.call("run", "mine.yaml")
    locked = pack(data__rows="new")
    here.call("lock", "mine.yaml")
    assert here.rows()["fetch.data"]["sha256"] == locked
    here.call("run", "mine.yaml", "--locked")
    assert (here.products() / "files" / "rows").read_text() == "new"


# --- no network


def test_the_variable_alone_keeps_the_hub_from_being_asked(tmp_path):
    with serve(Repo(REPO, files={"config.json": b"{}"})) as hub:
        place = Place(tmp_path, hub.endpoint)
        place.write({"model": {"repo": REPO}})
        place.call("run", "mine.yaml", code=1, RUNNER_OFFLINE="1")
        assert hub.requests == []


# --- secrets


@pytest.fixture
def anew(monkeypatch, tmp_path) -> Iterator[None]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    secrets.known.cache_clear()
    yield
    secrets.known.cache_clear()


def test_a_secret_whose_variable_ends_in_a_newline_is_hidden(anew, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "an-unusual-token\n")
    assert mask("it was an-unusual-token.") == f"it was {HIDDEN}."


@pytest.mark.parametrize("value", ["messages", "<|im_end|>", "first long line\nsecond long line"])
def test_a_value_is_hidden_whole_or_where_it_is_a_short_word_not_at_all(value, anew, monkeypatch):
    monkeypatch.setenv("EOS_TOKEN", value)
    assert mask(f"a {value} b") == f"a {value if len(value) < 12 else HIDDEN} b"


def test_a_recipe_with_a_token_for_a_name_is_refused(anew, here):
    here.write({TOKEN: {"path": "rows.jsonl"}})
    said = here.call("run", "mine.yaml", code=1)
    assert TOKEN not in said
    assert not [path for path in here.folder.rglob("*") if TOKEN in path.name]


def test_what_a_step_measures_is_hidden_too(anew, tmp_path, monkeypatch, store):
    from fakes import recipe, source, step

    from runner import running
    from runner.plan import plan

    monkeypatch.setattr(hardware, "prepare", lambda: "")
    what = recipe(step("only", source("only", fault=lambda c: c.metrics({"from": TOKEN}))))
    running.carry_out(plan(what, store), store, lambda event: None, tmp_path / "runs")
    (path,) = (tmp_path / "runs").rglob("metrics.jsonl")
    assert TOKEN not in path.read_text()
    assert HIDDEN in path.read_text()
