"""Which actions a quota of the embedded server counts, what is given back, and what lists show of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded.action_kinds import cached
from cycles.embedded.options import keys_of

KEY = "admin-key-of-the-test"
MAIL = "message.email.send"
NOON = int(datetime(2026, 4, 9, 12, tzinfo=UTC).timestamp() * 1000)
DAY = "per_day_tumbling"


class Place:
    def __init__(self) -> None:
        self.clock = cycles.ManualClock(start_ms=NOON)
        self.server = cycles.EmbeddedServer(
            {"tenant:acme": cycles.tokens(1000)}, admin_api_key=KEY, protocol="0.1.26", clock=self.clock
        )
        self.http = httpx.Client(transport=self.server.transport(), base_url="http://x")
        self.admin = cycles.Admin("http://x", KEY, http_client=self.http)
        self.number = 0

    def quotas(self, *quotas: dict[str, Any], scope: str = "tenant:acme") -> None:
        self.server.ledger.set_policy("p", scope, quotas=list(quotas))

    def act(self, *, agent: str | None = None, run: str = "run-1", host: str | None = None) -> tuple[int, Any]:
        """Reserve as a program without an SDK would, and return status and body."""
        self.number += 1
        subject = {"tenant": "acme", "dimensions": {"run_id": run}} | ({} if agent is None else {"agent": agent})
        action = {"kind": MAIL, "name": "n"} | ({} if host is None else {"policy_keys": {"host": host}})
        body = {
            "idempotency_key": f"k{self.number}",
            "subject": subject,
            "action": action,
            "estimate": {"unit": "TOKENS", "amount": 1},
        }
        headers = {"X-Cycles-API-Key": self.server.api_key}
        response = self.http.post("/v1/reservations", json=body, headers=headers)
        return response.status_code, response.json()

    def used(self, **query: Any) -> dict[str, int]:
        return {each.window: each.used for each in self.admin.quota_counters("acme", **query)}


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.admin.close()
    place.http.close()
    place.server.close()


def test_a_release_gives_back_what_counts_for_its_run_alone(place: Place) -> None:
    place.quotas(*({"action_kind": MAIL, "window": window, "limit": 5} for window in (DAY, "per_run")))
    for _ in range(2):
        identity = place.act()[1]["reservation_id"]
    assert place.used() == {DAY: 2, "per_run": 2}
    path, headers = f"/v1/reservations/{identity}/release", {"X-Cycles-API-Key": place.server.api_key}
    assert place.http.post(path, json={"idempotency_key": "r"}, headers=headers).status_code == 200
    assert place.used() == {DAY: 2, "per_run": 1}


def test_a_reset_without_a_window_is_that_of_the_newest(place: Place) -> None:
    place.quotas({"action_kind": MAIL, "window": DAY, "limit": 5})
    for count in (1, 2):
        for _ in range(count):
            assert place.act()[0] == 200
        place.clock.advance(86_400_000 * (2 - count))
    counter = place.admin.reset_quota_counter("acme", scope="tenant:acme", window=DAY, action_kind=MAIL)
    assert (counter.window_key, counter.previous_used) == ("2026-04-10", 2)
    assert [each.window_key for each in place.admin.quota_counters("acme")] == ["2026-04-09"], "a zero is not listed"
    assert len(list(place.admin.quota_counters("acme", include_zero=True))) == 2


def test_a_quota_of_hosts_counts_actions_to_them_alone(place: Place) -> None:
    place.quotas({"action_kind": MAIL, "window": DAY, "limit": 1, "hosts": ["a.com"]})
    assert [place.act(host=host)[0] for host in (None, "b.com", "a.com", "b.com")] == [200] * 4
    assert place.act(host="a.com")[1]["error"] == "ACTION_QUOTA_EXCEEDED"


def test_a_quota_of_a_tenant_counts_all_of_its_agents(place: Place) -> None:
    place.server.ledger.set_policy(
        "one", "tenant:acme/agent:a", quotas=[{"action_kind": MAIL, "window": "per_tenant_per_day", "limit": 5}]
    )
    place.act(agent="a")
    [counter] = place.admin.quota_counters("acme")
    assert (counter.scope, counter.used) == ("tenant:acme", 1)


def test_a_list_of_kinds_may_be_cached() -> None:
    headers = {"Pragma": "no-cache", "Expires": "0", "X": "1"}
    assert cached({"a": 1}, {}, headers) == 200
    tag = headers["ETag"]
    assert {"Pragma", "Expires"} & set(headers) == set()
    assert (headers["X"], headers["Cache-Control"]) == ("1", "public, max-age=3600")
    known = {tag: 304, f"W/{tag}": 304, f'"x", W/{tag}': 304, "*": 304, '"x"': 200, "": 200}
    assert {given: cached({"a": 1}, {"if-none-match": given}, {}) for given in known} == known


def test_a_key_may_have_an_equals_sign() -> None:
    assert keys_of(["a=b=acme", "c=acme"]) == {"a=b": "acme", "c": "acme"}
    for wrong in ("acme", "=acme", "a="):
        with pytest.raises(cycles.InvalidRequestError, match="KEY=TENANT"):
            keys_of([wrong])
