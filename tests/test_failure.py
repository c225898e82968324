"""The page of a run that failed: what it says, what it hides, and the command that goes on."""

import errno
import os
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from fakes import borrower, recipe, source, step

from runner import cli, hardware, running
from runner.errors import StepError, Stopped, StoreError, page_of
from runner.plan import plan
from runner.report import causes, failure
from runner.sources.hub import errors as hub_errors
from runner.sources.hub.repo import Source
from runner.training import health

GATED = hub_errors._gated(Source(repo="meta/model"), logged_in=False)
NUMBERLESS = health.no_number("loss", float("nan"), 7, health.Batch((), ()), None)
URL = """\
steps: [fetch]
fetch:
  data: {url: "ADDRESS", sha256: SHA}
"""


@pytest.fixture
def failed(monkeypatch, store, tmp_path):
    """Carry two steps out, the second of which fails with this error; its page."""
    monkeypatch.setattr(hardware, "prepare", lambda: "")
    monkeypatch.chdir(tmp_path)

    def call(error, words=("run", "trial"), fresh=(), first=lambda: None, **options):
        def fail(context):
            context.note("about to fail")
            first()
            raise error

        second = step("s1", borrower("b", fault=fail), {"text": "s0"}, **options)
        steps = step("s0", source("a")), second, step("s2", source("c"))
        planned = plan(recipe(*steps), store, fresh)
        with pytest.raises(type(error)) as raised:
            running.carry_out(planned, store, lambda event: None, tmp_path / "runs", words)
        call.error = raised.value
        path = page_of(raised.value)
        return path.read_text() if path else None

    return call


def test_a_harmless_line_of_a_log_explains_no_error_that_explains_itself():
    log = ["Failed to load: No module named 'kernels'"]
    assert causes.of(StepError("quantized, the perplexity is 139"), log) == []
    assert [cause.name for cause in causes.of(ValueError("?"), log)] == ["a library is missing"]


def test_the_page_says_step_error_options_last_lines_and_command(failed):
    error = StepError("there is not enough memory for 8 rows at once.", "Try: rank=4")
    page = failed(error, rank=16, rate=0.5, workers=3)
    before, whole = page.split("## The whole of it\n")
    assert before == (
        "# trial: s1 failed\n\n"
        "s1: there is not enough memory for 8 rows at once.\n  Try: rank=4\n\n"
        "## Likely causes\n"
        f"1. the memory is full: {causes.CAUSES[0].cure}\n\n"
        "## Options of s1 that matter\n    rank: 16\n    rate: 0.5\n    workers: 3\n\n"
        "## The last lines of log.txt\n"
        + before.split("log.txt\n")[1].split("\n## To go on")[0]
        + "\n## To go on\n    runner run trial\n"
        "What was done is kept: 1 of 3 steps.\n\n"
    )
    assert "s1: about to fail\n" in before
    assert "ended by StepError: s1: there is not enough memory" in before
    assert "Traceback (most recent call last):" in whole
    assert "    raise error" in whole


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (MemoryError(), "the memory is full"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "the memory is full"),
        (StepError("process 3 was ended by SIGKILL."), "the memory is full"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"), "the disk is full"),
        (StoreError("s: needs 2.0 GB on disk, and /x has 1.0 GB free."), "the disk is full"),
        (GATED, "the repository is gated"),
        (StepError("your token may not read a/b."), "a token is missing, or may not do this"),
        (NUMBERLESS, "the loss is no number, or explodes"),
        (StepError("the loss explodes: 90 at step 9"), "the loss is no number, or explodes"),
        (StepError("the chat template hides answers"), "the chat template and the data do not fit"),
        (ModuleNotFoundError("No module named 'gptqmodel'"), "a library is missing"),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
            "the network, or the host at its other end, does not answer",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "a file or folder may not be"),
        (RuntimeError("CUDA error: device-side assert triggered"), "the GPU, its driver and torch"),
    ],
)
def test_the_likeliest_cause_leads(error, name):
    assert causes.of(error)[0].name.startswith(name)


def raised_from(error, cause):
    """An error as it is when it was raised from another."""
    error.__cause__, error.__suppress_context__ = cause, True
    return error


def test_an_error_that_says_nothing_has_the_cause_of_what_led_to_it():
    error = raised_from(StepError("it did not work."), MemoryError("no more"))
    assert [cause.name for cause in causes.of(error)] == ["the memory is full"]


def test_a_cause_that_was_suppressed_is_not_told():
    error = raised_from(StepError("it did not work."), None)
    error.__context__ = ConnectionError("https://host/?X-Amz-Signature=abc")
    assert causes.of(error) == []


def test_the_log_counts_where_no_error_says_anything():
    silent, log = RuntimeError("worker 1 died"), ["step 3", "torch.OutOfMemoryError: CUDA"]
    assert [cause.name for cause in causes.of(silent, log)] == ["the memory is full"]
    assert causes.of(LookupError("the thing is gone"), ["finance and names"]) == []


