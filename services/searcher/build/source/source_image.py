"""Describes an image of a folder, as a listing or the disk names it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image file; path is relative to the folder, with forward slashes.

    fault: code and reason if the file can't be in a collection, whatever its content.
    """

    path: str
    label: str
    attributes: Mapping[str, str]
    fault: tuple[str, str] | None = None

    @property
    def item_id(self) -> str:
        """Return 16 hex digits of the path's hash: stable across versions, safe in a URL."""
        return hashlib.blake2b(self.path.encode(), digest_size=8).hexdigest()
