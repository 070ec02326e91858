"""The least and the most that the embedded server accepts, shows and keeps, each with the first value beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import cycles
from cycles.embedded import EmbeddedServer
from cycles.embedded.admin_forms import DEFAULT_PERMISSIONS, body_of, page, search
from cycles.embedded.dashboard.control import Controls
from cycles.embedded.errors import ApiError
from cycles.embedded.faults import Faults
from cycles.embedded.forecast import Pace
from cycles.embedded.webhook_security import DEFAULT, replaced
from cycles.embedded.webhook_subscriptions import RetryPolicy, Subscription, checked, created

A, INT32 = "tenant:acme", 2**31 - 1
HOOK: dict[str, Any] = {"url": "https://hooks.test/x", "event_types": ["budget.funded"]}


def policy(name: str) -> Callable[[Any], Any]:
    return lambda value: checked("create", {**HOOK, "retry_policy": {name: value}})


def hook(name: str, make: Callable[[int], Any] = int) -> Callable[[Any], Any]:
    return lambda value: checked("create", {**HOOK, name: make(value)})


def control(**form: Any) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        server = EmbeddedServer(clock=cycles.ManualClock())
        (name,) = (name for name, member in form.items() if member is ...)
        return Controls(server.ledger, Faults(), cycles.ManualClock()).run({**form, name: value})

    return run


def faults(**form: Any) -> Callable[[Any], Any]:
    return control(do="fault", operation="reserve", **form)


BOUNDS: dict[str, tuple[Callable[[Any], Any], float, float, float]] = {  # the least, the most, and the next value
    "retries of a webhook": (policy("max_retries"), 0, 10, 1),
    "first delay of a webhook": (policy("initial_delay_ms"), 100, 60_000, 1),
    "longest delay of a webhook": (policy("max_delay_ms"), 1_000, 3_600_000, 1),
    "factor of delays of a webhook": (policy("backoff_multiplier"), 1.0, 10.0, 0.01),
    "failures that disable a webhook": (hook("disable_after_failures"), 1, INT32, 1),
    "address of a webhook": (hook("url", lambda n: "https://h/".ljust(n, "x")), 10, 2_048, 1),
    "name of a webhook": (hook("name", lambda n: "x" * n), 0, 256, 1),
    "description of a webhook": (hook("description", lambda n: "x" * n), 0, 1_024, 1),
    "secret of a webhook": (hook("signing_secret", lambda n: "x" * n), 1, 2_000, 1),
    "types of a webhook": (hook("event_types", lambda n: ["budget.funded"] * n), 1, 100, 1),
    "events that are sent again": (lambda n: checked("replay", {"max_events": n}), 1, 1_000, 1),
    "search of the operator": (lambda n: search({"search": "x" * n}), 0, 128, 1),
    "advance of the clock": (control(do="advance", ms=...), 1, 10 * 365 * 86_400_000 - 1, 1),
    "times of a fault": (faults(kind="delay", times=...), 1, 999_999, 1),
    "status of a fault": (faults(kind="status", status=...), 200, 599, 1),
    "seconds of a fault": (faults(kind="delay", seconds=...), 0, 3_600, 0.001),
}
UNBOUNDED = ("address of a webhook", "types of a webhook", "secret of a webhook")  # one end is another rule, or none


@pytest.mark.parametrize("name", BOUNDS)
def test_the_bounds_of_a_number_or_a_length(name: str) -> None:
    run, least, most, step = BOUNDS[name]
    for value in (least, most):
        run(value)
    wrong = [value for value in (least - step, most + step) if isinstance(step, float) or value >= 0]
    if name in UNBOUNDED:
        wrong = wrong[-1:] if name.startswith("address") else wrong[:1]
    elif least == 0:
        wrong = wrong[-1:]
    assert wrong
    for value in wrong:
        with pytest.raises((cycles.InvalidRequestError, ApiError)):
            run(value)


def test_a_new_webhook_has_the_defaults_of_the_reference_server() -> None:
    made = created(checked("create", HOOK), "acme", "now")
    assert (made.disable_after_failures, made.consecutive_failures, made.status) == (10, 0, "ACTIVE")
    assert made.retry_policy == RetryPolicy(
        max_retries=5, initial_delay_ms=1_000, backoff_multiplier=2.0, max_delay_ms=60_000
    )
    assert [made.retry_policy.delay_ms(retry) for retry in (1, 2, 6, 7)] == [1_000, 2_000, 32_000, 60_000]
    assert len(Subscription(url="").secret) == len("whsec_") + 43
    assert DEFAULT == {"blocked_cidr_ranges": [], "allow_http": True}
    assert replaced({})["allow_http"] is False


@pytest.mark.parametrize(
    ("limit", "shown"), [(None, 50), ("1", 1), ("0", 1), ("-5", 1), ("99", 99), ("100", 100), ("101", 100), ("1.9", 1)]
)
def test_the_rows_of_a_page_of_the_operator(limit: str | None, shown: int) -> None:
    rows = [{"id": str(number)} for number in range(150)]
    found = page("rows", rows, lambda row: str(row["id"]), {} if limit is None else {"limit": limit})
    assert (len(found["rows"]), found["has_more"], found["next_cursor"]) == (shown, True, str(shown - 1))
    rest = page("rows", rows[:shown], lambda row: str(row["id"]), {"limit": "100"})
    assert (len(rest["rows"]), rest["has_more"], "next_cursor" in rest) == (shown, False, False)


def test_the_metadata_and_the_permissions_of_a_key() -> None:
    def made(number: int) -> Any:
        entries = ",".join(f'"{n}":"x"' for n in range(number))
        return body_of("createApiKey", f'{{"tenant_id":"acme","name":"n","metadata":{{{entries}}}}}'.encode())

    assert len(made(32)["metadata"]) == 32
    with pytest.raises(ApiError, match="metadata"):
        made(33)
    assert DEFAULT_PERMISSIONS == (
        "reservations:create", "reservations:commit", "reservations:release", "reservations:extend",
        "reservations:list", "balances:read",
    )  # fmt: skip


MINUTE, NOW = 60_000, 10**9


def forecast(*commits: tuple[int, int], remaining: int = 1_000, spent: int = 300, now_ms: int = NOW) -> Any:
    """Return the forecast for commits: milliseconds ago, and an amount."""
    pace = Pace(now_ms)
    for ago_ms, amount in commits:
        pace.add((A,), "TOKENS", now_ms - ago_ms, amount)
    return pace.of(A, "TOKENS", remaining, spent)


def test_a_forecast_needs_three_commits_of_a_minute_or_more() -> None:
    commits = [(2 * MINUTE, 100), (MINUTE, 100), (0, 100)]
    found = forecast(*commits)
    assert (found.rate_per_hour, found.exhausted_at_ms) == (300 * 30, NOW + 1_000 * 2 * MINUTE // 300)
    assert forecast(*commits[1:], spent=200) is None
    assert forecast((MINUTE, 1), (30_000, 1), (0, 1), spent=3) is not None
    assert forecast((MINUTE - 1, 1), (30_000, 1), (0, 1), spent=3) is None
    assert forecast(*commits, remaining=0) is None
    assert forecast(*commits, remaining=1) is not None
    assert forecast((MINUTE, 0), (30_000, 0), (0, 0), spent=0) is None
    assert forecast((MINUTE, 1), (30_000, 0), (0, 0), spent=1).rate_per_hour == 60


def test_a_forecast_counts_the_commits_of_fifteen_minutes() -> None:
    recent = [(2 * MINUTE, 100), (MINUTE, 100), (0, 100)]
    assert forecast((15 * MINUTE, 100), *recent, spent=400).rate_per_hour == 400 * 4
    assert forecast((15 * MINUTE + 1, 100), *recent, spent=300).rate_per_hour == 300 * 30
    assert forecast((15 * MINUTE + 1, 100), *recent, spent=301).rate_per_hour == 300 * 4  # there were earlier ones
    assert forecast(*recent, (-1_000, 100), spent=400).rate_per_hour == 400 * 30
    assert forecast(*recent, (-1_001, 100), spent=300).rate_per_hour == 300 * 30


def test_commits_of_five_seconds_are_one_entry_with_its_number() -> None:
    assert forecast((2 * MINUTE, 1), (2 * MINUTE - 4_999, 1), (2 * MINUTE - 5_000, 1), spent=3).rate_per_hour == 3 * 30


def test_a_commit_that_is_noted_late_counts_at_its_own_time() -> None:
    """Threads that commit together may note their commits in another order."""
    assert forecast((0, 1), (0, 1), (2 * MINUTE, 1), spent=3).rate_per_hour == 3 * 30
    assert forecast((0, 100), (15 * MINUTE, 100), (0, 100), spent=400).rate_per_hour == 300 * 4


@pytest.mark.parametrize(("gap_ms", "left"), [(0, 3), (4_999, 3), (5_000, 103), (5_001, 103)])
def test_commits_of_five_seconds_are_left_out_together(gap_ms: int, left: int) -> None:
    pace = Pace(NOW)
    for at_ms in (NOW - 10_000, NOW - 10_000 + gap_ms):
        pace.add((A,), "TOKENS", at_ms, 100)
    pace.now_ms = NOW - 10_000 + 15 * MINUTE + 1
    for _ in range(3):
        pace.add((A,), "TOKENS", pace.now_ms, 1)
    found = pace.of(A, "TOKENS", 1_000, 10**6)
    assert found is not None
    assert found.rate_per_hour == left * 4


def test_a_forecast_is_of_the_next_year_and_before_the_end_of_the_window() -> None:
    commits, year_ms = [(10 * MINUTE, 1), (MINUTE, 1), (0, 1)], 366 * 24 * 60 * MINUTE
    most = 3 * year_ms // (10 * MINUTE)
    assert forecast(*commits, remaining=most, spent=3) is None
    assert forecast(*commits, remaining=most - 1, spent=3).exhausted_at_ms == NOW + (most - 1) * 10 * MINUTE // 3
    pace = Pace(NOW)
    for ago_ms, amount in commits:
        pace.add((A,), "TOKENS", NOW - ago_ms, amount)
    assert pace.of(A, "TOKENS", 3, 3, ends_ms=NOW + 10 * MINUTE) is None
    assert pace.of(A, "TOKENS", 3, 3, ends_ms=NOW + 10 * MINUTE + 1) is not None
