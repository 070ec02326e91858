"""What the settings of a guarded client decide before a request is sent, and what they log."""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from cycles.providers import paid_by
from cycles.providers._endpoints import find, normalized, stored_response
from cycles.providers._hosts import FreeHost, free_hosts_of, is_free
from cycles.providers._meter import Meter, behind_proxy, make_meter, paid_meter
from cycles.providers._paid import current_payer, sum_of
from cycles.providers._typed import rounded_up, written
from tests.providers.conftest import BOOK

LOCAL = "http://localhost:11434/v1"
FAR = "https://api.openai.com/v1"


def meter(**options: Any) -> Meter:
    return make_meter("openai", "openai", {"prices": BOOK, **options})


# --- which requests are metered


@pytest.mark.parametrize(
    ("options", "method", "path", "url", "found"),
    [
        ({}, "POST", "/chat/completions", FAR, "chat.completions"),
        ({}, "post", "/chat/completions", FAR, "chat.completions"),
        ({}, "GET", "/chat/completions", FAR, None),
        ({}, "POST", "/files", FAR, None),
        ({}, "POST", "/batches", FAR, "refused"),
        ({}, "GET", "/batches", FAR, None),
        ({"unmetered": "estimate", "estimate": cycles.usd(1)}, "POST", "/batches", FAR, "unmetered"),
        ({"unmetered": "allow"}, "POST", "/batches", FAR, None),
        ({"free_hosts": ["localhost"]}, "POST", "/batches", LOCAL, None),
        ({"free_hosts": ["localhost"]}, "POST", "/batches", FAR, "refused"),
        ({"free_hosts": ["localhost"]}, "POST", "/chat/completions", LOCAL, "chat.completions"),
    ],
)
def test_what_a_request_is(options: dict[str, Any], method: str, path: str, url: str, found: str | None) -> None:
    if found == "refused":
        with pytest.raises(
            cycles.InvalidRequestError,
            match=r"^a request to /batches may cost money and cannot be metered: pass unmetered='estimate' with "
            r"estimate= to guard\(\) to settle it at an estimate, or unmetered='allow' to send it unguarded; nothing "
            r"was sent",
        ):
            meter(**options).endpoint(method, path, url)
        return
    endpoint = meter(**options).endpoint(method, path, url)
    assert (endpoint if isinstance(endpoint, str | None) else endpoint.name) == found


def test_requests_through_the_proxy_are_left_to_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cycles")
    monkeypatch.setenv("CYCLES_PROXY_URL", "http://localhost:11434")
    one = meter()
    for path in ("/chat/completions", "/batches", "/files"):
        assert one.endpoint("POST", path, LOCAL) is None
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"guarded openai client: requests to {LOCAL} are metered by the Cycles proxy, not here")
    ]
    assert one.endpoint("POST", "/chat/completions", FAR) is not None


