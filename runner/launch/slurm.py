"""Jobs of Slurm, given out by submitit: every distinct step is one, with resources of its own.

Slurm keeps the order, and gives a job anew whose time has ended, which was preempted, or whose
machine died; it goes on from its checkpoint. All is given out at once, so that the program may end.

    sweeps/<recipe>/<id>/slurm/jobs.json   the job of each step, by key
    sweeps/<recipe>/<id>/slurm/*_log.*     what jobs print
"""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from runner import extras, files
from runner.errors import RunnerError, Stopped
from runner.launch import Failure, Order, Said, single
from runner.launch.arrays import MOST, Array, Wish, arrays
from runner.launch.following import Following
from runner.launch.single import Single
from runner.resources import Resources

KEEPS = True
POLL = 1.0
"""Seconds between two looks at the store."""
ASK = 5.0
"""Seconds between two questions to Slurm."""
SETTLE = 10.0
"""Seconds after a job's end in which what it has left must be seen."""
ENDINGS = {
    "OUT_OF_MEMORY": ("out of memory", "its job took more memory than it had asked for"),
    "CANCELLED": ("cancelled", "its job was cancelled"),
    "TIMEOUT": ("timeout", "its job ran into its time limit too often"),
    "NODE_FAIL": ("lost machine", "its job's machine failed"),
}
"""What Slurm calls the end of a job, in our words."""


def check() -> None:
    """Submitit and Slurm's own commands are there, and Slurm answers."""
    if lacking := extras.missing("slurm"):
        raise RunnerError(f"launch=slurm: {lacking}")
    if shutil.which("sbatch") is None:
        raise RunnerError("launch=slurm: there is no sbatch here. Log in where jobs are submitted.")
    _ask("sinfo", "--noheader")


def launch(order: Order) -> None:
    """Give out what is not done, and follow it; `order.failures` names what could not be made."""
    _Slurm(order).run()


class Step:
    """A job: submitit calls it, and asks for a `checkpoint` when its time ends.

    The step is made beside the main thread, which alone hears signals.
    """

    def __init__(self, single: Single) -> None:
        self.single = single

    def __call__(self) -> None:
        """Make the step; a job that has not made it ends with an error, and none comes after."""
        self.asked: list[str] = []
        self.made: list[bool] = []
        self.work = threading.Thread(target=self._make)
        signal.signal(signal.SIGTERM, lambda *_: self.asked.append("SIGTERM"))
        self.work.start()
        self._wait()
        while self.asked and not self.made:
            signal.pause()  # Slurm ends the job soon, and gives it anew where it was preempted
        if not any(self.made):
            raise RuntimeError("the step is not done; the sweep's folder says why")

    def checkpoint(self) -> Any:
        """Its time ends: keep what is done, and go on in another job."""
        from submitit.helpers import DelayedSubmission

        self.asked.append("SIGUSR1")
        self._wait()
        return DelayedSubmission(Step(self.single))

    def _make(self) -> None:
        with suppress(Stopped):
            self.made.append(self.single.make(lambda: self.asked[0] if self.asked else None))

    def _wait(self) -> None:
        while self.work.is_alive():
            self.work.join(0.1)


