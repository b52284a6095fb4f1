"""Runs podman's networks, pods and containers for tests, which end what they started."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import images

WAIT_SECONDS = 300.0


def podman(*arguments: str, stdin: str | None = None) -> str:
    """Run podman and return its output.

    Raises:
        AssertionError: Podman failed; the message holds its output.
    """
    done = _run(*arguments, stdin=stdin)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


def _run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["podman", *arguments], input=stdin, capture_output=True, text=True, check=False,
        env=images.environment(),
    )  # fmt: skip


def image_bytes(image: str) -> int:
    """Return the uncompressed size of an image, including its base."""
    return int(podman("image", "inspect", "--format={{.Size}}", image))


@contextlib.contextmanager
def network(name: str) -> Iterator[str]:
    """Create a network in which pods find each other by their aliases, and remove it at the end."""
    podman("network", "create", name)
    try:
        yield name
    finally:
        podman("network", "rm", "--force", name)


@dataclass(frozen=True, slots=True)
class Pod:
    """Controls a pod of one container that `podman kube play` started."""

    name: str
    container: str

    def inspect(self) -> Mapping[str, Any]:
        """Return podman's description of the container."""
        found: Sequence[Mapping[str, Any]] = json.loads(podman("inspect", self.container))
        return found[0]

    def log(self) -> str:
        """Return the output of the container."""
        done = _run("logs", self.container)
        return done.stdout + done.stderr

    def exit_code(self) -> int | None:
        """Return the exit code, or None while the container runs."""
        state = self.inspect()["State"]
        return None if state["Running"] else int(state["ExitCode"])

    def stop(self, seconds: int = 30) -> int:
        """Send SIGTERM, or SIGKILL after that time, and return the exit code."""
        podman("stop", f"--time={seconds}", self.container)
        code = self.exit_code()
        assert code is not None
        return code

    def kill(self) -> None:
        """Send SIGKILL."""
        podman("kill", self.container)

    def remove(self) -> None:
        """Remove the pod, and end it first if it runs."""
        podman("pod", "rm", "--force", "--time=5", self.name)


def play(pod: Mapping[str, Any], network: str, aliases: Sequence[str]) -> Pod:
    """Start a pod in the network, under the aliases as well as its name."""
    options = ",".join(f"alias={alias}" for alias in aliases)
    podman("kube", "play", f"--network={network}{':' if options else ''}{options}", "-",
           stdin=json.dumps(pod))  # fmt: skip
    name = pod["metadata"]["name"]
    return Pod(name, f"{name}-{pod['spec']['containers'][0]['name']}")


def answers(url: str) -> bool:
    """Return whether the URL answers with status 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def wait_for(condition: Callable[[], bool], pod: Pod, *, ends: bool = False) -> float:
    """Poll until the condition holds, and return the seconds taken; fail if the pod ends before."""
    started = time.monotonic()
    while not condition():
        waited = time.monotonic() - started
        ended = not ends and pod.exit_code() is not None
        assert not ended, f"{pod.name} ended:\n{pod.log()[-4000:]}"
        assert waited < WAIT_SECONDS, f"{pod.name} is not there:\n{pod.log()[-4000:]}"
        time.sleep(0.1)
    return time.monotonic() - started


def build(folder: Path, name: str, **arguments: str) -> str:
    """Build the image of that folder, and return its name."""
    given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    podman("build", "--network=host", f"--tag={name}", *given, str(folder))
    return name
