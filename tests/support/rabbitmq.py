"""A private RabbitMQ node for tests: own ports, own folders, loopback only, ended by pid."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
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
    """One node; `start`, `kill` and `stop` as often as a test likes, its queues kept between."""

    def __init__(self, folder: Path, config: str = "") -> None:
        """`config` is the text of its rabbitmq.conf."""
        self.port, distribution, epmd = _free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self.spoke = 0.0
        """When it began to accept connections, by time.monotonic()."""
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

    def speaks(self) -> bool:
        """Whether the port answers an AMQP greeting."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(_PROTOCOL_HEADER)
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node; what it printed."""
        done = subprocess.run(
            [CTL, *arguments], env=self._environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    def kill(self) -> None:
        """End the node as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the node in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop the node where it is: every connection stays open, and silent."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the node and its port mapper for good."""
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
        # The script stays in front of the Erlang VM, which is its child and the one to signal.
        for pid in (*_children(self._process.pid), self._process.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in tasks.read_text().split()] if tasks.exists() else []
    return [*(grandchild for child in found for grandchild in _children(child)), *found]


def require_server() -> None:
    """Skip where RabbitMQ is not installed; in CI that is a failure."""
    if SERVER.exists():
        return
    message = "RabbitMQ is not installed: run `make system`"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
