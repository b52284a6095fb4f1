"""Serves with LitServe and its batching: `--workers` processes, `--threads` for each model."""

# No `from __future__ import annotations`: LitServe reads the annotation of decode_request.

import argparse
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found]
from fastapi import Depends, Request  # type: ignore[import-not-found]

from tests.benchmarks.rivals import similarity
from tests.benchmarks.rivals.similarity import Threads


async def body(request: Request) -> bytes:
    """Return the image as it was sent."""
    image: bytes = await request.body()
    return image


class Neighbors(litserve.LitAPI):  # type: ignore[misc]
    """Maps images to ids, in batches."""

    def __init__(self, threads: int, **options: Any) -> None:
        super().__init__(**options)
        self._threads = threads

    def setup(self, device: str) -> None:  # noqa: ARG002 (LitServe's own signature)
        """Load the model in the worker's process."""
        self._model = Threads(similarity.from_environment(), self._threads)

    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> bytes:
        """Return the image's bytes: they are decoded with the batch, by its threads."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Return the inputs unchanged."""
        return inputs

    def predict(self, images: list[bytes]) -> list[list[str]]:
        """Return a list of ids for each image."""
        return self._model.answer(images)

    def unbatch(self, output: list[list[str]]) -> list[list[str]]:
        """Return the results by request."""
        return output

    def encode_response(self, output: list[str]) -> dict[str, list[str]]:
        """Return the answer."""
        return {"ids": output}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch-timeout", type=float, default=0.01)
    options = parser.parse_args()
    api = Neighbors(
        options.threads,
        max_batch_size=similarity.MAX_BATCH,
        batch_timeout=options.batch_timeout,
        api_path="/",
    )
    # Requests of an overloaded server may wait: the client's limit counts.
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=options.workers, timeout=60, fast_queue=True
    )
    server.run(
        host="127.0.0.1", port=options.port, num_api_servers=1, log_level="warning",
        generate_client_file=False, access_log=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
