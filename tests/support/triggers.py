"""Raise the errors and log the records of the SDK for real: "
"wrong calls, error responses, lost leases, journal problems."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from attrs import frozen

import cycles
from cycles import providers
from cycles._core import protocol
from cycles._core.settlement.record import Record, encode, file_name
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.io import run
from tests.support.inside import runtime_of, state_of

ACTION = ("llm.completion", "small-model")
SECRET = "the-key-that-no-message-shows"
HUGE: Any = "x" * 100_000
HUGE_NUMBER: Any = 10**5_000
CENTS = cycles.usd("0.05")
FIVE: Any = 5
Call = Callable[[], object]


@frozen
class Site:
    """A server with one dollar for tenant acme, its client, and a folder for files."""

    server: cycles.EmbeddedServer
    client: cycles.Cycles
    folder: Path

    def reserve(self, estimate: Any = CENTS, **options: Any) -> cycles.Reservation:
        return self.client.reserve(estimate, **{"action": ACTION, **options})

    def guard(self, **options: Any) -> Any:
        return self.reserve(**options).acquire()


def open_site(folder: Path) -> Site:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(1)}, api_keys={SECRET: "acme"})
    return Site(server, server.client(api_key=SECRET, journal_dir=folder), folder)


def settings() -> dict[str, Call]:
    """Return calls of `Cycles()` with wrong settings. Each setting also gets a huge value."""
    fitting: dict[str, Any] = {"base_url": "http://localhost", "api_key": SECRET}
    wrong: dict[str, dict[str, Any]] = {
        "unknown setting": {"timeot": 1},
        "key with a line break": {"api_key": SECRET + "\n"},
        "address with a password": {"base_url": f"http://user:{SECRET}@localhost"},
        "address without a scheme": {"base_url": "localhost:7878"},
    }
    names = ("timeout", "journal", "journal_dir", "lease_policy", "on_unavailable", "max_connections", "shadow")
    wrong |= {f"huge {name}": {name: HUGE + "\0"} for name in (*names, "base_url", "flush_timeout")}
    return {name: partial(cycles.Cycles, **{**fitting, **given}) for name, given in wrong.items()}


def arguments(site: Site) -> dict[str, Call]:
    """Return calls with wrong arguments. Huge values show that messages are bounded."""
    calls: dict[str, Call] = {
        "estimate": lambda: site.guard(estimate=HUGE),
        "action": lambda: site.guard(action=HUGE),
        "tags": lambda: site.guard(action=cycles.Action("a", "b", tags=HUGE)),
        "subject": lambda: site.guard(subject=HUGE),
        "level": lambda: site.guard(subject={HUGE: "x"}),
        "key": lambda: site.guard(idempotency_key=HUGE),
        "empty key": lambda: site.guard(idempotency_key=""),
        "wait": lambda: site.guard(wait=HUGE),
        "shadow": lambda: site.guard(shadow=HUGE),
        "policy": lambda: site.guard(lease_policy=HUGE),
        "overage": lambda: site.guard(overage_policy=HUGE),
        "ttl": lambda: site.guard(ttl_ms=HUGE),
        "huge overage": lambda: site.guard(overage_policy=HUGE_NUMBER),
        "huge ttl": lambda: site.guard(ttl_ms=HUGE_NUMBER),
        "ttl too small": lambda: site.guard(ttl_ms=1),
        "metadata": lambda: site.guard(metadata={"a": {HUGE: {1}}}),
        "metadata key": lambda: site.guard(metadata={(HUGE,): 1}),
        "unit of actual": lambda: site.guard(actual=cycles.tokens(1)),
        "commit without amount": lambda: site.guard().commit(),
        "commit of a string": lambda: site.guard().commit(HUGE),
        "extend": lambda: site.guard().extend(HUGE),
        "metrics": lambda: site.client.record(CENTS, action=ACTION, metrics=HUGE),
        "token": lambda: site.client.attach(HUGE),
        "observer": lambda: site.client.on_event(HUGE),
        "reservation id": lambda: site.client.reservation(HUGE),
        "raw operation": lambda: site.client.raw(HUGE),
        "guarded option": lambda: guarded(site, **{HUGE: 1}),
        "guarded object": lambda: site.client.guarded(CENTS, action=ACTION)(HUGE),
        "stream": lambda: site.guard().wrap(FIVE),
        "usd": lambda: cycles.usd(HUGE),
        "huge number": lambda: cycles.usd(HUGE_NUMBER),
        "huge amount": lambda: cycles.tokens(HUGE_NUMBER),
        "amount without unit": lambda: cycles.Amount.parse("1 " + HUGE),
        "negative amount": lambda: cycles.tokens(-1),
        "fraction": lambda: cycles.tokens(1.5),  # type: ignore[arg-type]
        "units differ": lambda: cycles.usd(1) + cycles.tokens(1),
        "price": lambda: cycles.PriceBook({"m": HUGE}),
        "unknown count": lambda: cycles.PriceBook({"m": ("1", "2")}).cost("m", **dict.fromkeys([HUGE], 1)),
        "unknown model": lambda: cycles.PriceBook({"m": ("1", "2")}).cost(HUGE, tokens_input=1),
        "budget of the server": lambda: cycles.EmbeddedServer(budgets={"tenant:acme": HUGE}),
        "scope of the server": lambda: cycles.EmbeddedServer(budgets={HUGE: cycles.usd(1)}),
    }
    return calls


def states(site: Site) -> dict[str, Call]:
    """Return calls that the state of a guard, of the budget or of the client forbids."""

    def second_commit() -> None:
        guard = site.guard()
        guard.commit(CENTS)
        guard.commit(CENTS)

    def forbidden_tool() -> None:
        site.server.ledger.set_budget("tenant:capped", cycles.usd(1), caps={"tool_denylist": [HUGE]})
        with site.server.client(tenant="capped").reserve(CENTS, action=ACTION) as guard:
            guard.commit(CENTS)
            guard.require_tool(HUGE)

    return {
        "budget exceeded": lambda: site.guard(estimate=cycles.usd(2)),
        "no budget": lambda: site.guard(subject={"tenant": "acme", "agent": "bot"}, estimate=cycles.tokens(1)),
        "other tenant": lambda: site.guard(subject={"tenant": "other"}),
        "unknown reservation": lambda: site.client.reservation("r-unknown"),
        "wrong key": lambda: site.server.client(tenant="acme", api_key="wrong").reservation("r-1"),
        "second commit": second_commit,
        "forbidden tool": forbidden_tool,
        "closed client": lambda: closed(site).balances(),
        "webhook signature": lambda: receiver().receive(body=b"{}", headers={"X-Cycles-Signature": HUGE}),
        "webhook body": lambda: signed(b"[]"),
        "webhook member": lambda: signed(b'{"event_id": 1}'),
        "webhook time": lambda: signed(event("2020-01-01T00:00:00Z")),
        "evidence": lambda: cycles.verify_evidence(HUGE),
        "provider client": lambda: providers.guard(object(), client=site.client),
    }


def guarded(site: Site, **options: Any) -> object:
    return site.client.guarded(CENTS, action=ACTION, **options)(print)


def closed(site: Site) -> cycles.Cycles:
    client = site.server.client(tenant="acme")
    client.close()
    return client


def receiver() -> cycles.WebhookReceiver:
    return cycles.WebhookReceiver(SECRET, max_age_ms=1000)


def signed(body: bytes) -> object:
    from cycles.webhooks import sign_webhook

    headers = {"X-Cycles-Signature": sign_webhook(body, SECRET)}
    return receiver().receive(body=body, headers=headers, now=datetime(2026, 1, 1, tzinfo=UTC))


def event(timestamp: str) -> bytes:
    names = ("event_id", "event_type", "category", "tenant_id", "source")
    return json.dumps({**dict.fromkeys(names, "x"), "timestamp": timestamp}).encode()


def responses() -> Iterator[tuple[str, Call]]:
    """Yield calls that get each error code of the protocol, and responses that no server should send."""
    for code, row in protocol.ERROR_CODES.items():
        body = {"error": code, "message": f"server message of {code}", "request_id": "req-1"}
        yield code, reserving(httpx.Response(row.status or 400, json=body))
    yield "HTML", reserving(httpx.Response(502, html="<h1>Bad gateway</h1>"))
    yield "empty success", reserving(httpx.Response(200, content=b""))
    yield "redirect", reserving(httpx.Response(302, headers={"Location": "http://elsewhere"}))
    yield "huge message", reserving(httpx.Response(400, json={"error": "X", "message": HUGE, "request_id": HUGE}))
    yield "echoed key", reserving(httpx.Response(401, json={"error": "UNAUTHORIZED", "message": SECRET}))


def reserving(response: httpx.Response) -> Call:
    def call() -> None:
        http = httpx.Client(transport=httpx.MockTransport(lambda request: response))
        with cycles.Cycles(
            base_url="http://stub.test",
            api_key=SECRET,
            tenant="acme",
            http_client=http,
            journal=False,
            flush_timeout=0.0,
        ) as client:
            client.reserve(CENTS, action=ACTION).acquire()

    return call


def reports(folder: Path) -> dict[str, Any]:
    """Return what a client reports of lease losses, dropped guards, failing settlements and a broken journal."""
    events: dict[str, Any] = {}
    for code, row in protocol.ERROR_CODES.items():
        body = {"error": code, "message": f"server message of {code}", "request_id": "req-1"}
        events |= lease_events(code, body, row.status)
    return events | lease_events("no body", b"", 503) | settlement_events() | journal_events(folder)


def observed(server: cycles.EmbeddedServer, **options: Any) -> tuple[cycles.Cycles, list[Any]]:
    """Return a client of the server, and the list of its events."""
    seen: list[Any] = []
    client = server.client(api_key=SECRET, **{"flush_timeout": 0.0, **options})
    client.on_event(seen.append)
    return client, seen


def named(name: str, seen: list[Any]) -> dict[str, Any]:
    return {f"{name} {number} {type(event).__name__}": event for number, event in enumerate(seen)}


def a_server() -> cycles.EmbeddedServer:
    return cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(1)}, api_keys={SECRET: "acme"})


def lease_events(name: str, body: Any, status: int) -> dict[str, Any]:
    """Report one heartbeat with this response."""
    server = a_server()
    client, seen = observed(server)
    with client.reserve(CENTS, action=ACTION, actual=CENTS) as guard:
        server.faults.status("extend", status or 400, body=body)
        assert state_of(guard).heartbeat is not None
        run(send_heartbeat(runtime_of(client).blocking, state_of(guard).heartbeat))
    client.close()
    return named(f"extend {name}", seen)


def settlement_events() -> dict[str, Any]:
    """Report guards that end in unusual ways."""
    server = a_server()
    client, seen = observed(server)

    def fails(usage: object) -> cycles.Amount:
        raise ZeroDivisionError(HUGE)

    with client.reserve(CENTS, action=ACTION, actual=fails) as guard:
        guard.usage.add(tokens_input=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with client.reserve(CENTS, action=ACTION):
            pass
        dropped = client.reserve(CENTS, action=ACTION).acquire()
        dropped.spend(CENTS)
        del dropped
    with client.reserve(CENTS, action=ACTION, shadow=True) as guard:
        guard.commit(CENTS)
    with client.reserve(CENTS, action=ACTION) as guard:
        guard.commit(CENTS, metadata={"bad": object()})
    with client.reserve(CENTS, action=ACTION) as guard:
        guard.commit(cycles.usd(5))  # capped by the budget
    for operation, status in (("commit", 503), ("release", 503), ("commit", 418), ("reserve", 503)):
        server = a_server()
        client, _ = observed(server)
        client.on_event(seen.append)
        server.faults.status(operation, status, body=HUGE, times=None)
        with client.reserve(CENTS, action=ACTION, on_unavailable="allow") as guard:
            guard.release() if operation == "release" else guard.commit(CENTS)
        client.close()
    live = client_with_guard(seen)
    live.close()
    return named("settle", seen)


def client_with_guard(seen: list[Any]) -> cycles.Cycles:
    """Return a client with a live guard, whose lease is lost when the client is closed."""
    client, _ = observed(a_server())
    client.on_event(seen.append)
    guard = client.reserve(CENTS, action=ACTION).acquire()

    def keep(event: object) -> None:
        """Keep the guard as long as the client."""
        assert guard

    client.on_event(keep)
    return client


def journal_events(folder: Path) -> dict[str, Any]:
    """Report a journal that cannot be written, and files in it that are not what they should be."""
    seen: list[Any] = []
    blocked = folder / "blocked"
    blocked.write_bytes(b"")  # a file in place of the directory
    client, _ = observed(a_server(), journal_dir=blocked)
    client.on_event(seen.append)
    with client.reserve(CENTS, action=ACTION) as guard:
        guard.spend(CENTS)
    client.close()
    broken = folder / "broken"
    client, _ = observed(a_server(), journal_dir=broken)
    place = Path(runtime_of(client).records.directory or "")
    client.close()
    place.mkdir(parents=True, exist_ok=True)
    (place / "v2-1.json").write_bytes(b"{")
    body = {"idempotency_key": "k", "actual": CENTS.to_dict()}
    foreign = Record(reservation_id="r1", base_url="http://other.test", commit_body=body)
    (place / file_name("r1")).write_bytes(encode(foreign))
    (place / "v2-2.json").mkdir()
    client, _ = observed(a_server(), journal_dir=broken)
    client.on_event(seen.append)
    client.pending()
    client.flush(5)
    client.close()
    return named("journal", seen)
