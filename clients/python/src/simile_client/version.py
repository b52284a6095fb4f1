"""The version of the client, which is that of Simile."""

from __future__ import annotations

__version__ = "0.1.0"
