"""Print every image of a label that is close to the query: python pages.py photo.jpg cat."""

from __future__ import annotations

import sys

from simile_client import Filter, Simile


def main(image: str, label: str) -> None:
    """Read page after page until the distance is reached."""
    with Simile() as simile:
        pages = simile.search_pages(image, k=100, max_distance=0.8, filter=Filter(label=label))
        for page in pages:
            for neighbor in page.neighbors:
                print(neighbor.item_id, neighbor.distance)


if __name__ == "__main__":
    main(*sys.argv[1:])
