"""The Ray head that `lema repro` lends to a whole run, started when a stage first asks for it."""

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener

from lema.compute.files import die_with_parent, home
from lema.errors import RunError

log = logging.getLogger(__name__)

# Read by Ray when it is imported. The first makes it use loopback on every system, not on macOS and Windows only.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
STORE_BYTES = 100 * 2**20  # blocks are small and short-lived
REACH = 20.0  # seconds to wait for a head that is being started
ASK = "LEMA_RAY_HEAD"  # where child processes ask for the head, and the key that they need for it


@contextmanager
def head() -> Iterator[dict[str, str]]:
    """Own a Ray head for the time of a block, and yield the environment with which child processes join it.

    Returns at once, while the head is still starting; who joins waits for it. It listens on loopback only, asks for a
    token, writes to `ray.log` under `home()`, and ends with the block, or with this process however that ends.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {**QUIET, **LOOPBACK, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    options = {
        "port": port,
        "node-ip-address": "127.0.0.1",
        "include-dashboard": "false",
        "include-log-monitor": "false",
        "object-store-memory": STORE_BYTES,
        "min-worker-port": 0,
        "max-worker-port": 0,
    }
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    home().mkdir(parents=True, exist_ok=True)
    with (home() / "ray.log").open("wb") as output:
        child = subprocess.Popen(
            command + [f"--{name}={value}" for name, value in options.items()],
            env=inherited | ours,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # SIGTERM, so that it takes its own children along.
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
    try:
        yield {**ours, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        if child.poll() is not None:
            log.warning("Ray ended early, see %s", home() / "ray.log")
        # At once rather than with SIGTERM: nothing that matters is left in it, and draining takes seconds.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextmanager
def lazy_head(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Lend one Ray head to child processes: it starts when the first of them calls `join_head`.

    Yields this environment with what they find it by. The head ends with the block.
    """
    key = secrets.token_bytes(32)
    with Listener(("127.0.0.1", 0), authkey=key) as listener:
        over = threading.Event()
        thread = threading.Thread(target=_lend, args=(listener, over), daemon=True)
        thread.start()
        host, port = listener.address
        try:
            yield {**environment, ASK: f"{host}:{port}:{key.hex()}"}
        finally:
            over.set()
            with suppress(OSError):
                socket.create_connection((host, port), timeout=1).close()  # wakes `accept`
            thread.join()


def _lend(listener: Listener, over: threading.Event) -> None:
    with ExitStack() as heads:
        ray: dict[str, str] = {}
        while True:
            with suppress(OSError, EOFError, AuthenticationError), listener.accept() as child:
                ray = ray or heads.enter_context(head())
                child.send(ray)
            if over.is_set():
                return


def join_head() -> None:
    """Have this process use the Ray of the `lema repro` that started it, unless another is set. Raises RunError."""
    asked = os.environ.get(ASK)
    if asked and "RAY_ADDRESS" not in os.environ:
        host, port, key = asked.split(":")
        try:
            with Client((host, int(port)), authkey=bytes.fromhex(key)) as parent:
                os.environ.update(parent.recv())
        except (OSError, EOFError, AuthenticationError):
            raise RunError(f"the Ray of `lema repro` cannot be had, see {home() / 'ray.log'}") from None


def reach(address: str) -> None:
    """Wait until something listens at an address; Ray itself would hang without a word. Raises RunError."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not host or not port.isdigit():
        raise RunError(f"RAY_ADDRESS is {address!r}; it must be host:port, auto or local")
    deadline = time.monotonic() + REACH
    while True:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=2):
            return
        if time.monotonic() > deadline:
            raise RunError(f"no Ray answers at RAY_ADDRESS={address}; start it, or unset RAY_ADDRESS")
        time.sleep(0.2)
