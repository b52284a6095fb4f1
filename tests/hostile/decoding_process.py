"""Decodes the files named on standard input, and prints the cost of each.

Reads `TARGET PATH` lines (target 0: at full size) and answers each with a line of JSON: outcome
(decoded, or a code), status, peak_bytes above the memory held before, cpu_seconds; both include
the decoding processes.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from pathlib import Path

from services.shared import imaging
from services.shared.errors import SimileError
from services.shared.imaging.processes import confined
from tests.support import pictures


def _memory(name: str, pid: int | str = "self") -> int:
    """Return VmRSS or VmHWM of a process in bytes; 0 when it has ended."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and all its decoding processes, also of ended ones."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + ended.ru_utime + ended.ru_stime
    for pid in confined.pool().pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _held() -> tuple[set[int], int]:
    """Return the decoding processes and the memory of all; reset the peak."""
    pids = set(confined.pool().pids)
    for pid in ("self", *pids):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return pids, _memory("VmRSS") + sum(_memory("VmRSS", pid) for pid in pids)


def _outcome(image: bytes, limits: imaging.Limits, target: int | None) -> tuple[str, int]:
    try:
        imaging.probe(image, limits)  # upload does this before an embedder decodes
        imaging.decode(image, limits, target=target)
    except SimileError as error:
        return error.code, error.status
    return "decoded", 200


def main() -> None:
    """Decode files until the input ends."""
    limits = imaging.Limits(15 * 2**20, int(sys.argv[1]), 100.0)
    imaging.formats()
    # Load the libraries first, here and in a decoding process.
    imaging.decode(pictures.encoded(pictures.scene(), "HEIF"), limits)
    for line in sys.stdin:
        target, _, path = line.rstrip("\n").partition(" ")
        image = Path(path).read_bytes()
        (pids, before), started = _held(), _cpu_seconds()
        outcome, status = _outcome(image, limits, int(target) or None)
        now = pids | set(confined.pool().pids)
        peak = _memory("VmHWM") + sum(_memory("VmHWM", pid) for pid in now)
        result = {
            "outcome": outcome,
            "status": status,
            "peak_bytes": peak - before,
            "cpu_seconds": _cpu_seconds() - started,
        }
        print(json.dumps(result), flush=True)  # noqa: T201 (to the parent)


if __name__ == "__main__":
    main()
