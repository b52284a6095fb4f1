"""Serves with BentoML and adaptive batching: BENTO_WORKERS processes."""

# No `from __future__ import annotations`: BentoML reads them.

import os
from typing import Annotated

import bentoml  # type: ignore[import-not-found]
from pydantic import BeforeValidator, WithJsonSchema

from tests.benchmarks.rivals import similarity

Body = Annotated[
    list[bytes],
    # A batch is a list, and a request brings a batch of one, as its body.
    BeforeValidator(lambda body: body if isinstance(body, list) else [body]),
    WithJsonSchema({"type": "string", "format": "binary"}),
]


@bentoml.service(
    workers=int(os.environ.get("BENTO_WORKERS", "1")),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class Neighbors:
    """Maps images to ids, in batches."""

    def __init__(self) -> None:
        self._model = similarity.from_environment()

    @bentoml.api(  # type: ignore[untyped-decorator]
        route="/", batchable=True, max_batch_size=similarity.MAX_BATCH, max_latency_ms=60_000
    )
    def answer(self, images: Body, /) -> list[list[str]]:
        """Return a list of ids for each image."""
        return self._model.answer(images)