class _Slurm:
    """The jobs of one sweep."""

    def __init__(self, order: Order) -> None:
        self.order, self.graph = order, order.graph
        self.settings = order.manifest.launch
        self.name = f"runner-{order.folder.name.rpartition('-')[2]}"
        self.place = order.folder.resolve() / "slurm"
        files.make_folder(self.place)
        self.following = Following(order)
        self.jobs: dict[str, str] = {}
        self.ended: dict[str, float] = {}
        self.asked = 0.0

    def run(self) -> None:
        """Until every step is done or lost; Stopped where a signal ends the following."""
        there = files.read_json(self.place / "jobs.json") or {}
        alive = self._alive()
        self.jobs = {key: job for key, job in there.items() if job in alive}
        self.following.forget_failures(self.graph.open - {*self.jobs})
        self._submit()
        while self.order.follow and self.graph.open:
            if signal_name := self.order.stop_signal():
                self._say(f"the jobs go on; to end them: scancel --name={self.name}")
                raise Stopped(signal_name)
            time.sleep(POLL)
            self.following.look()
            if self.order.failures and self.following.is_enough():
                _ask("scancel", f"--name={self.name}")
                break
            self._look_at_jobs()

    def _say(self, text: str) -> None:
        self.order.tell(Said(0, text))

    # Giving out

    def _submit(self) -> None:
        """Give out every open step that has no job, those that others wait for first."""
        waiting = sorted(self.graph.open - {*self.jobs}, key=self.graph.place.__getitem__)
        level: dict[str, int] = {}
        for key in waiting:  # in the order of the jobs, a step comes after what it builds on
            level[key] = 1 + max((level.get(each, 0) for each in self.graph.inputs[key]), default=0)
        for number in sorted({*level.values()}):
            wishes = [self._wish(key) for key in waiting if level[key] == number]
            for array in arrays(wishes):
                self._submit_array(array)
        if waiting:
            self._say(f"{len(waiting)} steps are given to Slurm, as {self.name}")

    def _wish(self, key: str) -> Wish:
        row = self.graph.rows[key]
        givers = [each for each in self.graph.inputs[key] if each in self.graph.open]
        after = tuple(self.jobs[each] for each in givers)
        return Wish(key, row.name, single.asked(self.order, row), after)

    def _submit_array(self, array: Array) -> None:
        executor = self._executor(array.asked, array.dependency)
        try:
            with executor.batch():
                jobs = [executor.submit(Step(single.of(self.order, key))) for key in array.keys]
        except (subprocess.SubprocessError, RuntimeError) as error:
            said = str(error.__cause__ or error).strip().splitlines()
            fact = f"Slurm refuses {array.step}: {said[-1] if said else error}"
            see = f"See: launch.resources.{array.step}, launch.sbatch"
            raise RunnerError(f"{fact}\n  {see}") from error
        self.jobs |= {key: job.job_id for key, job in zip(array.keys, jobs, strict=True)}
        files.write_json(self.place / "jobs.json", self.jobs)

    def _executor(self, asked: Resources, dependency: str) -> Any:
        import submitit

        said, workers = self.settings, self.order.manifest.settings.workers
        more = {"requeue": True, "kill-on-invalid-dep": "yes", **said.sbatch}
        partition = said.cpu_partition if not asked.gpus else None
        executor = submitit.AutoExecutor(
            folder=self.place, cluster="slurm", slurm_max_num_timeout=said.requeues
        )
        executor.update_parameters(
            name=self.name,
            gpus_per_node=asked.gpus or None,
            cpus_per_task=asked.cpus,
            mem_gb=asked.memory,
            timeout_min=asked.minutes or 60,
            slurm_partition=partition or said.partition,
            slurm_setup=[*said.setup] or None,
            slurm_signal_delay_s=said.notice,
            slurm_array_parallelism=workers if isinstance(workers, int) else MOST,
            slurm_dependency=dependency or None,
            # srun takes this from nowhere else since Slurm 22.05
            slurm_srun_args=[f"--cpus-per-task={asked.cpus}"] if asked.cpus else None,
            slurm_additional_parameters=more,
        )
        return executor

    # Hearing of jobs that leave nothing

    def _look_at_jobs(self) -> None:
        """A job that has ended and left neither a result nor a failure is lost."""
        if time.monotonic() - self.asked < ASK:
            return
        self.asked = time.monotonic()
        try:
            alive = self._alive()
        except RunnerError:  # its controller may be away for a while; jobs go on without it
            return
        gone = [
            key for key, job in self.jobs.items() if job not in alive and key in self.graph.open
        ]
        self.ended = {key: self.ended.get(key, time.monotonic()) for key in gone}
        settled = [key for key, at in self.ended.items() if time.monotonic() - at > SETTLE]
        for key in settled:
            job = self.jobs.pop(key)
            if key in self.graph.open and not self.graph.lacking[key]:
                self._lost(key, job)
        if settled:
            self._submit()

    def _lost(self, key: str, job: str) -> None:
        cause, fact = ENDINGS.get(_state(job), ("lost", "its job ended without a result"))
        failure = Failure(key, self.graph.rows[key].name, cause, f"{fact} ({job}).")
        self.following.lose(failure, again=cause not in ("cancelled", "timeout"))

    def _alive(self) -> Collection[str]:
        """The jobs of this sweep that wait or run."""
        return {*_ask("squeue", "--noheader", "--array", "--format=%i", f"--name={self.name}")}


def _state(job: str) -> str:
    """How a job has ended, as long as Slurm knows."""
    with suppress(RunnerError):
        for line in _ask("scontrol", "show", "job", "--oneliner", job):
            return line.partition("JobState=")[2].partition(" ")[0]
    return ""


def _ask(*command: str) -> list[str]:
    """The lines that a command of Slurm prints; RunnerError where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RunnerError(f"Slurm does not answer: {command[0]}: {said}")
    return done.stdout.split("\n")[:-1]
