"""Search by the image at a path, and print the neighbours: python search.py photo.jpg."""

from __future__ import annotations

import sys

from simile_client import Simile

with Simile("http://127.0.0.1:8080") as simile:
    for neighbor in simile.search(sys.argv[1], k=3).neighbors:
        print(f"{neighbor.similarity:.3f} {neighbor.label} {neighbor.path}")