@pytest.mark.parametrize("proxy", ["http://localhost:11434/", "http://localhost:11434//a/", "http://LOCALHOST:11434/a"])
def test_an_address_of_the_proxy_has_no_case_and_no_empty_parts(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("CYCLES_PROXY_URL", proxy)
    assert behind_proxy("http://localhost:11434/a//b")
    assert not behind_proxy("http://localhost:11435/a/b")


class Payer:
    estimate = cycles.usd(1)
    price: Any = None

    def bind(self, request: Any) -> None:
        pass

    def ended(self, request: Any) -> None:
        pass


def test_a_client_of_a_framework_meters_only_what_a_call_pays() -> None:
    one = paid_meter("openai", "openai")
    assert one is paid_meter("openai", "openai")
    assert one.endpoint("POST", "/chat/completions", FAR) is None
    with paid_by(Payer()):
        found = one.endpoint("POST", "/chat/completions", FAR)
        assert one.endpoint("POST", "/batches", FAR) is None
    assert not isinstance(found, str | None)
    assert (found.name, one.wait_s, one.min_output_tokens) == ("chat.completions", 0, None)


# --- what is logged once


ALLOWED = "a request to /x may cost money and is not metered"
CASES: list[tuple[dict[str, Any], Callable[[Meter], object], list[tuple[str, str]]]] = [
    (
        {},
        lambda one: one.report_maximum(4096),
        [
            (
                "INFO",
                "a request sets no output limit; it is reserved at the maximum of its model, 4096 tokens. Set a limit, "
                "or pass max_output_tokens= to guard()",
            )
        ],
    ),
    (
        {},
        lambda one: one.report_lowered(None, 5),
        [
            (
                "WARNING",
                "the output limit of a request was set to 5 tokens, so that it fits its budget. Fund the budget, or "
                "pass min_output_tokens=None to guard() to deny such requests",
            )
        ],
    ),
    (
        {},
        lambda one: one.report_lowered(9, 5),
        [
            (
                "WARNING",
                "the output limit of a request was lowered from 9 to 5 tokens, so that it fits its budget. Fund the "
                "budget, or pass min_output_tokens=None to guard() to deny such requests",
            )
        ],
    ),
    (
        {},
        lambda one: one.report_payer(),
        [
            (
                "WARNING",
                "an integration guards the model call that sends its requests, so that call pays for them. Guard "
                "either the client or the call",
            )
        ],
    ),
    ({"unmetered": "allow"}, lambda one: one.passes_unmetered("/x"), [("WARNING", ALLOWED)]),
    ({"unmetered": "allow"}, lambda one: one.reject_unmetered("/x"), [("WARNING", ALLOWED)]),
]


@pytest.mark.parametrize(("options", "report", "logged"), CASES)
def test_what_a_client_logs_once(
    options: dict[str, Any],
    report: Callable[[Meter], object],
    logged: list[tuple[str, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "cycles")
    one = meter(**options)
    report(one)
    report(one)
    begin = "guarded openai client: "
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [(level, begin + message) for level, message in logged]
    report(meter(**options))
    assert len(caplog.records) == 2 * len(logged)


def test_a_client_of_a_framework_does_not_log_that_its_call_pays(caplog: pytest.LogCaptureFixture) -> None:
    Meter(provider="openai", pricing="openai", only_paid=True).report_payer()
    assert caplog.records == []


def test_two_paths_that_are_not_metered_are_both_logged(caplog: pytest.LogCaptureFixture) -> None:
    one = meter(unmetered="allow")
    assert [one.passes_unmetered(path) for path in ("/a", "/b", "/a")] == [True] * 3
    assert len(caplog.records) == 2


@pytest.mark.parametrize("unmetered", ["refuse", "estimate"])
def test_connections_that_no_hook_can_meter_have_no_estimate(unmetered: str) -> None:
    with pytest.raises(
        cycles.InvalidRequestError,
        match=r"^live may cost money and cannot be metered: pass unmetered='allow' to guard\(\) to use it unguarded; "
        r"nothing was sent",
    ):
        meter(unmetered=unmetered, estimate=cycles.usd(1)).reject_unmetered("live")


def test_a_framework_gets_the_error_of_a_failed_reserve() -> None:
    errors: list[BaseException] = []
    error = ValueError("x")
    make_meter("openai", "openai", {"prices": BOOK}, on_error=errors.append).note_failed_reserve(error)
    meter().note_failed_reserve(error)
    assert errors == [error]


@pytest.mark.parametrize(
    ("reported_cost", "url", "takes"),
    [
        ("known", "https://openrouter.ai/api/v1", True),
        ("known", FAR, False),
        ("always", FAR, True),
        ("never", "https://openrouter.ai/api/v1", False),
    ],
)
def test_when_a_reported_cost_is_the_price(reported_cost: str, url: str, takes: bool) -> None:
    assert meter(reported_cost=reported_cost).takes_cost(url) is takes


# --- options


def test_the_client_is_the_given_one_or_the_default_one() -> None:
    with cycles.EmbeddedServer() as server, server.client(tenant="acme") as given, server.client(tenant="a") as other:
        cycles.set_default_client(other)
        try:
            assert (meter(client=given).client, meter().client) == (given, other)
        finally:
            cycles.set_default_client(None)


def actual(usage: Any) -> cycles.Amount:
    return cycles.usd(1)


@pytest.fixture
def without_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    monkeypatch.setattr("cycles.providers._meter._shared_book", {})


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({}, True),
        ({"unit": "USD_MICROCENTS"}, True),
        ({"unit": "TOKENS"}, False),
        ({"estimate": cycles.tokens(5)}, False),
        ({"estimate": cycles.usd(5)}, True),
        ({"estimate": cycles.usd(5), "actual": actual}, False),
        ({"actual": actual}, True),
        ({"estimate": lambda request: cycles.tokens(5)}, False),
    ],
)
@pytest.mark.usefixtures("without_prices")
def test_which_clients_need_the_package_with_prices(options: dict[str, Any], needs: bool) -> None:
    if needs:
        with pytest.raises(cycles.ConfigurationError, match=r"cycles-sdk\[prices\]"):
            make_meter("openai", "openai", options)
    else:
        assert make_meter("openai", "openai", options).book is None


def test_one_price_book_is_shared_by_the_clients_that_got_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[cycles.PriceBook] = []

    def genai() -> cycles.PriceBook:
        made.append(cycles.PriceBook({}))
        return made[-1]

    monkeypatch.setattr("cycles.providers._meter._shared_book", {})
    monkeypatch.setattr(cycles.PriceBook, "genai", genai)
    assert [make_meter("openai", "openai", {}).book for _ in range(2)] == made * 2
    assert len(made) == 1
    assert meter().book is BOOK


def test_options_of_reserve_are_checked_and_kept() -> None:
    def key(request: Any) -> str:
        return "k"

    found = meter(ttl_ms=5_000, grace_period_ms=None, lease_policy="warn", idempotency_key=key, actual=actual)
    assert dict(found.options) == {"ttl_ms": 5_000, "lease_policy": "warn"}
    assert (found.idempotency_key, found.actual) == (key, actual)
    for name in ("self", "estimates", "dry_run"):
        with pytest.raises(TypeError, match=rf"^guard\(\) got an unknown option '{name}'; the options of reserve are "):
            meter(**{name: 1})


@pytest.mark.parametrize("name", ["subject", "action", "metadata"])
def test_what_describes_a_request_is_checked_unless_a_callable_returns_it(name: str) -> None:
    with pytest.raises(cycles.InvalidRequestError):
        meter(**{name: 5})
    assert callable(getattr(meter(**{name: lambda request: 5}), name))
    assert getattr(meter(**{name: None}), name) is None


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "TOKENS", "estimate": None},
        {"unit": None, "estimate": cycles.usd(1)},
        {"wait": 86_400, "background_wait": 86_400},
        {"wait": 0, "background_wait": 0},
        {"max_output_tokens": 1, "min_output_tokens": 1},
        {"max_output_tokens": None, "min_output_tokens": None},
        {"client": None, "prices": BOOK, "estimate": None},
    ],
)
def test_options_that_are_allowed(options: dict[str, Any]) -> None:
    assert meter(**options).unit == (options.get("unit") or "USD_MICROCENTS")


