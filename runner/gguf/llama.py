"""Kinds that only llama.cpp makes, in a process of its own: an assertion in it ends a process."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from runner import child
from runner.errors import StepError
from runner.gguf.kinds import Kind

PERIOD = 0.5
"""Seconds between two looks at how far the file is."""
LINES_SHOWN = 8


def quantize(
    whole: Path,
    target: Path,
    kind: Kind,
    progress: Callable[..., None],
    note: Callable[[str], None],
) -> None:
    """Make a file of fewer bits from one whose weights are whole. StepError where it fails."""
    import gguf

    number = int(gguf.LlamaFileType[kind.file_type])
    log = target.with_name(f"{target.name}.log")
    command = [sys.executable, "-m", __name__, str(os.getpid()), str(whole), str(target)]
    with open(log, "wb") as said:
        process = subprocess.Popen(
            [*command, str(number)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _follow(process, target, whole.stat().st_size, progress)
        finally:
            process.kill()
            code = process.wait()
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            log.unlink()
    if code:
        raise StepError(_death(code, lines))
    _tell_forms(target, note)


def _follow(
    process: "subprocess.Popen[bytes]", target: Path, total: int, progress: Callable[..., None]
) -> None:
    while True:
        try:
            process.wait(PERIOD)
            return
        except subprocess.TimeoutExpired:
            done = target.stat().st_size if target.exists() else 0
            progress(done, total, "bytes")


def _death(code: int, lines: list[str]) -> str:
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    shown = "\n".join(f"  | {line}" for line in lines[-LINES_SHOWN:])
    return f"llama.cpp could not make the file ({how}).\n{shown}"


def _tell_forms(target: Path, note: Callable[[str], None]) -> None:
    """Say what the matrices became: rows that 256 does not divide get other forms than asked."""
    import gguf

    found = Counter(
        tensor.tensor_type.name
        for tensor in gguf.GGUFReader(target).tensors
        if len(tensor.shape) > 1
    )
    if any(not name.endswith("_K") for name in found):
        forms = ", ".join(f"{count} {name}" for name, count in found.most_common())
        note(f"rows that 256 does not divide took another form; the matrices are {forms}")


def _main(parent: str, whole: str, target: str, number: str) -> int:
    child.serve(int(parent))
    import ctypes

    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = int(number)
    settings.nthread = len(os.sched_getaffinity(0))
    return int(
        llama_cpp.llama_model_quantize(
            os.fsencode(whole), os.fsencode(target), ctypes.byref(settings)
        )
    )


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
