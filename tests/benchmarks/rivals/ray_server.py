"""Serves with Ray Serve: an HTTP proxy, `--replicas` of the model, its dynamic batching."""

from __future__ import annotations

import argparse
import signal

import ray  # type: ignore[import-not-found]
from ray import serve
from starlette.requests import Request  # type: ignore[import-not-found]

from tests.benchmarks.rivals import similarity


@serve.deployment
class Neighbors:
    """Maps images to ids, in batches."""

    def __init__(self) -> None:
        self._model = similarity.from_environment()

    @serve.batch(max_batch_size=similarity.MAX_BATCH, batch_wait_timeout_s=0.01)  # type: ignore[untyped-decorator]
    async def answer(self, images: list[bytes]) -> list[list[str]]:
        """Return a list of ids for each image."""
        return self._model.answer(images)

    async def __call__(self, request: Request) -> dict[str, list[str]]:
        """Answer a request."""
        return {"ids": await self.answer(await request.body())}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True)
    options = parser.parse_args()
    ray.init(num_cpus=options.replicas, include_dashboard=False, configure_logging=False)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": options.port},
        logging_config={"enable_access_log": False},
    )
    serve.run(
        Neighbors.options(  # type: ignore[attr-defined]
            num_replicas=options.replicas,
            # As in the docs: more than a batch, so that the next batch fills while this batch runs.
            max_ongoing_requests=2 * similarity.MAX_BATCH,
            ray_actor_options={"num_cpus": 1},
        ).bind()
    )
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
