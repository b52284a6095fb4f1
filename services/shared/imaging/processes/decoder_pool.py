"""Keeps processes that decode images, and gives each image to one of them.

An image that crashes a library, or exceeds its CPU time or memory, ends its process:
only its own task fails, and the next image gets a new process.
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

_MAX_WALL_SECONDS: Final = 60.0
"""The maximum for an image; a process that waits without using CPU time ends then."""

_MODULE: Final = "services.shared.imaging.processes.decoding_process"
_KEPT: Final = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "PATH", "TZ")
"""The environment of a decoder; other variables, among them secrets, are not passed on."""

_BROKEN: Final = (OSError, EOFError, ValueError, KeyError, TypeError)
"""Errors of a closed pipe or an invalid answer."""

_ALLOCATOR: Final = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(2**22)}
"""Makes an idle process return the memory of its last image."""

_ENDING_SECONDS: Final = 2.0
"""The time between a process's last answer and its end."""

_PIPE_BYTES: Final = 2**20


class DecodingProcess:
    """Runs a process that decodes images, one after another."""

    def __init__(self) -> None:
        """Start the process. Raises Overloaded if the system can't start another process."""
        paths = [path or str(Path.cwd()) for path in sys.path]
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(paths), **_ALLOCATOR}
        try:
            # In its own session, so that Ctrl-C reaches only the parent. The process
            # ends when its input ends, however the parent ended.
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
        """The process id."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._popen.poll() is None

    def decode(self, image: bytes, task: Task, max_wall_seconds: float) -> Image.Image | Refusal:
        """Return the pixels, or the reason why there are none.

        Raises the errors in `_BROKEN` when the process died, TimeoutError when it took too
        long and was ended for that.
        """
        late = threading.Event()
        timer = threading.Timer(max_wall_seconds, self._end_late, [late])
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

    def exit_code(self, seconds: float) -> int | None:
        """Wait for the process to end; return its exit code, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self._popen.wait(seconds)
        return None

    def end(self) -> None:
        """End the process, if it still runs."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._tasks, self._answers):
            with suppress(OSError):  # the other end is closed
                pipe.close()

    def _end_late(self, late: threading.Event) -> None:
        late.set()
        self._popen.kill()


class DecoderPool:
    """Runs as many decoding processes as needed at a time, up to a maximum."""

    def __init__(
        self,
        size: int,
        *,
        max_wall_seconds: float = _MAX_WALL_SECONDS,
        ending_seconds: float = _ENDING_SECONDS,
    ) -> None:
        """Create a pool without processes, which start on demand.

        Args:
            size: the maximum of processes.
            max_wall_seconds: the time for an image on the wall clock.
            ending_seconds: the time for a process to end after its last answer.
        """
        self._max_wall_seconds = max_wall_seconds
        self._ending_seconds = ending_seconds
        self._places = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[DecodingProcess] = []
        self._in_work: set[DecodingProcess] = set()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """Return the ids of the running processes."""
        with self._lock:
            return [process.pid for process in (*self._idle, *self._in_work) if process.alive]

    @property
    def busy(self) -> int:
        """Return how many images are being decoded."""
        with self._lock:
            return len(self._in_work)

    def decode(self, image: bytes, task: Task) -> Image.Image:
        """Return the image's pixels; wait while all processes are busy.

        Raises what `imaging.decode` raises, DecodingTooSlow or DecoderCrashed where the image ended
        its process, Overloaded, and ShuttingDown once this is closed.
        """
        with self._places:
            try:
                return self._try(image, task)
            except _Killed:
                # The system lacked memory, perhaps because of another image.
                pass
            try:
                return self._try(image, task)
            except _Killed as error:
                # Exceeding the image's own limits ends a process differently.
                message = "the system ended the decoding process twice, as it does when it is "
                raise Overloaded(message + "short of memory; try again later") from error

    def close(self) -> None:
        """Stop all processes; images in progress and later ones are refused."""
        with self._lock:
            self._closed = True
            ending = [*self._idle, *self._in_work]
            self._idle.clear()
        for process in ending:
            process.end()

    def _try(self, image: bytes, task: Task) -> Image.Image:
        with self._process() as process:
            try:
                answer = process.decode(image, task, self._max_wall_seconds)
            except TimeoutError:
                process.end()
                message = f"the image was not decoded within {self._max_wall_seconds:g} s"
                raise DecodingTooSlow(message) from None
            except _BROKEN:
                code = process.exit_code(self._ending_seconds)
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
        """Yield a process for an image: an idle one, or a new one."""
        self._check_open()
        process = self._taken() or DecodingProcess()
        with self._lock:
            self._in_work.add(process)
        try:
            yield process
        except SimileError:
            raise
        except BaseException:
            process.end()  # its pipes may have a part of an answer
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
    """Return the error for an image whose process exited with that code, or answered nonsense."""
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
