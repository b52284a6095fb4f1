"""Formats that child processes decode give the same pixels, and their limits hold."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import pytest
from PIL import Image, ImageChops, ImageFile

from services.shared import errors, imaging
from services.shared.contracts import Box
from services.shared.imaging.decode import decode as decode_here
from services.shared.imaging.processes import confined, wire
from services.shared.imaging.processes.decoder_pool import DecoderPool
from services.shared.imaging.processes.wire import Task
from tests.support import pictures

LIMITS = imaging.Limits(max_bytes=15 * 2**20, max_pixels=64_000_000, max_aspect=100.0)
TASK: Final = Task(LIMITS, None, None, cpu_seconds=10.0, memory_bytes=2**28)

_SCENE = pictures.scene(1000, 700)
IMAGES: Final = {
    "HEIF": pictures.encoded(_SCENE, "HEIF"),
    "HEIF transparent": pictures.encoded(_SCENE.convert("RGBA"), "HEIF"),
    "AVIF": pictures.encoded(_SCENE, "AVIF", speed=10, exif=pictures.exif(6)),
    "TIFF": pictures.encoded(_SCENE, "TIFF", tiffinfo=pictures.tiff_tags(8)),
    "JPEG 2000": pictures.encoded(_SCENE, "JPEG2000"),
    "TIFF 16 bits": pictures.encoded(_SCENE.convert("I;16"), "TIFF"),
}


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    """Return a pool of two processes, and close it at the end."""
    made = DecoderPool(2)
    yield made
    made.close()


@pytest.mark.parametrize("box", [None, Box(0.1, 0.2, 0.5, 0.3)], ids=["whole", "box"])
@pytest.mark.parametrize("name", IMAGES)
def test_the_pixels_are_those_of_decoding_here(name: str, box: Box | None) -> None:
    """Pixels are equal for every such format: whole and part, full size and a model's size."""
    for target in (None, 358):
        apart = confined.decode(IMAGES[name], LIMITS, target=target, box=box)
        here = decode_here(IMAGES[name], LIMITS, target=target, box=box)
        assert apart.size == here.size
        assert ImageChops.difference(apart, here).getbbox() is None


def test_an_error_is_the_one_of_decoding_here() -> None:
    """The error has the same class and text, and the process continues."""
    pids = confined.pool().pids
    for image, box in ((IMAGES["TIFF"][:-9000], None), (IMAGES["HEIF"], Box(0, 0, 0.001, 0.001))):
        with pytest.raises(errors.SimileError) as here:
            decode_here(image, LIMITS, box=box)
        with pytest.raises(type(here.value)) as apart:
            confined.decode(image, LIMITS, box=box)
        assert str(apart.value) == str(here.value)
    assert set(pids) <= set(confined.pool().pids)


def test_other_formats_start_no_process() -> None:
    """A JPEG is decoded without a child process."""
    before = confined.pool().pids
    assert confined.decode(pictures.plain_jpeg((1, 2, 3)), LIMITS).size == (32, 32)
    assert confined.pool().pids == before


def test_too_much_cpu_time_ends_the_process_and_not_its_neighbour(pool: DecoderPool) -> None:
    """The image gets an error, and the next image a new process."""
    large = pictures.encoded(pictures.scene(3000, 3000), "TIFF", compression="tiff_lzw")
    pool.decode(IMAGES["TIFF"], TASK)
    (before,) = pool.pids
    with pytest.raises(errors.DecodingTooSlow, match=r"0\.0 s of a core"):
        pool.decode(large, replace(TASK, cpu_seconds=0.01))
    assert pool.pids == []
    assert pool.decode(large, TASK).size == (3000, 3000)
    assert pool.pids != [before]


@pytest.mark.parametrize("name", ["HEIF", "AVIF", "TIFF"])
def test_too_much_memory_is_not_had(name: str, pool: DecoderPool) -> None:
    """The image gets an error from any of the libraries, and the next image is decoded."""
    # libavif reports every failure with the same error.
    expected = errors.UndecodableImage if name == "AVIF" else errors.DecoderCrashed
    with pytest.raises(expected):
        pool.decode(IMAGES[name], replace(TASK, memory_bytes=2**19))
    assert {*pool.decode(IMAGES[name], TASK).size} == {1000, 700}


def _held_up(pool: DecoderPool) -> tuple[int, ThreadPoolExecutor]:
    """Suspend the process before its next image."""
    pool.decode(IMAGES["TIFF"], TASK)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    return pid, ThreadPoolExecutor(1)


def test_a_crash_is_the_images_own_answer(pool: DecoderPool) -> None:
    """An image that crashes the process is answered with DecoderCrashed."""
    pid, thread = _held_up(pool)
    with thread:
        asked = thread.submit(pool.decode, IMAGES["TIFF"], TASK)
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(errors.DecoderCrashed, match="-11"):
            asked.result()
    assert pool.decode(IMAGES["TIFF"], TASK).size == (700, 1000)


def test_a_process_that_is_killed_from_outside_costs_no_image(pool: DecoderPool) -> None:
    """The image is tried again, since a machine short of memory may kill any process."""
    pid, thread = _held_up(pool)
    with thread:
        asked = thread.submit(pool.decode, IMAGES["TIFF"], TASK)
        os.kill(pid, signal.SIGKILL)
        assert asked.result().size == (700, 1000)
    assert pid not in pool.pids


