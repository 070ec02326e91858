"""The proxy in this process, between a fake provider and an embedded server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

import cycles
from cycles.proxy._routes import ROUTES
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import ProxySettings
from cycles.testing import FakeProvider
from tests.support.requests import Requests
from tests.support.waiting import Arrivals

BOOK = cycles.PriceBook({"m": cycles.Price("1", "10")})
"""A token that is read costs 100 microcents, one that is written 1,000."""
USED = {"tokens_input": 1000, "tokens_output": 100}
EXACT = 1000 * 100 + 100 * 1000
KEY = "s3cret-key"
CHAT_PATH = "/openai/v1/chat/completions"


class Place(Requests):
    """One test's world: provider, proxy and ledger."""

    def __init__(self, provider: FakeProvider, server: cycles.EmbeddedServer, proxy: ProxyServer, url: str) -> None:
        self.provider = provider
        self.server = server
        self.proxy = proxy
        self.url = url
        self.arrivals = Arrivals(server)

    @property
    def openai_url(self) -> str:
        return f"{self.url}/{KEY}/openai/v1"

    @property
    def anthropic_url(self) -> str:
        return f"{self.url}/{KEY}/anthropic"

    @property
    def gemini_url(self) -> str:
        return f"{self.url}/{KEY}/gemini"

    @property
    def spent(self) -> int:
        return self.server.spent("tenant:run").amount

    @property
    def held(self) -> int:
        reserved = self.server.ledger.balance("tenant:run").reserved
        assert reserved is not None
        return reserved.amount

    def post(self, path: str = CHAT_PATH, *, key: str | None = KEY, **options: Any) -> httpx.Response:
        """Send a request as a program without an SDK would."""
        prefix = "" if key is None else f"/{key}"
        options.setdefault("json", {"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        if "content" in options:
            del options["json"]
        return httpx.post(f"{self.url}{prefix}{path}", timeout=120, **options)


@contextmanager
def proxied(
    budget: cycles.Amount | None = None, *, limit: cycles.Amount | None = None, authority: Any = None, **settings: Any
) -> Iterator[Place]:
    """Run the proxy with a budget of the tenant `run`, 1,000 USD by default."""
    with (
        FakeProvider() as provider,
        cycles.EmbeddedServer({"tenant:run": budget or cycles.usd(1000)}) as server,
    ):
        settings = {"upstreams": upstreams(provider.url), "prices": BOOK, "key": KEY, **settings}
        proxy = ProxyServer(ProxySettings(**settings), server.client(tenant="run"), limit=limit, authority=authority)
        url = proxy.start("127.0.0.1", 0)
        try:
            yield Place(provider, server, proxy, url)
        finally:
            proxy.stop(5)


def upstreams(url: str) -> dict[str, str]:
    """Return the base URLs of a fake provider, for every route."""
    return {name: url + route.mount for name, route in ROUTES.items()}


def events(response: httpx.Response) -> list[Any]:
    """Return the parsed events of a stream, without the last one."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
