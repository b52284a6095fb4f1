"""Runs the model side of the design of 2018: up to 32 images from Redis, every 250 ms."""

from __future__ import annotations

import base64
import json
import os
import time
from typing import Final

import numpy as np
import redis  # type: ignore[import-not-found]

from tests.benchmarks.rivals import similarity
from tests.benchmarks.rivals.similarity import MAX_BATCH, Similarity

QUEUE: Final = "images"
POLL_SECONDS: Final = 0.25
_SHAPE: Final = (224, 224, 3)


def main() -> None:
    """Serve until SIGTERM."""
    store = redis.Redis(port=int(os.environ["RIVAL_REDIS_PORT"]))
    model = similarity.from_environment()
    while True:
        if queued := store.lrange(QUEUE, 0, MAX_BATCH - 1):
            _answer(store, model, [json.loads(one) for one in queued])
        time.sleep(POLL_SECONDS)


def _answer(store: redis.Redis, model: Similarity, queued: list[dict[str, str]]) -> None:
    pixels = np.stack([_decoded(one["image"]) for one in queued])
    for one, ids in zip(queued, model.found(pixels), strict=True):
        store.set(one["id"], json.dumps(ids))
    store.ltrim(QUEUE, len(queued), -1)


def _decoded(image: str) -> similarity.Pixels:
    return np.frombuffer(base64.b64decode(image), np.uint8).reshape(_SHAPE)


if __name__ == "__main__":
    main()
