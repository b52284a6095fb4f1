"""Writes Annoy files in a child process, and opens them in this one.

Annoy grows a file that it has mapped. On a full volume that raises SIGBUS, which must not end
the process that builds.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from annoy import AnnoyIndex

from services.searcher.index.methods.method import Workspace, reading, require_contents, unwritten
from services.searcher.index.scan import Positions
from services.searcher.progress import Progress
from services.shared.volume.manifest import Plan, Shard, Shards

METRIC: Final = "angular"
_SEED: Final = 1
_ERROR_CHARACTERS: Final = 300
_LOOK_SECONDS: Final = 0.5


def write_shards(work: Workspace, plan: Plan, rows: Positions | None = None) -> Shards:
    """Write the rows of the plan's matrix as Annoy files beside it, one after another.

    Memory: a block of rows; a growing file is mapped, so the kernel can write it out.

    Args:
        work: the version's directory and settings.
        plan: dimension and trees.
        rows: write only these; a file's numbers are then places in this list.

    Raises:
        BuildFailed: a file could not be written.
    """
    count = work.count if rows is None else len(rows)
    name = plan.method if rows is None else f"{plan.method}-trial"
    size, matrix = work.settings.shard_items, work.matrix(plan)
    shards = tuple(
        Shard(f"{name}-{number}.ann", first, min(size, count - first))
        for number, first in enumerate(range(0, count, size))
    )
    work.progress.begin("growing trees", len(shards), "files")
    with _saved(matrix.with_name("rows.npy"), rows) as chosen:
        for shard in shards:
            numbers = (plan.dimension, shard.first, shard.count, plan.trees)
            arguments = [matrix, matrix.with_name(shard.file), *numbers, *chosen]
            if work.in_children:
                _run_child(arguments, work.progress)
            else:
                main([*map(str, arguments)])
            work.progress.advance()
    return shards


def _run_child(arguments: Sequence[object], progress: Progress) -> None:
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:  # noqa: S603 (this very module)
        try:
            errors = _wait(child, progress)
        except BaseException:
            child.kill()
            raise
    if child.returncode == 0:
        return
    if child.returncode < 0:
        why = signal.strsignal(-child.returncode) or f"signal {-child.returncode}"
    else:
        why = errors.strip()[-_ERROR_CHARACTERS:]
    raise unwritten(arguments[1], why)


def _wait(child: subprocess.Popen[str], progress: Progress) -> str:
    """Wait for the child, unless `progress` raises; return its error output."""
    while True:
        try:
            return child.communicate(timeout=_LOOK_SECONDS)[1]
        except subprocess.TimeoutExpired:
            progress.advance(0)


@contextmanager
def _saved(path: Path, rows: Positions | None) -> Iterator[Sequence[Path]]:
    """Save the rows to a file inside the context; yield no path without rows."""
    if rows is None:
        yield []
        return
    np.save(path, rows)
    try:
        yield [path]
    finally:
        path.unlink()


def load(path: Path, dimension: int, count: int) -> AnnoyIndex:
    """Map the file. Raises IndexCorrupt; only a file whose hash was checked is safe to map."""
    annoy = AnnoyIndex(dimension, METRIC)
    with reading(path):
        # Without prefault, which holds the GIL while the disk reads.
        annoy.load(str(path))
    require_contents(path, (annoy.get_n_items(), annoy.f), (count, dimension))
    return annoy


def main(arguments: Sequence[str]) -> None:
    """Run the child: map the rows, add them, grow the trees on disk."""
    matrix, out, *numbers = arguments[:6]
    dimension, first, count, trees = (int(number) for number in numbers)
    rows = np.memmap(matrix, "<f4", mode="r").reshape(-1, dimension)
    shard: Iterable[int] = range(first, first + count)
    for chosen in arguments[6:]:
        shard = np.load(chosen)[first : first + count]
    annoy = AnnoyIndex(dimension, METRIC)
    annoy.set_seed(_SEED)
    annoy.on_disk_build(out)
    for number, row in enumerate(shard):
        annoy.add_item(number, rows[row].tolist())
    annoy.build(trees)


if __name__ == "__main__":
    main(sys.argv[1:])