def test_the_names_and_cures_of_causes_are_sentences_of_their_own():
    assert len({cause.name for cause in causes.CAUSES}) == len(causes.CAUSES) == 11
    for cause in causes.CAUSES:
        assert cause.cure.strip()


def test_options_that_causes_speak_of_are_options_of_a_stage():
    from dataclasses import fields

    from runner.stages import known

    options = {f.name for stage in known().values() for f in fields(stage.Options)}
    assert {name for cause in causes.CAUSES for name in cause.options} <= options


def test_secrets_are_hidden_in_the_whole_page(failed):
    token = "hf_" + "abcdefghij" * 3
    error = StepError(f"refused with {token}", f"Try another than {token}")
    page = failed(error, words=("run", "trial", f"x={token}"), log=f"/tmp/{token}")
    assert token not in page
    assert page.count("[hidden]") >= 4


def test_what_goes_on_does_not_do_again_what_was_done(failed):
    words = ("run", "trial", "--fresh", "all", "x=a b", "--fresh=s0")
    page = failed(StepError("no"), words=words, fresh=("s0", "s1", "s2"))
    assert "\n    runner run trial 'x=a b' --fresh s2\n" in page


def test_a_run_that_was_not_a_command_goes_on_by_its_recipe(failed):
    assert "\n    runner run trial.yaml\n" in failed(StepError("no"), words=())


def test_a_fault_that_is_no_users_says_its_class(failed):
    page = failed(LookupError("the thing is gone"))
    assert "LookupError: the thing is gone\n  This should not happen: it is no fault" in page
    assert "## Likely causes" not in page


def test_the_report_lists_the_likely_causes_and_the_command_that_goes_on(failed, tmp_path):
    page = failed(StepError("the disk is full: <b>No space left on device</b>"), fresh=["s0", "s2"])
    report = next((tmp_path / "runs").glob("*/*/report.html")).read_text()
    section = report.split('<section id="failure">')[1].split("</section>")[0]
    cause = causes.CAUSES[1]
    assert failure.likely(page) == [(cause.name, cause.cure)]
    assert f"<li><strong>{cause.name}</strong>: {cause.cure}</li>" in section
    assert failure.command(page) == "runner run trial --fresh s2"
    assert '<pre tabindex="0">runner run trial --fresh s2</pre>' in section
    assert "<b>No space" not in section


def test_a_report_of_a_failure_that_nothing_explains_lists_no_causes(failed, tmp_path):
    failed(StepError("the thing is gone."))
    report = next((tmp_path / "runs").glob("*/*/report.html")).read_text()
    assert "What went wrong" in report
    assert "Likely causes" not in report


def test_a_run_that_was_stopped_or_that_ended_well_has_no_page(failed, tmp_path):
    assert failed(Stopped("SIGTERM")) is None
    assert [*tmp_path.rglob(failure.NAME)] == []


def test_a_page_that_cannot_be_written_leaves_the_error_as_it_was(failed, tmp_path):
    def stand_in_the_way():
        (folder,) = (tmp_path / "runs" / "trial").iterdir()
        (folder / failure.NAME).mkdir()

    assert failed(StepError("no"), first=stand_in_the_way) is None
    assert str(failed.error) == "s1: no"


@pytest.fixture
def served(tmp_path):
    """The address of a file of rows."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "rows.jsonl").write_text("{}\n")
    serve = partial(QuietHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/rows.jsonl"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, *words):
        """Nothing."""


def test_a_users_mistake_shows_a_page_and_no_traceback(tmp_path, served):
    (tmp_path / "far.yaml").write_text(URL.replace("ADDRESS", served).replace("SHA", "c0" * 32))
    done = subprocess.run(
        [sys.executable, "-m", "runner", "run", "far", "--runs", "elsewhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert done.stderr.startswith(f"# far: fetch.data failed\n\nfetch.data: {served} has sha256")
    assert "\n    runner run far --runs elsewhere\n" in done.stderr
    (page,) = (tmp_path / "elsewhere" / "far").glob("*/failure.md")
    last = done.stderr.rstrip().splitlines()[-1]
    assert last == f"The whole of it, with the traceback: {page.relative_to(tmp_path)}"
    assert "Traceback (most recent call last):" in page.read_text()
    assert len(done.stderr.splitlines()) < 50


def test_our_own_fault_in_a_run_exits_3_with_the_page_of_the_run(failed, monkeypatch, capsys):
    def fail(words):
        failed(LookupError("the thing is gone"))
        raise failed.error

    monkeypatch.setitem(cli.COMMANDS, "run", fail)
    assert cli.main(["run", "trial"]) == 3
    shown = capsys.readouterr().err
    assert "LookupError: the thing is gone" in shown
    assert shown.rstrip().endswith("failure.md")
    assert [*Path("runs").glob("failure-*.txt")] == []
