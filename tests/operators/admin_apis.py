"""Fake admin APIs of OpenAI and Anthropic with exact sums, two days a page, and a ledger that is nine days long."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from attrs import Factory, define, field

import cycles
from cycles.cli import reconcile as command

KEY: Final = "sk-admin-very-secret-0123456789"
CENT: Final = 1_000_000
DAYS_PER_PAGE: Final = 2


@define(kw_only=True)
class Billed:
    """One line of the bill.

    Attributes:
        day: The day in UTC.
        model: As the bill names it; None for a line without a model.
        amount: US dollars as a decimal string.
        calls: Its calls.
        tier: Its service tier.
        listed: US dollars before a discount.
        item: What follows the model in a line item of OpenAI, or the name of a line without a model.
    """

    day: date
    model: str | None
    amount: str
    calls: int | None = 1
    tier: str | None = None
    listed: str | None = None
    item: str = "input_tokens"
    batch: bool = False


@define
class Seen:
    """One request."""

    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]


@define
class AdminApis:
    """The admin APIs of both providers on one address."""

    bill: list[Billed] = Factory(list)
    has_analytics: bool = True
    has_embeddings: bool = True
    respond: Callable[[Seen], tuple[int, dict[str, str], bytes] | None] = lambda seen: None
    requests: list[Seen] = Factory(list)
    url: str = ""
    _lock: Any = field(factory=threading.Lock)

    def handle(self, seen: Seen) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            self.requests.append(seen)
        given = self.respond(seen)
        if given is not None:
            return given
        if seen.path == "/v1/organization/costs":
            return self._paged(seen, self._openai(seen, _cost))
        if seen.path == "/v1/organization/usage/completions":
            return self._paged(seen, self._openai(seen, _of_texts))
        if seen.path == "/v1/organization/usage/embeddings" and self.has_embeddings:
            return self._paged(seen, self._openai(seen, _of_embeddings))
        if seen.path == "/v1/organizations/analytics/cost" and self.has_analytics:
            return self._paged(seen, self._anthropic(seen, flat=True))
        if seen.path == "/v1/organizations/cost_report":
            return self._paged(seen, self._anthropic(seen, flat=False))
        return 404, {}, json.dumps({"error": {"message": "not found"}}).encode()

    def _openai(self, seen: Seen, result: Any) -> list[list[str]]:
        start, end = (int(seen.query[name][0]) for name in ("start_time", "end_time"))
        pages: list[list[str]] = []
        for number, day in enumerate(_days(start, end)):
            at = int(datetime.combine(day, datetime.min.time(), UTC).timestamp())
            results = [made for each in self.bill if each.day == day for made in result(each)]
            bucket = f'{{"object":"bucket","start_time":{at},"end_time":{at + 86_400},"results":[{",".join(results)}]}}'
            if number % DAYS_PER_PAGE == 0:
                pages.append([])
            pages[-1].append(bucket)
        return pages

    def _anthropic(self, seen: Seen, *, flat: bool) -> list[list[str]]:
        start, end = (datetime.fromisoformat(seen.query[name][0]) for name in ("starting_at", "ending_at"))
        pages: list[list[str]] = []
        for number, day in enumerate(_days(start.timestamp(), end.timestamp())):
            if number % DAYS_PER_PAGE == 0:
                pages.append([])
            at = {"starting_at": f"{day}T00:00:00Z", "ending_at": f"{day + timedelta(days=1)}T00:00:00Z"}
            rows = [_analysed(each, at) if flat else _reported(each) for each in self.bill if each.day == day]
            pages[-1] += [json.dumps(row) for row in rows] if flat else [json.dumps({**at, "results": rows})]
        return pages

    def _paged(self, seen: Seen, pages: list[list[str]]) -> tuple[int, dict[str, str], bytes]:
        number = int(seen.query.get("page", ["page_0"])[0].removeprefix("page_"))
        more = number + 1 < len(pages)
        token = json.dumps(f"page_{number + 1}" if more else None)
        data = ",".join(pages[number]) if pages else ""
        body = f'{{"object":"page","data":[{data}],"has_more":{json.dumps(more)},"next_page":{token}}}'
        return 200, {"Content-Type": "application/json"}, body.encode()


def _days(start: float, end: float) -> list[date]:
    first, last = datetime.fromtimestamp(start, UTC).date(), datetime.fromtimestamp(end, UTC).date()
    return [first + timedelta(days=number) for number in range((last - first).days)]


def _cost(each: Billed) -> Iterator[str]:
    """Yield the amount of a line in two parts, as JSON numbers with all their digits."""
    item = each.item if each.model is None else f"{each.model}, {each.item}"
    yield (
        f'{{"object":"organization.costs.result","line_item":{json.dumps(item)},"project_id":null,'
        f'"amount":{{"value":{each.amount},"currency":"usd"}}}}'
    )


def _usage(each: Billed) -> Iterator[str]:
    if each.model is not None and each.calls is not None:
        yield json.dumps(
            {
                "object": "organization.usage.completions.result",
                "model": each.model,
                "num_model_requests": each.calls,
                "service_tier": each.tier or "default",
                "batch": each.batch,
                "input_tokens": 1,
                "output_tokens": 1,
            }
        )


def _of_texts(each: Billed) -> Iterator[str]:
    yield from () if "embedding" in (each.model or "") else _usage(each)


def _of_embeddings(each: Billed) -> Iterator[str]:
    yield from _usage(each) if "embedding" in (each.model or "") else ()


def _cents(dollars: str) -> str:
    from decimal import Decimal

    return str(Decimal(dollars) * 100)


def _analysed(each: Billed, at: Mapping[str, str]) -> dict[str, Any]:
    cost = {"amount": _cents(each.amount), "list_amount": _cents(each.listed or each.amount), "currency": "USD"}
    group = {"model": each.model, "service_tier": each.tier or "standard"}
    return {**at, "cost": {**cost, "requests": each.calls}, "group": group}


def _reported(each: Billed) -> dict[str, Any]:
    described = {"description": each.item if each.model is None else f"{each.model} Usage", "model": each.model}
    return {**described, "amount": _cents(each.amount), "currency": "USD", "service_tier": each.tier or "standard"}


@contextmanager
def serving(apis: AdminApis) -> Iterator[AdminApis]:
    """Serve the APIs on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else the body waits 40 ms for the acknowledgement of the head

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, body = apis.handle(Seen(parts.path, parse_qs(parts.query), headers))
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a command that reads no more has left
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    apis.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield apis
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def today() -> date:
    """Return the day that is not over; `one_day` keeps it."""
    return command.today()


