"""Decodes images for another process, within limits of CPU time and memory.

Started with `python -m`, it reads tasks from its standard input and writes answers to its standard
output, until the input ends. A library that crashes, or exceeds a limit, ends only this
process.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from PIL import AvifImagePlugin, Image

from services.shared.errors import DecoderCrashed, SimileError
from services.shared.imaging.decode import decode
from services.shared.imaging.probe import formats
from services.shared.imaging.processes import wire
from services.shared.imaging.processes.wire import Refusal, Task

MAX_THREADS: Final = 2
"""The threads for an image: other decoders have other cores."""

_STATUS: Final = Path("/proc/self/status")


def main() -> None:
    """Answer tasks until the input ends."""
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # Libraries print to standard output and error, which must not mix with answers or a log.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # short of memory the kernel kills this process, not its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    formats()
    AvifImagePlugin.DEFAULT_MAX_THREADS = MAX_THREADS
    with suppress(ImportError):
        importlib.import_module("pi_heif").options.DECODE_THREADS = MAX_THREADS
    with suppress(EOFError, BrokenPipeError):
        while _answered_next(tasks, answers):
            _give_back_memory()
    os._exit(0)  # nothing needs a cleanup


def _answered_next(tasks: BinaryIO, answers: BinaryIO) -> bool:
    """Decode the next image and answer; return False if the process must end then."""
    read = wire.read_task(tasks)
    if read is None:
        return False
    made = _decoded(*read)
    if isinstance(made, Refusal):
        wire.send_refusal(answers, made)
        return not made.ending
    wire.send_pixels(answers, made)
    return True


def _give_back_memory() -> None:
    """Return the memory of the last image to the system, with glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _decoded(task: Task, image: bytes) -> Image.Image | Refusal:
    _limit_memory(task.memory_bytes)
    # A signal without a handler ends the process, also within a library.
    signal.setitimer(signal.ITIMER_PROF, task.cpu_seconds)
    try:
        return decode(image, task.limits, target=task.target, box=task.box)
    except SimileError as error:
        if isinstance(error.__cause__, MemoryError):
            return _out_of_memory()
        return Refusal(error.code, str(error))
    except MemoryError:
        return _out_of_memory()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _out_of_memory() -> Refusal:
    # The libraries are in an undefined state after that.
    detail = "decoding the image takes far more memory than its header says: save it as JPEG"
    return Refusal(DecoderCrashed.code, detail, ending=True)


def _limit_memory(more: int) -> None:
    """Limit the memory of the process to that much more than now, where the system can."""
    with suppress(OSError, ValueError):
        found = re.search(r"VmData:\s+(\d+) kB", _STATUS.read_text())
        if found is not None:
            limit = 1024 * int(found[1]) + more
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    main()
