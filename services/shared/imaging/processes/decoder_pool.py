"""Keeps processes that decode images, and gives each image to one of them.

An image that crashes a library, or takes more CPU time or memory than foreseen, ends one of these
processes: its own task fails, and the next image gets a new process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, cast

from PIL import Image

from services.shared.errors import (
    DecoderCrashed,
    DecodingTooSlow,
    Overloaded,
    ShuttingDown,
    SimileError,
    from_code,
)
from services.shared.imaging.processes import wire
from services.shared.imaging.processes.wire import Refusal, Task

MAX_WALL_SECONDS: Final = 60.0
"""For one image; a process that waits for something, and so uses no CPU time, ends then."""

_MODULE: Final = "services.shared.imaging.processes.decoding_process"
_KEPT: Final = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "PATH", "TZ")
"""The rest of the environment, secrets among it, is no decoder's business."""

_BROKEN: Final = (OSError, EOFError, ValueError, KeyError, TypeError)
"""A pipe's end, or an answer that is none."""

_ALLOCATOR: Final = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(2**22)}
"""Makes an idle process give the memory of its last image back."""

_ENDING_SECONDS: Final = 2.0
"""From a process's last word to its end."""

_PIPE_BYTES: Final = 2**20


class DecodingProcess:
    """Runs a process that decodes images, each after the other."""

    def __init__(self) -> None:
        """Start it. Raises Overloaded where the system has no room for another process."""
        paths = [path or str(Path.cwd()) for path in sys.path]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(paths), **_ALLOCATOR}
        try:
            # In a session of its own, so that Ctrl-C reaches the parent alone. The process
            # ends with its input, however the parent ended.
            self._popen = subprocess.Popen(  # noqa: S603 (this interpreter, and our own module)
                [sys.executable, "-m", _MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
                pipesize=_PIPE_BYTES,
            )  # fmt: skip
            self._tasks = cast("BinaryIO", self._popen.stdin)
            self._answers = cast("BinaryIO", self._popen.stdout)
        except OSError as error:
            message = f"no process can be started to decode the image in: {error}"
            raise Overloaded(message) from error

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._popen.poll() is None

    def decode(self, image: bytes, task: Task) -> Image.Image | Refusal:
        """The pixels, or why there are none.

        Raises what is in `_BROKEN` when the process died, TimeoutError when it took too
        long and was ended for that.
        """
        late = threading.Event()
        timer = threading.Timer(MAX_WALL_SECONDS, self._end_late, [late])
        timer.daemon = True
        timer.start()
        try:
            wire.send_task(self._tasks, task, image)
            return wire.read_answer(self._answers, task.limits.max_pixels)
        except _BROKEN:
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    def exit_code(self) -> int | None:
        """Wait a moment for the process to end; its exit code, or None where it still runs."""
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(_ENDING_SECONDS)
        return None

    def end(self) -> None:
        """End the process, if it still runs."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._tasks, self._answers):
            with suppress(OSError):  # the other end is gone
                pipe.close()

    def _end_late(self, late: threading.Event) -> None:
        late.set()
        self._popen.kill()


class DecoderPool:
    """As many decoding processes as are needed at a time, and no more than allowed."""

    def __init__(self, size: int) -> None:
        """size: how many processes there may be. They start when an image needs one."""
        self._places = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[DecodingProcess] = []
        self._in_work: set[DecodingProcess] = set()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that run."""
        with self._lock:
            return [process.pid for process in (*self._idle, *self._in_work) if process.alive]

    @property
    def busy(self) -> int:
        """How many images are being decoded."""
        with self._lock:
            return len(self._in_work)

    def decode(self, image: bytes, task: Task) -> Image.Image:
        """The image's pixels; waits while all processes are busy.

        Raises what `imaging.decode` raises, DecodingTooSlow or DecoderCrashed where the image ended
        its process, Overloaded, and ShuttingDown once this is closed.
        """
        with self._places:
            try:
                return self._try(image, task)
            except _Killed:
                # The system was short of memory, perhaps for what another image held.
                pass
            try:
                return self._try(image, task)
            except _Killed as error:
                # The image's own limits end a process in other ways.
                message = "the system ended the decoding process twice, as it does when it is "
                raise Overloaded(message + "short of memory; try again later") from error

    def close(self) -> None:
        """End all processes; what they still decode, and what comes later, is refused."""
        with self._lock:
            self._closed = True
            ending = [*self._idle, *self._in_work]
            self._idle.clear()
        for process in ending:
            process.end()

    def _try(self, image: bytes, task: Task) -> Image.Image:
        with self._process() as process:
            try:
                answer = process.decode(image, task)
            except TimeoutError:
                process.end()
                message = f"the image was not decoded within {MAX_WALL_SECONDS:g} s"
                raise DecodingTooSlow(message) from None
            except _BROKEN:
                code = process.exit_code()
                process.end()
                self._check_open()
                raise _death(code, task) from None
            if not isinstance(answer, Refusal):
                return answer
            if answer.ending:
                process.end()
            raise from_code(answer.code, answer.detail)

    @contextmanager
    def _process(self) -> Iterator[DecodingProcess]:
        """A process for one image: one that is idle, or a new one."""
        self._check_open()
        process = self._taken() or DecodingProcess()
        with self._lock:
            self._in_work.add(process)
        try:
            yield process
        except SimileError:
            raise
        except BaseException:
            process.end()  # its pipes may be in the middle of an answer
            raise
        finally:
            with self._lock:
                self._in_work.discard(process)
                if process.alive:
                    self._idle.append(process)

    def _check_open(self) -> None:
        if self._closed:
            message = "this process is ending and decodes no more images"
            raise ShuttingDown(message)

    def _taken(self) -> DecodingProcess | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                process = self._idle.pop()
            if process.alive:
                return process
            process.end()


class _Killed(Exception):
    """A process was killed from outside."""


def _death(code: int | None, task: Task) -> Exception:
    """The error for an image whose process ended with that exit code, or answered nonsense."""
    if code == -signal.SIGKILL:
        error: Exception = _Killed("a decoding process was killed from outside")
        action = "decoder_killed"
    elif code == -signal.SIGPROF:
        error = DecodingTooSlow(
            f"decoding the image takes more than {task.cpu_seconds:.1f} s of a core"
        )
        action = DecodingTooSlow.code
    else:
        ended = "gave no valid answer" if code is None else f"ended with {code}"
        error = DecoderCrashed(f"the process that decoded the image {ended}")
        action = DecoderCrashed.code
    import structlog  # noqa: PLC0415 (decoding processes import this module, and start faster)

    log = structlog.get_logger(__name__)
    log.warning(str(error), action=action, exit_code=code)
    return error
