"""Bundles the parts that read a query's image: limits, body counts, shrinking, fetching."""

from __future__ import annotations

from dataclasses import dataclass

from services.shared.errors import UrlNotAllowed
from services.upload.http.bodies import Bodies
from services.upload.query.limits import BodyLimits
from services.upload.query.remote_image import RemoteImages
from services.upload.query.shrink import Shrinker


@dataclass(frozen=True, slots=True)
class ImageInput:
    """The parts that read the images of queries.

    Attributes:
        limits: the limits of one body.
        bodies: counts and bounds the bodies of all requests.
        shrinker: shrinks photographs before they are sent to an embedder.
        remote: fetches images by address; None where callers may not use `image_url`.
    """

    limits: BodyLimits
    bodies: Bodies
    shrinker: Shrinker
    remote: RemoteImages | None = None

    async def fetch(self, address: str) -> bytes:
        """Return the image at an address. Raises UrlNotAllowed, and what `RemoteImages` raises."""
        if self.remote is None:
            message = "this Simile does not accept image_url; send the image itself"
            raise UrlNotAllowed(message)
        return await self.remote.fetch(address)