def test_an_estimate_in_another_unit_needs_a_callable_for_the_actual() -> None:
    given = cycles.Amount("CREDITS", 5)
    assert meter(estimate=given, actual=lambda usage: given).estimate == given
    assert meter(estimate=cycles.tokens(5)).estimate == cycles.tokens(5)


# --- hosts and paths


@pytest.mark.parametrize("given", ["", "a/b", "a b", "a@b", "a?b", "a#b", 5, None, "a:b", "a:70000", ":80"])
def test_what_is_no_host(given: Any) -> None:
    with pytest.raises(
        cycles.InvalidRequestError,
        match=r"^free_hosts must have hosts such as 'localhost:11434' or '\*\.gpu\.internal', without a path, got ",
    ):
        free_hosts_of([given])


@pytest.mark.parametrize("given", ["localhost", b"localhost", 5, None, {"localhost"}])
def test_what_is_no_list_of_hosts(given: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"^free_hosts must be a list of hosts such as "):
        free_hosts_of(given)


def test_free_hosts_have_no_case_and_may_be_given_again() -> None:
    hosts = free_hosts_of(["GPU.internal:80", "[::1]:5"])
    assert hosts == (FreeHost("gpu.internal", 80), FreeHost("::1", 5))
    assert free_hosts_of(hosts) == hosts
    assert [is_free(url, hosts) for url in ("http://gpu.INTERNAL", "http://[::1]:5/v1", "https://gpu.internal")] == [
        True,
        True,
        False,
    ]
    assert not is_free("http://gpu.internal", ())


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b/", "/a/b"),
        ("/a?x=/b", "/a"),
        ("/a#x?y", "/a"),
        ("https://host/a/b?x", "/a/b"),
        ("files:register", "files:register"),
        ("", "/"),
        ("/", "/"),
    ],
)
def test_a_path_without_host_and_query(path: str, normal: str) -> None:
    assert normalized(path) == normal


@pytest.mark.parametrize(
    ("provider", "path", "found"),
    [
        ("openai", "/responses/a", "a"),
        ("openai", "/responses/a%2Fb", "a/b"),
        ("openai", "/responses/a/cancel", "a"),
        ("openai", "/responses/a/cancel/x", None),
        ("openai", "/responses/a/input_items", None),
        ("openai", "/v1/responses/a?stream=true", "a"),
        ("openai", "/chat/completions/a", None),
        ("openai", "/responsesx/a", None),
        ("anthropic", "/v1/messages/a", None),
    ],
)
def test_the_stored_response_of_a_path(provider: str, path: str, found: str | None) -> None:
    assert stored_response(provider, path) == found


