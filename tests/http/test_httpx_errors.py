"""An error of a user's httpx client carries no request, whose headers contain the API key."""

from __future__ import annotations

import pickle

import httpx
import pytest

import cycles

KEY = "cyc_live_key_of_this_test"


def test_the_cause_of_a_transport_error_does_not_contain_the_key() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow", request=request)

    with (
        httpx.Client(transport=httpx.MockTransport(fail)) as http,
        cycles.Cycles(base_url="http://a.test", api_key=KEY, tenant="acme", journal=False, http_client=http) as client,
        pytest.raises(cycles.TransportError) as raised,
    ):
        client.decide(cycles.tokens(1), action=("a", "b"))
    assert isinstance(raised.value.__cause__, httpx.ReadTimeout)
    assert KEY not in repr(pickle.dumps(raised.value))
    assert "x-cycles-api-key" not in raised.value.__cause__.request.headers
