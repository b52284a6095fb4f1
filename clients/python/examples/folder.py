"""Search by every image of a folder, a few at a time: python folder.py ~/Pictures."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

from simile_client import AsyncSimile, BatchAnswer, BatchAnswered, BatchFailed


async def main(folder: Path) -> None:
    """Send batches as large as the server accepts, two at once."""
    async with AsyncSimile(deadline_seconds=120) as simile:
        limit = (await simile.collections()).limits.max_batch_images
        places = asyncio.Semaphore(2)

        async def search(files: list[Path]) -> BatchAnswer:
            async with places:
                return await simile.search_batch(files, k=1)

        tasks = [asyncio.create_task(search(files)) for files in batches(folder, limit)]
        for task in tasks:
            for result in (await task).results:
                match result:
                    case BatchAnswered(name=name, answer=answer):
                        print(name, [neighbor.label for neighbor in answer.neighbors])
                    case BatchFailed(name=name, problem=problem):
                        print(name, problem.detail)


def batches(folder: Path, size: int) -> Iterator[list[Path]]:
    """Yield the files of a folder in lists of at most this size."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for start in range(0, len(files), size):
        yield files[start : start + size]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
