"""A link between driver and actors that is cut: no wrong answer, nothing acknowledged lost, and all is well after."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed")

import search_over_a_link

START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
START += ["--object-store-memory=80000000"]


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


@pytest.fixture
def far_away():
    """A network namespace behind a link: its name, the link's and both addresses."""
    number = os.getpid() % 60_000
    space, near, far = f"annvq{number}", f"anear{number}", f"afar{number}"
    here, there = (f"10.77.{number >> 8}.{4 * (number % 64) + last}" for last in (1, 2))
    if not shutil.which("ip") or not ip("netns", "add", space):
        pytest.skip("needs to make network namespaces")
    try:
        inside = ["netns", "exec", space, "ip"]
        made = [
            ip("link", "add", near, "type", "veth", "peer", "name", far),
            ip("link", "set", far, "netns", space),
            ip("addr", "add", f"{here}/30", "dev", near),
            ip("link", "set", near, "up"),
            ip(*inside, "addr", "add", f"{there}/30", "dev", far),
            ip(*inside, "link", "set", far, "up"),
            ip(*inside, "link", "set", "lo", "up"),
        ]
        if not all(made):
            pytest.skip("needs to make links between network namespaces")
        yield space, near, here, there
    finally:
        ip("link", "del", near)
        ip("netns", "del", space)


@contextlib.contextmanager
def node(command, environment):
    """A node of a Ray of its own, until it is left; processes of it that are left over are killed."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(address, port, *nodes):
    until = time.monotonic() + 60
    while True:
        assert all(one.poll() is None for one in nodes)
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
            return
        assert time.monotonic() < until
        time.sleep(0.2)


def test_a_link_that_is_cut(far_away):
    space, link, here, there = far_away
    with socket.socket() as free:
        free.bind((here, 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(Path(search_over_a_link.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled", "PYTHONPATH": path}
    with tempfile.TemporaryDirectory(prefix="annvq") as short:  # sockets lie in it, whose paths must be short
        head = [*START, "--head", f"--node-ip-address={here}", f"--port={port}", "--include-dashboard=false"]
        far = [*START, f"--address={here}:{port}", f"--node-ip-address={there}", '--resources={"far": 1}']
        with node([*head, f"--temp-dir={short}"], environment) as first:
            wait_for(here, port, first)
            with node(["ip", "netns", "exec", space, *far], environment):
                driver = [sys.executable, search_over_a_link.__file__, f"{here}:{port}", link, f"{short}/many"]
                done = subprocess.run(driver, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("as it should be\n")
