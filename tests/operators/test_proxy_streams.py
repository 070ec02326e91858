"""200 streams through the proxy at the same time: all end whole, and the sum is exact."""

from __future__ import annotations

import asyncio
import threading

import httpx

from tests.operators.kit import processes
from tests.operators.proxying import EXACT, USED, Place, proxied

STREAMS = 200
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 500}


async def _read_all(place: Place, opened: list[None], go: threading.Event) -> list[str]:
    async def one(client: httpx.AsyncClient) -> str:
        async with client.stream("POST", f"{place.openai_url}/chat/completions", json=BODY) as response:
            parts = response.aiter_text()
            text = await anext(parts)
            opened.append(None)
            if len(opened) == STREAMS:
                go.set()  # all are open now
            async for part in parts:
                text += part
            return text

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as client:
        return list(await asyncio.gather(*(one(client) for _ in range(STREAMS))))


@processes
def test_200_streams_at_the_same_time_end_whole_with_the_exact_sum() -> None:
    with proxied() as place:
        go = threading.Event()
        place.provider.reply(usage=USED, text="one two three four", gate=go, gate_after=2, times=STREAMS)
        texts = asyncio.run(_read_all(place, [], go))
        assert len(texts) == STREAMS
        assert all("four" in text and text.endswith("data: [DONE]\n\n") for text in texts)
        place.arrivals.wait_for("commit", STREAMS)
        assert place.spent == EXACT * STREAMS
        assert place.held == 0
        assert place.proxy.app.totals.calls == STREAMS
        assert place.proxy.app.totals.estimated == 0
