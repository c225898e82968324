"""Slurm on this machine alone, for tests: munge, a controller and one node, all on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CORES = 6
"""More than there may be: jobs of tests sleep more than they work."""
CONF = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/sock,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=8000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES State=UP PriorityTier=1 GraceTime=4
PartitionName=cpu Nodes={host} State=UP PriorityTier=1 GraceTime=4
PartitionName=high Nodes={host} State=UP PriorityTier=10 PreemptMode=OFF
"""


def lacking() -> str:
    """Why Slurm cannot be started here; nothing where it can."""
    wanted = ("slurmctld", "slurmd", "sbatch", "munged", "runuser")
    missing = [name for name in wanted if shutil.which(name, path=_path()) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "Slurm is started by root alone"


@contextmanager
def slurm() -> Iterator[Path]:
    """A cluster of one node while the block runs; SLURM_CONF names its settings."""
    place = Path(tempfile.mkdtemp(prefix="slurm"))  # a socket's path must be short
    place.chmod(0o755)
    for name in ("state", "spool"):
        (place / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    text = CONF.format(host=host, place=place, ports=_free_ports(2), cores=CORES)
    conf = place / "slurm.conf"
    conf.write_text(text)
    for number in range(2):  # twins of /dev/null, which Slurm takes for GPUs
        os.mknod(place / f"gpu{number}", 0o20666, os.makedev(1, 3))
    (place / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={place}/gpu[0-1]\n")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(conf)
    try:
        _munge(place / "munge")
        for daemon in ("slurmctld", "slurmd"):
            _run(daemon, "-f", str(conf))
        _wait(place)
        yield conf
    finally:
        with suppress(subprocess.CalledProcessError):
            _run("scancel", "--user=root", "--signal=KILL")
            _run("scancel", "--user=root")
        for name in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
            with suppress(OSError, ValueError):
                _end(int((place / name).read_text()))
        os.environ.pop("SLURM_CONF")
        if before:
            os.environ["SLURM_CONF"] = before
        shutil.rmtree(place, ignore_errors=True)


def _end(pid: int) -> None:
    """End a daemon, and wait until it is gone: it writes into its folder until then."""
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)


def _munge(place: Path) -> None:
    place.mkdir()
    (place / "key").write_bytes(os.urandom(128))
    (place / "key").chmod(0o400)
    for each in (place, place / "key"):
        shutil.chown(each, "munge", "munge")
    names = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log"}
    names["seed-file"] = "seed"
    words = [f"--{name}={place / file}" for name, file in names.items()]
    _run("runuser", "-u", "munge", "--", "munged", "--force", *words)


def _wait(place: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with suppress(subprocess.CalledProcessError):
            if _run("sinfo", "-h", "-o", "%t", "-p", "low").strip() == "idle":
                return
        time.sleep(0.1)
    logs = "\n".join(path.read_text() for path in place.glob("*.log"))
    raise RuntimeError(f"Slurm has not come up:\n{logs}")


def _path() -> str:
    return os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])


def _run(*command: str) -> str:
    env = os.environ | {"PATH": _path()}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