def ago(days: int) -> date:
    """Return the day that was so many days ago."""
    return today() - timedelta(days=days)


class Ledger:
    """A ledger whose clock a test moves over days, with nine finished days before today."""

    def __init__(self, budget: cycles.Amount | None = None, days: int = 9) -> None:
        start = datetime.combine(ago(days), datetime.min.time(), UTC)
        self.clock = cycles.ManualClock(int(start.timestamp() * 1000))
        self._day = ago(days)
        self.server = cycles.EmbeddedServer({"tenant:acme": budget or cycles.usd(1000)}, clock=self.clock)
        self.client = self.server.client(tenant="acme", journal=False)
        self.url = ""

    def close(self) -> None:
        self.client.close()
        self.server.close()

    def go_to(self, day: date, hours: float = 12) -> None:
        """Move the clock to an hour of a day."""
        at = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=hours)
        self.clock.advance(max(0, int(at.timestamp() * 1000) - self.clock.now_ms()))

    def spend(
        self,
        day: date,
        model: str,
        dollars: str,
        *,
        hours: float = 12,
        metadata: Mapping[str, Any] | None = None,
        committed: Mapping[str, Any] | None = None,
        kind: str = "llm.completion",
        subject: Mapping[str, Any] | None = None,
    ) -> None:
        """Charge one call of a day."""
        self.go_to(day, hours)
        amount = cycles.usd(dollars)
        guard = self.client.reserve(amount, action=(kind, model), metadata=metadata, subject=subject).acquire()
        guard.commit(amount, metadata=committed)

    def expire(self, day: date, model: str, dollars: str) -> None:
        """Reserve for a call whose process is killed."""
        self.go_to(day)
        self.client.reserve(cycles.usd(dollars), action=("llm.completion", model), ttl_ms=10_000).acquire().detach()
        self.clock.advance(60_000)

    @property
    def spent(self) -> int:
        return self.server.spent("tenant:acme").amount