@pytest.mark.parametrize(
    ("provider", "path", "found"),
    [
        ("openai", "/uploads", "free"),
        ("openai", "/uploads/a/parts", "free"),
        ("openai", "/uploadsx", "unmetered"),
        ("openai", "/files", "free"),
        ("openai", "/filesx", "unmetered"),
        ("openai", "/files/a/b", "unmetered"),
        ("openai", "/a/b/cancel", "free"),
        ("openai", "/chat/completions/a", "free"),
        ("openai", "/chat/completions/a/b", "unmetered"),
        ("google", "models/a:b:generateContent", "models.generate_content"),
        ("google", "a:countTokens", "free"),
        ("google", ":generateContent", "models.generate_content"),
        ("google", "models/a:generateContentX", "unmetered"),
    ],
)
def test_how_paths_are_looked_up(provider: str, path: str, found: str) -> None:
    endpoint = find(provider, "POST", path)
    assert (endpoint if isinstance(endpoint, str) else endpoint.name) == found


# --- amounts


@pytest.mark.parametrize(
    ("amount", "unit", "rounded", "text"),
    [
        (1, "USD_MICROCENTS", 10_000, "0.0001USD"),
        (10_000, "USD_MICROCENTS", 10_000, "0.0001USD"),
        (10_001, "USD_MICROCENTS", 20_000, "0.0002USD"),
        (0, "USD_MICROCENTS", 0, "0.00USD"),
        (5, "TOKENS", 5, "5TOKENS"),
        (10_001, "CREDITS", 10_001, "10001CREDITS"),
    ],
)
def test_amounts_as_people_type_them(amount: int, unit: str, rounded: int, text: str) -> None:
    found = rounded_up(amount, unit)
    assert (found, written(found)) == (cycles.Amount(unit, rounded), text)


def test_a_block_that_is_left_in_another_context_raises_nothing() -> None:
    def steps() -> Iterator[Any]:
        with paid_by(Payer()):
            yield current_payer()

    running = steps()
    assert isinstance(contextvars.copy_context().run(next, running), Payer)
    running.close()  # type: ignore[attr-defined]
    assert current_payer() is None
    running, other = steps(), Payer()
    contextvars.copy_context().run(next, running)
    with paid_by(other):
        running.close()  # type: ignore[attr-defined]
        assert current_payer() is other
    assert current_payer() is None


class Ending:
    def __init__(self, amount: int | None, **metadata: Any) -> None:
        self.amount = None if amount is None else cycles.tokens(amount)
        self.metadata = metadata


@pytest.mark.parametrize(
    ("endings", "total", "metadata"),
    [
        ([], None, None),
        ([Ending(None, a=1)], None, None),
        ([Ending(3)], 3, {}),
        ([Ending(3, a=1, b=1), Ending(None, c=1), Ending(4, b=2)], 7, {"a": 1, "b": 2}),
        ([Ending(1, a={"x": 1}), Ending(1, a={"y": 2}), Ending(1)], 3, {"a": {"x": 1, "y": 2}}),
        ([Ending(1, a={"x": 1, "y": 1}), Ending(1, a={"y": 2})], 2, {"a": {"x": 1, "y": 2}}),
        ([Ending(1, a=["x", "y"]), Ending(1, a=["y", "z"])], 2, {"a": ["x", "y", "z"]}),
        ([Ending(1, a=["x"]), Ending(1, a={"y": 2})], 2, {"a": {"y": 2}}),
        ([Ending(1, a={"y": 2}), Ending(1, a=["x"])], 2, {"a": ["x"]}),
    ],
)
def test_the_sum_of_requests_that_a_call_pays(endings: list[Any], total: int | None, metadata: Any) -> None:
    found = sum_of(endings)
    assert found == (None if total is None else (cycles.tokens(total), metadata))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl_ms", 0),
        ("timeout", 0),
        ("grace_period_ms", -1),
        ("observe", 0),
        ("actual", 0),
        *((name, "") for name in ("overage_policy", "on_observed", "on_unavailable", "settle", "lease_policy")),
        *((name, "") for name in ("extra_headers", "idempotency_key")),
    ],
)
def test_an_option_of_reserve_that_is_0_or_empty_is_checked(name: str, value: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=rf"^{name}:? must be"):
        meter(**{name: value})


def test_an_option_of_reserve_that_is_0_or_false_is_passed_on_and_none_is_the_default() -> None:
    given = {"grace_period_ms": 0, "shadow": False, "observe": False}
    assert meter(**given, ttl_ms=None, settle=None).options == given