def test_a_process_that_is_killed_each_time_is_not_the_images_fault(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller may retry, the image is not quarantined, and another one is decoded."""
    real = wire.send_task

    def killing(pipe: BinaryIO, task: Task, image: bytes) -> None:
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        real(pipe, task, image)

    with monkeypatch.context() as patched:
        patched.setattr(wire, "send_task", killing)
        with pytest.raises(errors.Overloaded, match="short of memory"):
            pool.decode(IMAGES["TIFF"], TASK)
    assert pool.decode(IMAGES["TIFF"], TASK).size == (700, 1000)


def test_an_invalid_answer_is_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is still running, so the invalid answer is no kill from outside."""

    def broken(_pipe: BinaryIO, _max_pixels: int) -> Image.Image:
        raise ValueError

    monkeypatch.setattr(wire, "read_answer", broken)
    with (
        contextlib.closing(DecoderPool(1, ending_seconds=0.01)) as pool,
        pytest.raises(errors.DecoderCrashed, match="no valid answer"),
    ):
        pool.decode(IMAGES["TIFF"], TASK)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_short_memory_is_not_the_images_fault(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is Overloaded, in this process and where a child's answer is read."""
    image = pictures.encoded(pictures.scene(), name)

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(wire, "read_answer", out_of_memory)
    monkeypatch.setattr(ImageFile.ImageFile, "load", out_of_memory)
    with pytest.raises(errors.Overloaded, match="memory"):
        confined.decode(image, LIMITS)


def test_short_memory_while_a_header_is_read_is_not_the_images_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is Overloaded, since opening an image allocates memory, too."""

    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", out_of_memory)
    with pytest.raises(errors.Overloaded, match="memory"):
        imaging.probe(IMAGES["TIFF"], LIMITS)


def test_a_closed_pool_starts_no_process(pool: DecoderPool) -> None:
    """Images in flight and later ones end with ShuttingDown."""
    _, thread = _held_up(pool)
    with thread:
        asked = thread.submit(pool.decode, IMAGES["TIFF"], TASK)
        while not pool.busy:
            pass
        pool.close()
        with pytest.raises(errors.ShuttingDown):
            asked.result()
    with pytest.raises(errors.ShuttingDown):
        pool.decode(IMAGES["TIFF"], TASK)
    assert pool.pids == []


def test_a_suspended_process_is_ended() -> None:
    """The limit is on the wall clock, since a suspended process uses no CPU time."""
    with (
        contextlib.closing(DecoderPool(1, max_wall_seconds=0.5)) as pool,
        ThreadPoolExecutor(1) as thread,
    ):
        asked = thread.submit(pool.decode, IMAGES["TIFF"], TASK)
        while not pool.pids:
            pass
        os.kill(pool.pids[0], signal.SIGSTOP)  # before the process has loaded its libraries
        with pytest.raises(errors.DecodingTooSlow, match=r"within 0\.5 s"):
            asked.result()
        assert pool.pids == []


def test_no_more_processes_than_allowed_and_each_is_used_again(pool: DecoderPool) -> None:
    """Eight threads share two processes."""
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(pool.decode, IMAGES["TIFF"], TASK) for _ in range(24)]
        assert {job.result().size for job in jobs} == {(700, 1000)}
    assert 1 <= len(pool.pids) <= 2
    before = pool.pids
    pool.decode(IMAGES["TIFF"], TASK)
    assert pool.pids == before


def test_a_process_inherits_no_resource(pool: DecoderPool) -> None:
    """The process has no socket, no secret and no library of a model, and a session of its own."""
    pool.decode(IMAGES["HEIF"], TASK)
    (pid,) = pool.pids
    process = Path(f"/proc/{pid}")
    open_files = {str(path.readlink()) for path in (process / "fd").iterdir()}
    assert {re.sub(r"[\d\[\]]", "", name) for name in open_files} <= {"pipe:", "/dev/null"}
    environment = (process / "environ").read_text()
    assert {line.partition("=")[0] for line in environment.split("\0") if line} <= {
        "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "PATH", "TZ", "MALLOC_ARENA_MAX",
        "MALLOC_MMAP_THRESHOLD_", "LC_CTYPE",
    }  # fmt: skip
    maps = (process / "maps").read_text()
    assert not [name for name in ("numpy", "torch", "annoy", "aiohttp") if f"/{name}/" in maps]
    assert os.getsid(pid) != os.getsid(0)


_PARENT: Final = """
import sys, time
from pathlib import Path
from services.shared import imaging
from services.shared.imaging.processes import confined
image = Path(sys.argv[1]).read_bytes()
confined.decode(image, imaging.Limits(2**24, 10**7, 100.0))
print(*confined.pool().pids, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_processes_end_with_their_parent(number: signal.Signals, tmp_path: Path) -> None:
    """The child ends after any end of its parent."""
    (tmp_path / "image").write_bytes(IMAGES["TIFF"])
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(tmp_path / "image")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(number)
    gone = threading.Event()
    for _ in range(600):
        if not _running(pid):
            gone.set()
            break
        gone.wait(0.05)
    assert gone.is_set()


def _running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_the_time_limit_follows_the_decoded_pixels() -> None:
    """The limit is half a second for a small image, and twelve seconds at the default limits."""
    small = imaging.Probe("HEIF", "image/heif", 64, 64)
    assert confined.cpu_seconds_of(small, 10_000) < 0.6
    hidden = replace(small, decoded_pixels=12_000_000)
    assert confined.cpu_seconds_of(hidden, 10_000) > 1.5
    largest = imaging.Probe("HEIF", "image/heif", 8000, 8000)
    assert confined.cpu_seconds_of(largest, 15 * 2**20) < 12
