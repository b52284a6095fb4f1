"""Runs a private RabbitMQ node for tests: own ports, own folders, loopback only."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CTL = SERVER.with_name("rabbitmqctl")
START_SECONDS = 120.0
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


def _free_ports(count: int) -> list[int]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in listening]
    for one in listening:
        one.close()
    return ports


class Node:
    """Runs a node that tests start, kill and stop repeatedly; its queues survive."""

    def __init__(self, folder: Path, config: str = "") -> None:
        """Write the node's folders and ports, and `config` as its rabbitmq.conf."""
        self.port, distribution, epmd = _free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self.spoke = 0.0
        """The time.monotonic() at which the node began to accept connections."""
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._epmd_port = epmd
        cookie = folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(0o400)
        (folder / "empty.conf").write_text("")
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(config)
        (folder / "advanced.config").write_text("[].\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"simile-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "empty.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self) -> None:
        """Start the node and wait until it speaks AMQP."""
        with (self._folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [SERVER], env=self._environment, stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.speaks():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "output.log").read_text()[-3000:]
                message = f"RabbitMQ did not start:\n{log}"
                raise RuntimeError(message)
            time.sleep(0.02)
        self.spoke = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Return the process whose child is the Erlang VM, or None while no node runs."""
        return None if self._process is None else self._process.pid

    def speaks(self) -> bool:
        """Return whether the port answers an AMQP greeting."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(_PROTOCOL_HEADER)
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node, and return its output."""
        done = subprocess.run(
            [CTL, *arguments], env=self._environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def kill(self) -> None:
        """End the node with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the node with SIGTERM."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Suspend the node with SIGSTOP: every connection stays open and silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the suspended node with SIGCONT."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the node and its port mapper."""
        self._end(signal.SIGTERM)
        epmd = shutil.which("epmd")
        if epmd is not None:
            subprocess.run(
                [epmd, "-port", str(self._epmd_port), "-kill"],
                env=self._environment, capture_output=True, check=False,
            )  # fmt: skip

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        self._process.wait(timeout=60)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        # The script stays the parent of the Erlang VM, so the signal goes to the VM, too.
        for pid in (*_children(self._process.pid), self._process.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in tasks.read_text().split()] if tasks.exists() else []
    return [*(grandchild for child in found for grandchild in _children(child)), *found]


@contextlib.contextmanager
def running_node(folder: Path, config: str = "") -> Iterator[Node]:
    """Run a node with its files in `folder` and `config` as its rabbitmq.conf."""
    require_server()
    folder.mkdir(parents=True, exist_ok=True)
    node = Node(folder, config)
    try:
        node.start()
        yield node
    finally:
        node.close()


def require_server() -> None:
    """Skip the test where RabbitMQ is not installed; fail in CI."""
    if SERVER.exists():
        return
    message = "RabbitMQ is not installed: run `make system`"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
