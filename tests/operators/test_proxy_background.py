"""Responses made in the background under `cycles run`: held until any request of the run retrieves them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import cycles
from tests.operators.proxying import EXACT, KEY, USED, Place, proxied

RESPONSES = "/openai/v1/responses"
ASKED = {"model": "m", "input": "hi", "max_output_tokens": 500, "background": True}
ESTIMATED = {"actual_source": "estimate"}


def request(place: Place, method: str, path: str, **options: Any) -> httpx.Response:
    """Send a request to the responses API."""
    return httpx.request(method, f"{place.url}/{KEY}{RESPONSES}{path}", timeout=60, **options)


def begin(place: Place, **more: Any) -> str:
    """Begin a response and return its id."""
    begun = place.post(RESPONSES, json={**ASKED, **more}).json()
    assert begun["status"] == "queued"
    return str(begun["id"])


def bound(place: Place) -> int:
    """What the request may cost at most."""
    return int(place.server.requests.of("reserve")[0].json["estimate"]["amount"])


def test_a_response_is_charged_when_it_is_retrieved() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, polls=1)
        response_id = begin(place)
        assert request(place, "GET", f"/{response_id}").json()["status"] == "in_progress"
        assert (place.commits, place.held, place.proxy.app.totals.calls) == ([], bound(place), 0)
        for _ in range(2):
            found = request(place, "GET", f"/{response_id}", headers={"accept-encoding": "gzip"})
            assert found.json()["status"] == "completed"
        assert (place.commits, place.held) == ([(EXACT, {})], 0)
        assert place.proxy.app.totals.models == {"m": [1, EXACT]}
        place.proxy.stop(0)  # the end of the run does not count it again
        assert place.proxy.app.totals.models == {"m": [1, EXACT]}


def test_the_share_that_began_a_response_pays_also_if_another_program_retrieves_it() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, polls=1)
        made = httpx.post(f"{place.url}/{KEY}/shares", json={"name": "a", "limit": "1USD"}).json()
        begun = httpx.post(f"{made['proxy_url']}{RESPONSES}", json=ASKED, timeout=60).json()
        for status in ("in_progress", "completed"):
            assert request(place, "GET", f"/{begun['id']}").json()["status"] == status
        found = place.proxy.shares.document()["a"]
        assert (found["calls"], found["spent"]["amount"]) == (1, EXACT)


def test_a_resumed_stream_charges_it_too() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED)
        response_id = begin(place)
        assert "response.completed" in request(place, "GET", f"/{response_id}?stream=true").text
        assert (place.commits, place.held) == ([(EXACT, {})], 0)
        assert place.proxy.app.totals.models == {"m": [1, EXACT]}


@pytest.mark.parametrize(("method", "path"), [("POST", "/cancel"), ("DELETE", "")])
def test_a_response_that_is_cancelled_or_deleted_is_charged_its_estimate(method: str, path: str) -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, polls=5)
        assert request(place, method, f"/{begin(place)}{path}").status_code == 200
        assert (place.commits, place.held) == ([(bound(place), ESTIMATED)], 0)
        assert place.proxy.app.totals.estimated == 1


def test_a_call_beside_an_open_response_is_counted_when_it_ends() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED, polls=1)
        response_id = begin(place)
        place.provider.reply(usage=USED)
        assert place.post().status_code == 200
        assert place.proxy.app.totals.models == {"m": [1, EXACT]}
        for status in ("in_progress", "completed"):
            assert request(place, "GET", f"/{response_id}").json()["status"] == status
        assert place.proxy.app.totals.models == {"m": [2, 2 * EXACT]}
        assert place.commits == [(EXACT, {})] * 2


def test_an_unknown_response_passes_untouched() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED)
        begin(place)
        assert request(place, "GET", "/resp_9").status_code == 404
        assert (place.commits, place.held) == ([], bound(place))


def test_the_end_of_the_run_charges_the_estimate() -> None:
    with proxied(cycles.usd(1000)) as place:
        place.provider.reply(usage=USED)
        begin(place)
        place.proxy.stop(0)
        totals = place.proxy.app.totals
        assert (place.commits, place.held) == ([(bound(place), ESTIMATED)], 0)
        assert (totals.models, totals.estimated) == ({"m": [1, bound(place)]}, 1)


def test_the_end_of_the_run_charges_the_share_that_began_a_response() -> None:
    with proxied() as place:
        place.provider.reply(usage=USED)
        made = httpx.post(f"{place.url}/{KEY}/shares", json={"name": "a", "limit": "1USD"}).json()
        assert httpx.post(f"{made['proxy_url']}{RESPONSES}", json=ASKED, timeout=60).json()["status"] == "queued"
        place.proxy.stop(0)
        found = place.proxy.shares.document()["a"]
        assert (found["calls"], found["spent"]["amount"]) == (1, bound(place))
