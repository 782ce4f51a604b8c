"""A real SLURM on this machine: munged, slurmctld and slurmd in a folder of their own, as root, on loopback alone.

On Debian the programs come with ``apt-get install slurm-wlm munge``. For a look by hand:

    python tests/slurm_cluster.py FOLDER     # starts it, says what to export, and ends it with Ctrl-C
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
PARTITION = "tiny"

_CONFIG = """
ClusterName=perpixel
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
ReturnToService=2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
KillWait=10
MinJobAge=60
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName={partition} Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def reason_it_cannot_run() -> str | None:
    """Why there can be no cluster here; None where there can be one."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"SLURM is not installed (apt-get install slurm-wlm munge): no {', '.join(missing)}"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root here"


@contextlib.contextmanager
def slurm_cluster(folder: Path, *, nodes: int = 1, processors: int = 2) -> Iterator[dict[str, str]]:
    """A running cluster; yields the environment variables that its commands need, and ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    config = folder / "slurm.conf"
    config.write_text(_config(folder, nodes, processors))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = {"SLURM_CONF": str(config), "PATH": os.environ.get("PATH", "") + ":/usr/sbin"}
    files = [
        f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
    ]
    commands = [["munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}", *files]]
    commands += [["slurmctld", "-D", "-c"], *(["slurmd", "-D", "-N", f"n{number}"] for number in range(1, nodes + 1))]
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "daemons.txt").open("wb") as log:
            for command in commands:
                started.append(
                    subprocess.Popen(
                        command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True
                    )
                )
                time.sleep(0.5)
        _wait_until_idle(environment, nodes, folder)
        yield environment
    finally:
        for process in reversed(started):
            _end(process)


def _config(folder: Path, nodes: int, processors: int) -> str:
    host = socket.gethostname()
    lines = [
        f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} CPUs={processors} State=UNKNOWN"
        for number in range(1, nodes + 1)
    ]
    return _CONFIG.format(
        host=host, folder=folder, controller_port=_free_port(), nodes="\n".join(lines), partition=PARTITION
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_idle(environment: dict[str, str], nodes: int, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%T"], env=os.environ | environment, capture_output=True, text=True, check=False
        )
        if done.stdout.split() == ["idle"] * nodes:
            return
        time.sleep(0.5)
    logs = "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in folder.glob("*.log"))
    raise RuntimeError(f"SLURM did not start: {done.stdout}{done.stderr}\n{logs}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if reason := reason_it_cannot_run():
        sys.exit(reason)
    with slurm_cluster(Path(sys.argv[1]).resolve(), nodes=int(sys.argv[2]) if len(sys.argv) > 2 else 1) as variables:
        print(f"export SLURM_CONF={variables['SLURM_CONF']}", flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
