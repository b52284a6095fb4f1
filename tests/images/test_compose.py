"""compose.yaml on podman: a folder is indexed, searched, and indexed again after a change."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.images.cluster import BROKER
from tests.images.containers import COMPOSE
from tests.support.pictures import plain_jpeg
from tests.support.podman import WAIT_SECONDS, build
from tests.support.running import free_port
from tools import images

pytestmark = [pytest.mark.images, pytest.mark.timeout(1200)]

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}


@dataclass(frozen=True, slots=True)
class Composed:
    """Controls a project of compose.yaml.

    Attributes:
        folder: the images on this machine.
        url: the address of upload.
        environment: the variables of podman-compose.
    """

    folder: Path
    url: str
    environment: Mapping[str, str]

    def compose(self, *arguments: str) -> str:
        """Run podman-compose, and return its output.

        Raises:
            AssertionError: the command failed; the message holds its output.
        """
        done = subprocess.run(
            [sys.executable, "-m", "podman_compose", "-f", str(COMPOSE), *arguments],
            env=self.environment, capture_output=True, text=True, check=False,
            timeout=WAIT_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.stderr[-4000:]}{done.stdout[-4000:]}"
        return done.stdout + done.stderr

    def add(self, name: str) -> bytes:
        """Draw an image into the folder, and return its bytes."""
        image = plain_jpeg(COLOURS[name], (300, 200))
        path = self.folder / f"{name}.jpg"
        path.write_bytes(image)
        path.chmod(0o644)
        return image

    def until_found(self, image: bytes, name: str) -> None:
        """Search until an answer has that item, as long as containers may take to start."""
        deadline = time.monotonic() + WAIT_SECONDS
        answer: object = None
        while time.monotonic() < deadline:
            try:
                response = httpx.post(f"{self.url}/v1/search", content=image, timeout=30)
                answer = response.json()
                if response.is_success and name in str(answer):
                    return
            except httpx.TransportError as error:
                answer = error
            time.sleep(0.5)
        pytest.fail(f"{name} is not found: {answer}\n{self.compose('logs')[-6000:]}")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Start compose.yaml over a folder of two images, and remove all of it at the end."""
    build(Path(__file__).with_name("broker"), BROKER, BASE=images.LOCAL_BASE)
    folder = tmp_path_factory.mktemp("compose") / "Pictures"
    folder.mkdir()
    # The user of the containers is another one.
    for part in (folder, *folder.parents[:3]):
        part.chmod(0o755)
    port = free_port()
    project = Composed(
        folder,
        f"http://127.0.0.1:{port}",
        {
            **os.environ,
            **images.environment(),
            "COMPOSE_PROJECT_NAME": f"simile-test-{secrets.token_hex(3)}",
            "RABBITMQ_IMAGE": BROKER,
            "IMAGES": str(folder),
            "COLLECTION": "colours",
            "PORT": str(port),
        },
    )
    for name in ("red", "green"):
        project.add(name)
    try:
        project.compose("up", "--detach", "--no-build")
        yield project
    finally:
        project.compose("down", "--volumes", "--timeout=10")


def test_a_folder_is_indexed_and_searched(composed: Composed) -> None:
    """An image of the folder is found by the page's API, under the collection's name."""
    composed.until_found((composed.folder / "red.jpg").read_bytes(), "red.jpg")
    collections = httpx.get(f"{composed.url}/v1/collections", timeout=30).text
    assert "colours" in collections


def test_a_new_image_is_found_when_the_folder_is_indexed_again(composed: Composed) -> None:
    """`compose run --rm index` adds what is new, and the services take the new version."""
    image = composed.add("blue")
    composed.compose("run", "--rm", "index")
    composed.until_found(image, "blue.jpg")
