"""Searches by an image of each collection, and expects the image itself as the first result.

`helm test` runs this file in a pod of upload's image; it needs only Python.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

URL = os.environ["URL"]
WAIT_SECONDS = float(os.environ.get("WAIT_SECONDS", "120"))
SAME = 0.99
"""The minimum similarity of an image to itself; decoding may differ in the last bits."""

# No verification: the certificate is for the ingress or the cluster, not for the Service.
TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE


def ask(path: str, body: bytes | None = None) -> bytes:
    """Return the body of the answer."""
    request = urllib.request.Request(URL + path, data=body)
    if os.environ.get("API_KEY"):
        request.add_header("Authorization", "Bearer " + os.environ["API_KEY"])
    if body is not None:
        request.add_header("Content-Type", "application/octet-stream")
    with urllib.request.urlopen(request, timeout=30, context=TLS) as answer:
        return answer.read()


def search_all() -> list[str]:
    """Search every collection; return a line for each. Raises an error for a wrong answer."""
    collections = json.loads(ask("/v1/collections"))["collections"]
    if not collections:
        message = "there is no collection to search yet"
        raise LookupError(message)
    lines = []
    for collection in collections:
        name = collection["name"]
        item = json.loads(ask(f"/v1/collections/{name}/sample?count=1"))["items"][0]
        image = ask(item["image_url"])
        found = json.loads(ask("/v1/search?" + urllib.parse.urlencode({"collection": name}), image))
        best = found["neighbors"][0]
        if best["similarity"] < SAME:
            message = f"{name}: an image of the collection finds only {best}"
            raise ValueError(message)
        lines.append(
            f"{name}: found {item['item_id']} again in {found['timings_ms']['total']:.0f} ms"
        )
    return lines


def main() -> int:
    """Retry until all searches succeed or the time is over."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            print(*search_all(), sep="\n")
        except (OSError, LookupError, ValueError) as error:
            if time.monotonic() > until:
                print(f"no search: {error!r}", file=sys.stderr)
                return 1
            print(f"not yet: {error!r}")
            time.sleep(2)
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
