"""Serves the pages for people, their files, and the description of the API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from services.upload.http.path_prefix import page_redirect
from services.upload.http.responses import json_response
from services.upload.security.access import DOCS_PAGE

_HERE: Final = Path(__file__).parent
_PAGES: Final = _HERE / "pages"
_OPENAPI: Final = _HERE / "openapi.json"


@dataclass(frozen=True, slots=True)
class PageHandlers:
    """Answers requests for pages.

    Attributes:
        path_prefix: the path under which a proxy offers Simile; empty without one.
    """

    path_prefix: str = ""

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes."""
        return [
            web.get("/openapi.json", self.openapi),
            web.get("/", self.page),
            web.get(DOCS_PAGE, self.docs),
            web.static("/static", _PAGES),
        ]

    async def page(self, request: web.Request) -> web.StreamResponse:
        """GET /: the search page."""
        return page_redirect(request, self.path_prefix) or web.FileResponse(_PAGES / "index.html")

    async def docs(self, request: web.Request) -> web.FileResponse:
        """GET /docs: the API's description for people."""
        del request
        return web.FileResponse(_PAGES / "docs.html")

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        """GET /openapi.json: the API's description, with its server at the prefix."""
        del request
        if not self.path_prefix:
            return web.FileResponse(_OPENAPI, headers={"Content-Type": "application/json"})
        described = json.loads(_OPENAPI.read_text(encoding="utf-8"))
        return json_response({**described, "servers": [{"url": f"{self.path_prefix}/"}]})
