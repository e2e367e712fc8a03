"""The application: addresses, and what each answers. `openapi.py` describes them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from mrl_jax.search.server.about import about, rows
from mrl_jax.search.server.batches import Batches
from mrl_jax.search.server.guard import App, Guard, Scope, Send
from mrl_jax.search.server.limits import Limits, RefusedError
from mrl_jax.search.server.openapi import document
from mrl_jax.search.server.page import Page, reference_page, search_page
from mrl_jax.search.server.pictures import Thumbnails, as_file
from mrl_jax.search.server.requests import number, parameters, picture_body
from mrl_jax.search.server.service import Ask, Service
from mrl_jax.version import __version__

__all__ = ["make_app"]


def make_app(service: Service, pictures: Thumbnails, limits: Limits, names: frozenset[str] | None, top: int) -> App:
    """The server as an ASGI application.

    Args:
        service: answers queries; only one thread of this application calls it.
        pictures: small pictures of rows.
        limits: bounds.
        names: names that a request may be addressed to; None for any.
        top: number of results where a request does not say it.
    """
    server = _Server(service, pictures, limits, top)
    routes = [
        Route("/", _page(search_page())),
        Route("/docs", _page(reference_page(server.described))),
        Route("/openapi.json", server.openapi),
        Route("/healthz", server.health),
        Route("/api/about", server.about),
        Route("/api/rows", server.rows),
        Route("/api/search", server.search, methods=["GET", "POST"]),
        Route("/api/picture/{modality:int}/{split}/{row:int}", server.picture),
    ]

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        server.close()

    router = Router(routes, redirect_slashes=False, lifespan=lifespan)

    async def app(scope: Scope, receive: Any, send: Send) -> None:
        scope["app"] = router  # so that it raises, and `Guard` answers
        try:
            await router(scope, receive, send)
        except HTTPException as error:
            raise _refusal(scope, error) from None

    return Guard(app, limits, names)


def _refusal(scope: Scope, error: HTTPException) -> RefusedError:
    if error.status_code == 405:
        allowed = "GET, POST" if scope["path"] == "/api/search" else "GET"
        return RefusedError(405, f"{scope['method']} is not possible here; use {allowed}", allow=allowed)
    return RefusedError(404, "there is nothing at this address; / is the page, /docs lists the addresses")


def _page(page: Page) -> Any:
    async def endpoint(_: Request) -> Response:
        headers = {"content-security-policy": page.policy, "cache-control": "no-cache"}
        return Response(page.html, media_type="text/html; charset=utf-8", headers=headers)

    return endpoint


class _Server:
    """The endpoints, and what they share."""

    def __init__(self, service: Service, pictures: Thumbnails, limits: Limits, top: int) -> None:
        self._service, self._pictures, self._limits, self._top = service, pictures, limits, top
        self._batches = Batches(service.answer, limits.batch, limits.waiting)
        self._small, self._large = (ThreadPoolExecutor(1, name) for name in ("small", "pictures"))
        self._sent = 0
        self._numbers = {m: i for i, m in enumerate(service.searcher.run.modalities)}
        self._about = about(service, top)
        self.described = document(limits, top)

    def close(self) -> None:
        self._batches.close()
        self._small.shutdown(wait=True)
        self._large.shutdown(wait=True)

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok", "version": __version__})

    async def openapi(self, _: Request) -> Response:
        return _json(self.described)

    async def about(self, request: Request) -> Response:
        parameters(request, (), 0)
        return _json(self._about)

    async def rows(self, request: Request) -> Response:
        given = parameters(request, ("modality", "find", "offset"), self._limits.text)
        modality = given.get("modality", next(iter(self._service.galleries)))
        offset = number(given, "offset", 0, 0, 10**9 - 1)
        find, most = given.get("find", ""), self._limits.listed
        found = await _in(self._small, rows, self._service, modality, find, offset, most)
        for row in found["rows"]:
            self._illustrate(row, modality)
        return _json(found)

    async def search(self, request: Request) -> Response:
        if request.scope["method"] == "POST":
            return await self._search_picture(request)
        given = parameters(request, ("text", "row", "gallery", "modality", "top"), self._limits.text)
        if ("text" in given) == ("row" in given):
            raise RefusedError(400, "give either text or row; send a picture by POST")
        if "row" in given and "modality" in given:
            raise RefusedError(400, "a row has its own modality; leave modality out")
        kind = "text" if "text" in given else "row"
        return await self._answered(given, kind, given[kind])

    async def _search_picture(self, request: Request) -> Response:
        given = parameters(request, ("gallery", "modality", "top"), self._limits.text)
        if not self._service.taking("image"):
            raise RefusedError(400, self._service.closed["image"], connection="close")
        if self._sent >= self._limits.pictures:
            raise RefusedError(503, "other pictures wait; try again in a second", retry_after="1", connection="close")
        self._sent += 1
        try:
            data, kind = await picture_body(request, self._limits)
            features = await _in(self._large, self._features, data, kind)
        finally:
            self._sent -= 1
        return await self._answered(given, "image", "picture", features)

    def _features(self, data: bytes, kind: str) -> Any:
        with as_file(data, kind, self._limits) as path:
            return self._service.picture_features(path)

    async def _answered(self, given: Mapping[str, str], kind: str, value: str, features: Any = None) -> Response:
        top = number(given, "top", self._top, 1, self._limits.top)
        query = Ask(kind, value, top, given.get("gallery"), given.get("modality"), features)
        answer = await self._batches.ask(query)
        for result in answer["results"]:
            self._illustrate(result, answer["gallery"]["modality"])
        self._illustrate(answer["query"], answer["query"]["modality"])
        return _json(answer)

    def _illustrate(self, entry: dict[str, Any], modality: str) -> None:
        """Add what a row is asked for by, and where its small picture is."""
        if "split" not in entry:
            return
        entry["address"] = f"{modality}:{entry['split']}:{entry['row']}"
        if self._pictures.has(entry, modality):
            entry["picture"] = f"/api/picture/{self._numbers[modality]}/{quote(entry['split'])}/{entry['row']}"

    async def picture(self, request: Request) -> Response:
        at = request.path_params
        modality = next((m for m, i in self._numbers.items() if i == at["modality"]), None)
        entry = self._service.row(modality, at["split"], at["row"]) if modality is not None else None
        if modality is None or entry is None:
            raise RefusedError(404, "there is no such row")
        data = await _in(self._small, self._pictures.of, at["split"], at["row"], entry["id"], modality)
        if data is None:
            raise RefusedError(404, "this row has no picture")
        return Response(data, media_type="image/png", headers={"cache-control": "private, max-age=3600"})


async def _in(thread: ThreadPoolExecutor, function: Any, *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(thread, function, *args)


def _json(value: Any) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
