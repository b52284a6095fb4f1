"""Handle errors by their class: python errors.py photo.jpg collection."""

from __future__ import annotations

import sys

from simile_client import ApiError, Retries, Simile, Unreachable
from simile_client.problems import UndecodableImage, UnknownCollection, UnsupportedFormat


def main(image: str, collection: str) -> None:
    """Search once, within five seconds, and print what is wrong."""
    retries = Retries(attempts=3)
    with Simile(deadline_seconds=5, retries=retries) as simile:
        try:
            answer = simile.search(image, collection=collection)
        except UnknownCollection:
            print("there are:", [one.name for one in simile.collections().collections])
        except (UnsupportedFormat, UndecodableImage) as error:
            print("choose another image:", error.problem.detail)
        except ApiError as error:
            print(error.code, error.status, error.problem.correlation_id)
        except Unreachable as error:
            print(error)
        else:
            print(answer.matching, "items pass the filter")


if __name__ == "__main__":
    main(*sys.argv[1:])
