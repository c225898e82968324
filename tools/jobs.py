"""What sweeps cost: 10,000 jobs of the quickstart planned, and 1,000 jobs whose work is nothing."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import sweepstages  # noqa: E402

MANY = ("adapt.rank=range(1,101)", "generate.temperature=range(0.01,0.51,0.01)")
RECIPE = "steps: [begin, tell]\nbegin: {rank: 1}\ntell: {rank: 1}\n"
JOBS = 1_000


def rows() -> Iterator[tuple[str, str]]:
    """What was done, and how long it took, the start of the process counted in."""
    with tempfile.TemporaryDirectory() as place:
        site = sweepstages.install(Path(place) / "site")
        (Path(place) / "r.yaml").write_text(RECIPE)
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(site)])
        env = {**os.environ, "PYTHONPATH": path, "RUNNER_STORE": f"{place}/store"}
        took = _seconds(["quickstart", *MANY, "quantize=nf4,int8", "--dry-run"], place, env)
        yield "10,000 jobs of the quickstart planned (`--dry-run`)", f"{took:.1f} s"
        words = ["r", f"tell.rank=range(1,{JOBS + 1})"]
        took = _seconds(words, place, env)
        yield f"{JOBS:,} jobs whose steps do nothing", f"{took:.1f} s"
        yield f"{JOBS:,} jobs whose steps are all done", f"{_seconds(words, place, env):.1f} s"
        few = _seconds(["r", "tell.rank=1"], place, env)
        more = min(_seconds(words, place, env) for _ in range(3))
        each = (more - few) / (JOBS - 1) * 1000
        yield "a job more whose steps are all done", f"{each:.2f} ms"


def _seconds(words: list[str], place: str, env: dict[str, str]) -> float:
    command = [sys.executable, "-m", "runner", "sweep", *words]
    begun = time.perf_counter()
    subprocess.run(command, cwd=place, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


if __name__ == "__main__":
    for what, took in rows():
        print(f"{what}: {took}")
