"""Each check of an option says what is wrong, which value, and what is allowed; both sides of each bound are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles

from .conftest import ACTION

T = cycles.tokens
LONG = "x" * 100
SHOWN = repr(LONG)[:80]
CONFIG: dict[str, Any] = {"base_url": "http://localhost:1", "api_key": "k", "tenant": "acme", "journal": False}


@pytest.fixture
def offline() -> Iterator[Any]:
    """A client that sends nothing."""
    with cycles.Cycles(**CONFIG) as client:
        yield client


class Sends:
    """What has `send` and no `aclose` is a sync client only."""

    def send(self) -> None: ...


SENDS: Any = Sends()
NO_TEXT: Any = 5


FRACTIONS = "thresholds must be fractions above 0 and up to 1, like 0.8, got"
OVERAGE = "overage_policy must be one of REJECT, ALLOW_IF_AVAILABLE, ALLOW_WITH_OVERDRAFT, got"
LEASE = "lease_policy must be one of warn, fail_on_finalize, cancel, got"
AMOUNT = "must be an Amount such as cycles.usd('0.05'), got"
RETRIES = "max_retries must be an integer from 0 to 10, got"
TIMEOUT = "timeout must be seconds, more than 0 and at most 86400, got"
SECONDS = "must be seconds, 0 to 86400, got"
WRONG: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c.reserve(LONG, action=ACTION), f"estimate {AMOUNT} {SHOWN}"),
    (lambda c: c.reserve(T(1), action=ACTION, actual=LONG), f"actual must be an Amount or a callable, got {SHOWN}"),
    (
        lambda c: c.reserve(T(1), action=ACTION, actual=cycles.usd(1)),
        "actual must be in the unit of the estimate, TOKENS: got $1.00",
    ),
    (lambda c: c.reserve(T(1), action=ACTION, shadow=LONG), f"shadow must be True or False, got {SHOWN}"),
    (lambda c: c.reserve(T(1), action=ACTION, observe=LONG), f"observe must be True or False, got {SHOWN}"),
    (lambda c: c.reserve(T(1), action=ACTION, lease_policy=LONG), f"{LEASE} {SHOWN}"),
    (
        lambda c: c.reserve(T(1), action=ACTION, on_unavailable="x"),
        "on_unavailable must be one of raise, allow, got 'x'",
    ),
    (lambda c: c.reserve(T(1), action=ACTION, on_observed="x"), "on_observed must be one of raise, run, got 'x'"),
    (lambda c: c.reserve(T(1), action=ACTION, settle="x"), "settle must be one of background, got 'x'"),
    (lambda c: c.reserve(T(1), action=ACTION, wait=86_401), f"wait {SECONDS} 86401"),
    (lambda c: c.reserve(T(1), action=ACTION, wait=-0.5), f"wait {SECONDS} -0.5"),
    (lambda c: c.reserve(T(1), action=ACTION, timeout=0), f"{TIMEOUT} 0"),
    (lambda c: c.reserve(T(1), action=ACTION, timeout=86_401), f"{TIMEOUT} 86401"),
    (lambda c: c.flush(LONG), f"timeout {SECONDS} {SHOWN}"),
    (lambda c: c.flush(True), f"timeout {SECONDS} True"),
    (lambda c: c.with_options(overage_policy=LONG), f"{OVERAGE} {SHOWN}"),
    (lambda c: c.with_options(max_retries=11), f"{RETRIES} 11"),
    (lambda c: c.with_options(max_retries=-1), f"{RETRIES} -1"),
    (lambda c: c.with_options(max_retries=True), f"{RETRIES} True"),
    (lambda c: c.with_options(max_retries=1.0), f"{RETRIES} 1.0"),
    (lambda c: c.with_options(max_retries=LONG), f"{RETRIES} {SHOWN}"),
    (lambda c: c.on_event(LONG), f"observer must be a callable that takes an event, got {SHOWN}"),
    (lambda c: c.trace_with(LONG), f"tracing must have the methods begin and sending, got {SHOWN}"),
    (lambda c: c.on_threshold(LONG, print), f"{FRACTIONS} {SHOWN}"),
    (lambda c: c.on_threshold(True, print), f"{FRACTIONS} True"),
    (lambda c: c.on_threshold([0.5, 1.01], print), f"{FRACTIONS} 1.01"),
    (lambda c: c.on_threshold([], print), f"{FRACTIONS} None"),
    (lambda c: c.on_threshold(0, print), f"{FRACTIONS} 0"),
    (lambda c: c.on_threshold(0.5, LONG), f"callback must be a callable that takes an event, got {SHOWN}"),
    (lambda c: c.on_threshold(0.5, print, LONG), f"scopes must be a list of scope paths, got {SHOWN}"),
    (lambda c: c.on_threshold(0.5, print, 5), "scopes must be a list of scope paths, got 5"),
    (lambda c: c.decide(LONG, action=ACTION), f"estimate {AMOUNT} {SHOWN}"),
    (lambda c: c.record(LONG, action=ACTION), f"actual {AMOUNT} {SHOWN}"),
    (lambda c: c.commit_reservation("r", LONG), f"actual {AMOUNT} {SHOWN}"),
    (lambda c: c.balances(include_children=1), "include_children must be True or False, got 1"),
    (lambda c: c.action_kinds(include_deprecated=0), "include_deprecated must be True or False, got 0"),
    (
        lambda c: c.reserve(T(1), action=ACTION, subject={"agent": "a b" + LONG}),
        "subject.agent must be 1 to 128 letters (a-z), digits, '_', '.' or '-', got " + repr("a b" + LONG)[:80],
    ),
    (
        lambda c: cycles.Cycles(**{**CONFIG, "tenant": None}).reserve(
            T(1), action=ACTION, subject={"dimensions": {"run_id": "a"}}
        ),
        "subject is empty: set at least one of tenant, workspace, app, workflow, agent, toolset; "
        'pass subject={"tenant": "acme"} or set CYCLES_TENANT',
    ),
    (lambda c: cycles.run(""), "run_id must be a string with at least one character, got ''"),
    (lambda c: cycles.run(NO_TEXT), "run_id must be a string with at least one character, got 5"),
    (lambda c: c.pool(T(4), action=ACTION, ttl_ms=999), "ttl_ms: must be 1000 or more, got 999"),
    (lambda c: c.reserve(T(1), action=ACTION, ttl_ms=999), "ttl_ms: must be 1000 or more, got 999"),
    (lambda c: c.lease_series(T(1), action=ACTION, ttl_ms=999), "ttl_ms: must be 1000 or more, got 999"),
    (lambda c: c.preview(T(1), action=ACTION, ttl_ms=999), "ttl_ms: must be 1000 or more, got 999"),
    (lambda c: c.pool(LONG, action=ACTION), f"max_held {AMOUNT} {SHOWN}"),
    (lambda c: c.pool(T(4), action=ACTION, chunk=LONG), f"chunk {AMOUNT} {SHOWN}"),
    (
        lambda c: c.pool(T(4), action=ACTION, chunk=cycles.usd(1)),
        "chunk must be in the unit of max_held: $1.00 is not in TOKENS",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION, limit=cycles.usd(1)),
        "limit must be in the unit of max_held: $1.00 is not in TOKENS",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION, chunk=T(5)),
        "chunk must be from 1 to max_held, 4 tokens: got 5 tokens; pass a larger max_held",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION, chunk=T(0)),
        "chunk must be from 1 to max_held, 4 tokens: got 0 tokens; pass a larger max_held",
    ),
    (
        lambda c: c.pool(T(0), action=ACTION),
        "chunk must be from 1 to max_held, 0 tokens: got 0 tokens; pass a larger max_held",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION).reserve(cycles.usd(1)),
        "estimate must be in the unit of the pool: $1.00 is not in TOKENS",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION).reserve(T(1), idempotency_key="k"),
        "idempotency_key is not possible in a pool, whose guards the server never sees: use client.reserve(...) for it",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION).guarded(T(1), zero=1, timeout=1),
        "timeout is not an option of a guard in a pool: pass it to client.pool(...), or use client.guarded(...)",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION).guarded(T(1), idempotency_key="k"),
        "idempotency_key is not an option of a guard in a pool: use client.guarded(...) for it",
    ),
    (
        lambda c: c.pool(T(4), action=ACTION).reserve(T(1), subject={"dimensions": {"d": "v" * 257}}),
        "subject.dimensions.d: must have at most 256 characters, has 257",
    ),
    (lambda c: c.pool(T(4), action=ACTION).reserve(T(1), wait=-1), f"wait {SECONDS} -1"),
    (lambda c: c.pool(T(4), action=ACTION).reserve(T(1), lease_policy="x"), f"{LEASE} 'x'"),
    (lambda c: c.guarded(LONG, action=ACTION), f"estimate {AMOUNT} {SHOWN}"),
    (
        lambda c: c.guarded(T(1), action=ACTION, actual=LONG),
        f"actual must be an Amount or a callable that returns one, got {SHOWN}",
    ),
    (
        lambda c: c.guarded(T(1), action=ACTION, actual=cycles.usd(1)),
        "actual must be in the unit of the estimate, TOKENS: got $1.00",
    ),
    (
        lambda c: c.guarded(T(1), action=ACTION)(property(print)),
        "a property cannot be guarded: write @guarded below @property, on its function",
    ),
    (
        lambda c: c.guarded(T(1), action=ACTION)(Sends),
        "the class Sends cannot be guarded: guard its methods, or a function",
    ),
    (lambda c: c.guarded(T(1), action=ACTION)(LONG), f"{SHOWN} cannot be guarded: @guarded takes a function"),
    (
        lambda c: c.lease_series(T(1), action=ACTION, actual=T(1)),
        "actual is not an option of lease_series: each part has its own key and commits its spend",
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_option_is_named_with_its_value_and_what_is_allowed(
    offline: cycles.Cycles, call: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(cycles.InvalidRequestError) as caught:
        call(offline)
    assert str(caught.value) == message


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"config": LONG}, "config must be a cycles.Config, got a value of type str"),
    ({"http_client": 5}, "http_client must be like an httpx.Client, got 5"),
    ({"async_http_client": LONG}, f"async_http_client must be like an httpx.AsyncClient, got {SHOWN}"),
]


@pytest.mark.parametrize(("settings", "message"), SETTINGS, ids=[message[:40] for _, message in SETTINGS])
def test_a_wrong_argument_of_the_client_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        cycles.Cycles(**{**CONFIG, **settings})
    assert str(caught.value) == message


def test_a_client_that_can_send_and_not_close_itself_is_no_async_one() -> None:
    cycles.Cycles(**CONFIG, http_client=SENDS).close()
    with pytest.raises(cycles.ConfigurationError, match="async_http_client must be like"):
        cycles.Cycles(**CONFIG, async_http_client=SENDS)


def test_an_option_at_the_end_of_its_range_is_accepted(offline: cycles.Cycles) -> None:
    seconds: float
    for seconds in (0, 86_400):
        offline.reserve(T(1), action=ACTION, wait=seconds)
        offline.pool(T(4), action=ACTION).reserve(T(1), wait=seconds)
        offline.flush(seconds)
    for seconds in (0.001, 86_400):
        offline.reserve(T(1), action=ACTION, timeout=seconds)
        offline.with_options(timeout=seconds)
    for retries in (0, 10):
        offline.with_options(max_retries=retries)
    for chunk in (1, 4):
        offline.pool(T(4), action=ACTION, chunk=T(chunk))
    offline.pool(T(1), action=ACTION, limit=T(0))
    offline.on_threshold(1, print)
    offline.on_threshold((0.001, 1.0), print, [])


def test_a_view_without_options_has_those_of_the_client(offline: cycles.Cycles) -> None:
    view = offline.with_options()
    assert repr(view) == repr(offline) == "<Cycles http://localhost:1, tenant acme>"
