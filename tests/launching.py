"""Commands of linkcontext in several processes, on one machine or on two that are namespaces of its network."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
TORCHRUN = ("-m", "torch.distributed.run")
SECONDS = 400  # on a machine with other work
FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_processes: 2
num_machines: 1
machine_rank: 0
mixed_precision: 'no'
use_cpu: true
fsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP, fsdp_cpu_ram_efficient_loading: false}
"""


def start(*command, log, count=1, launcher=None, program=("-m", "linkcontext"), before=(), **variables):
    """Start a command in `count` processes; what they print goes into the file `log`."""
    if launcher is None:
        launcher = () if count == 1 else (*TORCHRUN, f"--nproc_per_node={count}", "--standalone")
    environment = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
    with log.open("w") as output:
        return subprocess.Popen(
            [*map(str, before), sys.executable, *map(str, (*launcher, *program, *command))],
            env={**os.environ, **environment},
            stderr=subprocess.STDOUT,
            stdout=output,
        )


def accelerate_launcher(folder, count, *flags):
    """The launcher of accelerate for `count` processes with FSDP 2; its configuration is written into a folder."""
    path = folder / "fsdp.yaml"
    path.write_text(FSDP)
    return "-m", "accelerate.commands.launch", "--config_file", path, "--num_processes", count, *flags


def finish(process, log):
    """Wait for a command that has to succeed."""
    try:
        assert process.wait(SECONDS) == 0, log.read_text()[-3000:]
    finally:
        process.kill()


def run(*command, log, **options):
    """Run a command that has to succeed."""
    finish(start(*command, log=log, **options), log)


def kill_process(launcher, number):
    """Kill one of the processes that a launcher has started."""
    for child in psutil.Process(launcher.pid).children(recursive=True):
        with suppress(psutil.Error):
            if child.environ().get("RANK") == str(number):
                child.send_signal(signal.SIGKILL)


def wait_for_lines(path, lines, launcher, log):
    """Wait until a file of a run that goes on has more than so many lines."""
    deadline = time.monotonic() + SECONDS
    while not path.exists() or path.read_bytes().count(b"\n") <= lines:
        assert launcher.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.01)


@contextmanager
def two_machines():
    """Two namespaces of the network with a cable between them: what runs in each, the address of the first, and the
    names of the interfaces."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("two machines are namespaces of the network, which need root and the command ip")
    names = [f"lc{os.getpid()}{end}" for end in "ab"]
    links = [f"v{name}" for name in names]
    if subprocess.run(["ip", "netns", "add", names[0]], capture_output=True, check=False).returncode:
        pytest.skip("this machine may make no namespaces of the network")
    try:
        commands = [f"netns add {names[1]}", f"link add {links[0]} type veth peer name {links[1]}"]
        for number, (name, link) in enumerate(zip(names, links, strict=True), 1):
            commands += [
                f"link set {link} netns {name}",
                f"-n {name} addr add 10.213.0.{number}/24 dev {link}",
                f"-n {name} link set {link} up",
                f"-n {name} link set lo up",
            ]
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        yield [("ip", "netns", "exec", name) for name in names], "10.213.0.1", links
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def start_on_two_machines(machines, *command, logs, **variables):
    """Start a command in two processes, one on each machine."""
    inside, address, links = machines
    launchers = []
    for number, (before, link, log) in enumerate(zip(inside, links, logs, strict=True)):
        nodes = ("--nnodes=2", f"--node_rank={number}", "--nproc_per_node=1")
        meet = (f"--master_addr={address}", "--master_port=29417")
        launcher = (*TORCHRUN, *nodes, *meet)
        launchers.append(
            start(*command, log=log, launcher=launcher, before=before, GLOO_SOCKET_IFNAME=link, **variables)
        )
    return launchers
