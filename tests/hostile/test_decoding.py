"""Tests that bombs and broken images end no decoding process, within bounded memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from services.embedder.models.model import Pixels, Preprocessing, Vectors
from services.shared import imaging
from services.shared.contracts import Box
from services.shared.errors import SimileError, by_code
from services.shared.imaging import Probe
from services.shared.messaging import topology
from tests.hostile.bombs import BOMBS, REFUSED, SLOW_TO_MAKE, bomb
from tests.hostile.containers import KINDS, variants
from tests.hostile.mutations import mutated
from tests.hostile.watched import child
from tests.support import pictures
from tests.support.fake_model import GREEN, FakeModel
from tests.support.running_embedder import running_embedder

LIMITS: Final = imaging.Limits(15 * 2**20, 64_000_000, 100.0)
SLACK: Final = 96 * 2**20
"""Allows for the bytes themselves, copies of them, and the decoder's code."""

MAX_CPU_SECONDS: Final = 6.0
"""The limit for an image within the size limits; the slowest measured takes 2.4 s of a core."""

LONG: Final = bool(os.environ.get("HOSTILE_LONG"))
MUTATIONS: Final = 10_000 if LONG else 500
TARGETS: Final = (0, 358) if LONG else (358,)
"""Full size, and a model's input size: but for JPEG both cost the same."""

SEED: Final = 20260301


@pytest.mark.parametrize("name", sorted({*BOMBS} - (set() if LONG else SLOW_TO_MAKE)))
def test_a_bomb_takes_no_more_memory_than_estimated(name: str, tmp_path: Path) -> None:
    """Memory stays within the estimate; a refused file takes little more than its bytes."""
    path = tmp_path / "bomb"
    path.write_bytes(bomb(name))
    with contextlib.suppress(SimileError):
        header = imaging.probe(bomb(name), LIMITS)
    for target in TARGETS:
        foreseen = 0 if name in REFUSED else header.memory(target or None)
        with child(LIMITS.max_pixels) as process:
            result = process.decode(path, target)
        assert result["outcome"] == REFUSED.get(name, "decoded")
        assert result["peak_bytes"] <= foreseen + SLACK, result
        assert result["cpu_seconds"] <= MAX_CPU_SECONDS, result


@pytest.mark.timeout(3600)
def test_broken_images_decode_or_fail_with_a_code(tmp_path: Path) -> None:
    """Thousands of broken images in one process: each gets an answer, memory stays bounded."""
    max_pixels, path, seen = 4_000_000, tmp_path / "image", set()
    with child(max_pixels) as process:
        for image in mutated(MUTATIONS, SEED):
            path.write_bytes(image)
            result = process.decode(path, 358)
            seen.add(result["outcome"])
            assert result["status"] < 500, result
            assert result["peak_bytes"] <= 16 * max_pixels + SLACK, result
    assert seen >= {"decoded", "undecodable_image", "unsupported_format", "too_many_pixels"}


class ConstantModel(FakeModel):
    """Returns a vector for every picture, under the limits of an embedder."""

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Decode the image with the real decoder."""
        return Preprocessing(resize=8, crop=8).prepare(image, LIMITS, box, known=known)

    def embed(self, batch: Pixels) -> Vectors:
        """Return the same vector for each image."""
        self.batches.append(len(batch))
        return np.ones((len(batch), self.dimension), np.float32)


async def test_neighbours_in_the_same_batches_succeed() -> None:
    """Good images between bombs and broken images each get their vector."""
    good = pictures.plain_jpeg(GREEN)
    bad = [*map(bomb, sorted({*REFUSED, "png transparent", "jpeg 40 scans"} - SLOW_TO_MAKE))]
    bad += mutated(200, SEED + 1)
    bad += [variants(kind)[0] for kind in KINDS]
    client_errors = {code for code, error in by_code().items() if 400 <= error.status < 500}
    async with running_embedder(
        ConstantModel(), patience_seconds=250, decode_timeout_seconds=240
    ) as embedder:
        for image in bad:
            await embedder.ask(good, image)
        outcomes = await embedder.outcomes(2 * len(bad))
        assert {outcomes[f"q{number}"] for number in range(0, 2 * len(bad), 2)} == {"ok"}
        assert set(outcomes.values()) <= {"ok", *client_errors}
        assert len(set(outcomes.values())) > 3
        assert max(embedder.model.batches) > 1
        assert await embedder.broker.depth(topology.QUARANTINE.name) == 0
