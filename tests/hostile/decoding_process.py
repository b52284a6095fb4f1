"""A process that decodes the files it is told of, one a line, and says what each cost.

It reads `TARGET PATH` lines (target 0: at full size) and answers each with a line of JSON: outcome
(decoded, or a code), status, peak_bytes above what it held before, cpu_seconds.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from services.shared import imaging
from services.shared.errors import SimileError


def _memory(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def _outcome(image: bytes, limits: imaging.Limits, target: int | None) -> tuple[str, int]:
    try:
        imaging.sniff(image, limits)  # as upload does, before an embedder decodes
        imaging.decode(image, limits, target=target)
    except SimileError as error:
        return error.code, error.status
    return "decoded", 200


def main() -> None:
    """Decode until there are no more lines."""
    limits = imaging.Limits(15 * 2**20, int(sys.argv[1]), 100.0)
    imaging.formats()
    for line in sys.stdin:
        target, _, path = line.rstrip("\n").partition(" ")
        image = Path(path).read_bytes()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        before, started = _memory("VmRSS"), time.process_time()
        outcome, status = _outcome(image, limits, int(target) or None)
        told = {
            "outcome": outcome,
            "status": status,
            "peak_bytes": _memory("VmHWM") - before,
            "cpu_seconds": time.process_time() - started,
        }
        print(json.dumps(told), flush=True)  # noqa: T201 (to who asked)


if __name__ == "__main__":
    main()
