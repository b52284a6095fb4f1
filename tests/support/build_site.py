"""A folder of images, a volume and a fake embedder, to build indexes with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.searcher.build.builder import BuildReport, BuildRequest, build
from services.searcher.progress import NoProgress, Progress
from services.searcher.settings import IndexSettings
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings, load
from services.shared.volume.items import Item, ItemCatalog
from services.shared.volume.volume import Volume
from tests.support.fake_embedder import FakeEmbedder
from tests.support.pictures import plain_jpeg

NAME = "birds"


@dataclass
class Site:
    """Holds a folder of images, a volume, and a fake embedder on a broker in memory."""

    folder: Path
    volume: Volume
    broker: MemoryBroker
    embedder: FakeEmbedder
    settings: IndexSettings

    def draw(self, path: str, seed: int) -> bytes:
        """Write a picture into the folder, and return its bytes."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(plain_jpeg((seed, 2 * seed, 90), (40, 30)))
        return file.read_bytes()

    def shared(self, **limits: int) -> SharedSettings:
        """Return the settings that all services share."""
        return load(SharedSettings, root=self.volume.root, replica="test", **limits)

    async def build(self, progress: Progress | None = None, **limits: int) -> BuildReport:
        """Run a build; `limits` are the limits of callers."""
        shared = self.shared(**limits)
        request = BuildRequest(NAME, self.folder)
        progress = progress or NoProgress()
        return await build(
            request, self.settings, shared, self.broker, self.volume, progress=progress
        )

    def items(self) -> list[Item]:
        """Return the active version's items."""
        return list(ItemCatalog(self.directory() / "items.sqlite"))

    def directory(self) -> Path:
        """Return the active version's folder."""
        return self.volume.directory(NAME, self.volume.active(NAME))
